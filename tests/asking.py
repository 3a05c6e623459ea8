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
    with (
        tempfile.NamedTemporaryFile("r") as stdout,
        tempfile.NamedTemporaryFile("r") as stderr,
        socket.socket(socket.AF_UNIX) as connection,
    ):
        connection.connect(address)
        command = [str(Path(sys.executable).with_name(program)), *arguments]
        request = [program, command, cwd, dict(environment), stdout.name, stderr.name]
        connection.sendall(json.dumps(request).encode())
        connection.shutdown(socket.SHUT_WR)
        answer = connection.makefile().read()
        return subprocess.CompletedProcess(command, int(answer), stdout.read(), stderr.read())
