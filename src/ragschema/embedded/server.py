"""The embedded server: its data directory, its start, its end. Needs ``ragschema[embedded]``.

One data directory is one server. A command uses it through `running`, which starts it if need be and stops
it when the last user is gone. Users are counted by shared file locks, so a killed command leaves no count
behind. `start` keeps a server running until `stop`. It listens on a Unix socket only, in a directory that
nobody else may enter. Whoever starts, stops or deletes it holds the lock file beside the data meanwhile.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from ragschema.embedded import places, sockets
from ragschema.embedded.creation import initialise
from ragschema.embedded.data_directory import check_directory
from ragschema.embedded.programs import program, run_program
from ragschema.errors import ConfigurationError, DatabaseUnreachable, RagSchemaError

log = logging.getLogger(__name__)

START_TIMEOUT = 120  # seconds: crash recovery may take a while
LEFTOVER_TIMEOUT = 10  # seconds for the processes of a killed server to see that it is gone


@contextmanager
def running(data: Path, *, makes: bool = True, password: str | None = None) -> Iterator[Mapping[str, str]]:
    """Run the server of a data directory while the block runs; yield libpq keywords to reach it.

    Other processes may use the same server at the same time.

    Args:
        data: The data directory; an absolute path.
        makes: Whether to make the data directory if it is new.
        password: The superuser's, for a new data directory where every login needs a password; it is kept
            nowhere. By default nobody needs one, because nobody else may enter the directory.

    Raises:
        ConfigurationError: The extra is not installed, the directory cannot hold a server, or there is none
            and it is not to be made.
        DatabaseUnreachable: The server does not start.
    """
    program("postgres")
    if not makes and not is_made(data):
        raise ConfigurationError(
            f"There is no embedded server in {data}, and no setting names another database.",
            "Make one there with `rag migrate`, or set DATABASE_URL to the server that is meant.",
        )
    with checked(data):
        data = places.settle(data)
    with transition(data):
        _ensure_running(data, password)
        users = [_lock(beside(data, "users"), fcntl.LOCK_SH)]
    try:
        yield parameters(data)
    finally:
        try:
            _leave(data, users)
        except (KeyboardInterrupt, SystemExit):  # a second one may end this too
            _leave(data, users)
            raise


def _leave(data: Path, users: list[int]) -> None:
    """Close the descriptor that says that the server is used, and stop it if nobody else does."""
    with transition(data):
        if users:
            os.close(users.pop())
        if not _is_used(data) and not _is_kept(data):
            stop_now(data)


def start(data: Path) -> None:
    """Start the server and keep it running until `stop`."""
    program("postgres")
    with checked(data):
        data = places.settle(data)
    with transition(data):
        _ensure_running(data)
        beside(data, "kept").write_text(str(_postmaster_pid(data)))


def stop(data: Path) -> bool:
    """Stop the server, whoever uses it; return whether it was running."""
    program("postgres")
    data = places.real_place(data)
    with checked(data):
        if not data.exists():
            return False
    with transition(data):
        beside(data, "kept").unlink(missing_ok=True)
        return stop_now(data)


def parameters(data: Path) -> Mapping[str, str]:
    """Return the libpq keywords of the server; it need not be running."""
    data = places.real_place(data)
    return {
        "host": str(sockets.socket_directory(data)),
        "port": "5432",
        "user": "postgres",
        "dbname": "postgres",
    }


def is_made(data: Path) -> bool:
    """Whether the directory holds a server's data, or nobody may look."""
    try:
        return (data / "PG_VERSION").is_file()
    except PermissionError:
        return True


def is_running(data: Path) -> bool:
    """Whether a server runs on the data directory; a pid file left by a killed one does not count.

    Raises:
        ConfigurationError: The extra is not installed.
    """
    program("postgres")
    import psutil

    data = places.real_place(data)
    pid = _postmaster_pid(data)
    if pid is None:
        return False
    try:
        process = psutil.Process(pid)  # works in its data directory, however that was named at its start
        return process.name() == "postgres" and (str(data) in process.cmdline() or process.cwd() == str(data))
    except psutil.NoSuchProcess:  # or a zombie
        return False
    except psutil.AccessDenied:  # some systems hide another user's command line
        return True


def _ensure_running(data: Path, password: str | None = None) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while not (is_running(data) and pid_file(data)[7:8] == ["ready"]):
        if not is_running(data):
            check_directory(data)
            if not (data / "PG_VERSION").is_file():
                log.debug("Making a new PostgreSQL data directory in %s", data)
                initialise(data, password)
            _start(data)
        elif time.monotonic() > deadline:
            raise _not_started(data, "It runs, but does not get ready.")
        else:
            time.sleep(0.05)  # a killed run left it starting, or someone else is stopping it


def _start(data: Path) -> None:
    socket_directory = sockets.make_socket_directory(data)
    _remove_stale_locks(data, socket_directory)
    log.debug("Starting the embedded PostgreSQL in %s", data)
    options = f"-h '' -p 5432 -k {socket_directory} -c client_connection_check_interval=500ms"
    written = data / "log"
    deadline = time.monotonic() + LEFTOVER_TIMEOUT
    while True:
        offset = written.stat().st_size if written.is_file() else 0
        result = run_program(
            "pg_ctl", data, "-l", str(written), "-w", "-t", str(START_TIMEOUT), "-o", options, "start"
        )  # fmt: skip
        if result.returncode == 0 or is_running(data):  # a killed run's own pg_ctl may have been faster
            return
        evidence = written.read_bytes()[offset:].decode(errors="replace") if written.is_file() else ""
        if "still in use" not in evidence or time.monotonic() > deadline:
            raise _not_started(data, evidence or result.stdout)
        time.sleep(0.1)  # the processes of a killed server are still leaving


def _remove_stale_locks(data: Path, socket_directory: Path) -> None:
    """Remove what a killed server left: PostgreSQL believes its pid, which may be another process's by now."""
    locks = (data / "postmaster.pid", socket_directory / sockets.LOCK_NAME)
    stale = [lock for lock in locks if lock.exists()]
    if stale and not is_running(data):
        for lock in stale:
            lock.unlink(missing_ok=True)


def _not_started(data: Path, evidence: str) -> DatabaseUnreachable:
    return DatabaseUnreachable(
        f"The embedded PostgreSQL in {data} does not start.",
        f"Read {data / 'log'}, or start afresh with `rag db destroy`.",
        "\n".join(evidence.strip().splitlines()[-8:]),
    )


def stop_now(data: Path) -> bool:
    """Stop the server; return whether it was running."""
    if not is_running(data):
        return False
    log.debug("Stopping the embedded PostgreSQL in %s", data)
    command = ("pg_ctl", data, "-m", "fast", "-w", "-t", str(START_TIMEOUT), "stop")
    try:
        result = run_program(*command)
    except (KeyboardInterrupt, SystemExit):  # pg_ctl may not have said anything to the server yet
        run_program(*command)
        raise
    if is_running(data):
        raise RagSchemaError(
            f"The embedded PostgreSQL in {data} does not stop.",
            f"Read {data / 'log'}.",
            result.stdout.strip(),
        )
    with suppress(OSError):
        sockets.short_directory(data).rmdir()
    return True


def pid_file(data: Path) -> list[str]:
    """Return the lines of the server's own pid file: its pid is the first, its state the eighth."""
    try:
        return [line.strip() for line in (data / "postmaster.pid").read_text(errors="replace").splitlines()]
    except OSError:
        return []


def _postmaster_pid(data: Path) -> int | None:
    first = "".join(pid_file(data)[:1])
    return int(first) if first.isdecimal() else None


def _is_kept(data: Path) -> bool:
    mark = beside(data, "kept")
    return mark.is_file() and mark.read_text() == str(_postmaster_pid(data))


def beside(data: Path, suffix: str) -> Path:
    return data.with_name(f"{data.name}.{suffix}")


@contextmanager
def checked(data: Path) -> Iterator[None]:
    """Say what to do where the system refuses what the server needs of its directory."""
    try:
        yield
    except OSError as exc:
        raise ConfigurationError(
            f"The embedded server cannot use {exc.filename or data}: {exc.strerror or exc}.",
            "Set RAG_EMBEDDED_DIR to a directory of yours on a local disk, or DATABASE_URL to a server.",
        ) from exc


@contextmanager
def transition(data: Path) -> Iterator[None]:
    """Hold the right to start or stop the server."""
    program("postgres")
    with checked(data):
        descriptor = _lock(beside(data, "lock"), fcntl.LOCK_EX)
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
        os.close(_lock(beside(data, "users"), fcntl.LOCK_EX | fcntl.LOCK_NB))
    except BlockingIOError:
        return True
    return False
