"""How a process asks `forks` to run a command; imports little, because scripts of the pages ask too."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path


def ask(
    address: str, program: str, arguments: Sequence[str], cwd: str, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run ``rag`` or ``alembic`` in a fork to its end.

    Args:
        address: The socket of the process to fork.
        program: The name of the installed script.
        arguments: What stands behind it.
        cwd: Where it runs.
        environment: All its environment variables.
    """
    with tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:
        command = command_of(program, arguments)
        with request(address, command, cwd, environment, (stdout.fileno(), stderr.fileno())) as connection:
            _, code = connection.makefile().read().split()
        for output in (stdout, stderr):
            output.seek(0)
        return subprocess.CompletedProcess(command, int(code), stdout.read(), stderr.read())


def command_of(program: str, arguments: Sequence[str]) -> list[str]:
    """Return the command that a fork stands for: the installed script of a program, and its arguments."""
    return [str(Path(sys.executable).with_name(program)), *arguments]


def request(
    address: str, command: Sequence[str], cwd: str, environment: Mapping[str, str], outputs: Sequence[int]
) -> socket.socket:
    """Let a command run in a fork; return the socket that tells its process id, then its exit code, a line each.

    Args:
        address: The socket of the process to fork.
        command: The installed script of a program, and its arguments.
        cwd: Where it runs.
        environment: All its environment variables.
        outputs: The file descriptors of its standard output and standard error.
    """
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(address)
        socket.send_fds(connection, [b"1"], outputs)
        connection.sendall(json.dumps([command, cwd, dict(environment)]).encode())
        connection.shutdown(socket.SHUT_WR)
    except OSError:
        connection.close()
        raise
    return connection
