"""Connections: engines for services, and the one connection that migrates.

The migration connection carries the deployer lock: a session-level advisory lock on the very connection that
runs the DDL, so that it cannot be free while the server still works for a killed client.
"""

from __future__ import annotations

import atexit
import hashlib
import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.ext.asyncio import create_async_engine as sa_create_async_engine
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import NullPool
from tenacity import RetryError, Retrying, retry_if_result, stop_after_delay, wait_random

import ragschema.embedding  # noqa: F401  first: engines made after it bind embeddings in binary
from ragschema import embedded
from ragschema.errors import ConfigurationError, DatabaseUnreachable, LockNotObtained
from ragschema.settings import Database, find_database

log = logging.getLogger(__name__)

VERSION_TABLE = "rag_alembic_version"
LOCK_WAIT = 300.0  # seconds to wait for another deployer
_REPORT_EVERY = 5.0  # seconds between lines that say who holds the lock

# A server that looks for a vanished client twice a second stops within that time after a kill -9.
MIGRATION_SETTINGS = {"application_name": "ragschema migrate", "client_connection_check_interval": "500ms"}

_until_exit = ExitStack()
atexit.register(_until_exit.close)


def create_engine(database_url: str | None = None, **options: Any) -> sa.Engine:
    """Create an engine for the database that `find_database` finds.

    Where that is the embedded server, it is started and runs until the process ends.

    Args:
        database_url: A PostgreSQL URL; the settings decide by default.
        options: Passed to `sqlalchemy.create_engine`.

    Raises:
        ConfigurationError: No database is set, or a setting cannot be used.
    """
    return sa.create_engine(_reachable_until_exit(database_url).url(), **options)


def create_async_engine(database_url: str | None = None, **options: Any) -> AsyncEngine:
    """Create an async engine; see `create_engine`."""
    return sa_create_async_engine(_reachable_until_exit(database_url).url(), **options)


def session_factory(database_url: str | None = None, **options: Any) -> sessionmaker[Session]:
    """Return a factory of sessions on `create_engine`: ``with session_factory().begin() as session: ...``."""
    return sessionmaker(create_engine(database_url, **options))


def _reachable_until_exit(database_url: str | None) -> Database:
    return _until_exit.enter_context(reachable(find_database(database_url)))


@contextmanager
def reachable(database: Database) -> Iterator[Database]:
    """Yield the database with the parameters to reach it; an embedded server runs meanwhile."""
    if database.embedded is None:
        yield database
        return
    with embedded.running(database.embedded) as parameters:
        yield replace(database, parameters=parameters)


@contextmanager
def migration_connection(database: Database) -> Iterator[sa.Connection]:
    """Connect to migrate: one connection, no pool, no transaction begun.

    Raises:
        DatabaseUnreachable: The server does not answer, or refuses this login.
    """
    with reachable(database) as found:
        log.info("Database: %s", found)
        engine = sa.create_engine(found.url(), poolclass=NullPool)
        event.listen(engine, "connect", _apply_settings)
        try:
            connection = engine.connect()
        except OperationalError as exc:
            raise DatabaseUnreachable(
                f"The database {found} cannot be reached.",
                "Check that the server runs and that the setting named above is right.",
                str(exc.orig).strip(),
            ) from exc
        with connection:
            yield connection


def _apply_settings(dbapi_connection: Any, _record: object) -> None:
    """Set what every migration obeys, outside a transaction: not as startup options, which poolers refuse."""
    dbapi_connection.autocommit = True
    for name, value in MIGRATION_SETTINGS.items():
        dbapi_connection.execute("SELECT set_config(%s, %s, false)", (name, value))
    dbapi_connection.autocommit = False


@dataclass(frozen=True)
class Schemas:
    """Where our tables are, and where pgvector is.

    Attributes:
        target: The schema our tables are in or will be created in.
        extension: The schema of the extension ``vector``; None while it is not installed.
    """

    target: str
    extension: str | None


def find_schemas(connection: sa.Connection) -> Schemas:
    """Find the target schema and the extension's; leaves no transaction open.

    Raises:
        ConfigurationError: No schema of the search_path exists.
    """
    row = connection.execute(
        sa.text(
            "SELECT current_schema(), current_setting('search_path'),"
            " (SELECT n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace"
            "  WHERE e.extname = 'vector')"
        )
    ).one()
    connection.rollback()
    if row[0] is None:
        raise ConfigurationError(
            f"No schema of the search_path ({row[1]}) exists, so there is nowhere to put the tables.",
            "Create the schema, or set search_path in the URL: ?search_path=public.",
        )
    return Schemas(row[0], row[2])


def deployer_lock_key(schema: str) -> int:
    """Return the advisory lock key of a target schema, a signed 64-bit integer."""
    return int.from_bytes(
        hashlib.sha256(f"ragschema deployer {schema}".encode()).digest()[:8], "big", signed=True
    )


def take_deployer_lock(connection: sa.Connection, schema: str, *, wait: float = LOCK_WAIT) -> None:
    """Take the deployer lock of a schema; it is held until the connection closes.

    Polls and commits after each poll: a waiting lock request would hold a snapshot, and a concurrent index
    build of the deployer who has the lock would wait for it.

    Args:
        connection: The connection that will run the DDL; left without a transaction.
        schema: The target schema.
        wait: Seconds to wait for another deployer.

    Raises:
        LockNotObtained: Another deployer still had it at the end of the wait.
    """
    key = deployer_lock_key(schema)
    next_report = 0.0

    def poll() -> bool:
        nonlocal next_report
        obtained = bool(connection.scalar(sa.text("SELECT pg_try_advisory_lock(:key)"), {"key": key}))
        if not obtained and time.monotonic() >= next_report:
            log.info("Waiting for another deployer: %s", _describe_holder(connection, key))
            next_report = time.monotonic() + _REPORT_EVERY
        connection.commit()
        return obtained

    try:
        Retrying(
            retry=retry_if_result(lambda obtained: not obtained),
            wait=wait_random(0.05, 0.25),
            stop=stop_after_delay(wait),
        )(poll)
    except RetryError as exc:
        holder = _describe_holder(connection, key)
        connection.rollback()
        raise LockNotObtained(
            f"Another deployer has held the lock on schema {schema} for {wait:g} s.",
            "Nothing was changed. Wait for it to finish, then run the same command again.",
            holder,
        ) from exc


def _describe_holder(connection: sa.Connection, key: int) -> str:
    row = connection.execute(
        sa.text(
            "SELECT a.pid, a.application_name, coalesce(host(a.client_addr), 'local socket'),"
            " date_trunc('second', clock_timestamp() - a.backend_start)::text"
            " FROM pg_locks l JOIN pg_stat_activity a USING (pid)"
            " WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1"
            " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            " AND l.classid::bigint = :high AND l.objid::bigint = :low"
        ),
        {"high": (key >> 32) & 0xFFFFFFFF, "low": key & 0xFFFFFFFF},
    ).first()
    if row is None:
        return "it has just finished"
    return f"pid {row[0]} ({row[1] or 'no application_name'}, from {row[2]}), connected for {row[3]}"
