"""Connections that migrate or look, made with psycopg alone."""

from __future__ import annotations

import logging
import math
import os
import re
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from ragschema.database import session
from ragschema.database.impostors import refuse_impostors
from ragschema.database.login_refusals import explain_refusal
from ragschema.database.options import Options
from ragschema.database.poolers import Access, find_access, refuse_transaction_pooler
from ragschema.database.row_security import is_refusal
from ragschema.database.server import (
    Connection,
    Schemas,
    check_server,
    find_schemas,
)
from ragschema.database.settings import Database
from ragschema.database.sqlstates import is_connection_lost, is_lock_conflict
from ragschema.errors import DatabaseUnreachable, LockNotObtained, RagSchemaError, RowsHidden

log = logging.getLogger(__name__)

_CONNECT_TIMEOUT = 10  # seconds for each address
_LEAST_TIMEOUT = 2  # seconds; psycopg takes no less

# A peer that has vanished is missed after a minute, not after the kernel's two hours: it may hold the lock.
_KEEPALIVES = {
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
}


@dataclass(frozen=True)
class Opened:
    """An open connection, in autocommit mode, and what was found of the server.

    Attributes:
        connection: The connection; its search_path starts with the target schema.
        database: The database, with the parameters that reach it.
        options: What was asked for.
        schemas: Our schema, and pgvector's.
        access: Direct, or through which kind of pooler.
    """

    connection: Connection
    database: Database
    options: Options
    schemas: Schemas
    access: Access


@contextmanager
def reachable(database: Database, *, makes: bool = False, is_announced: bool = True) -> Iterator[Database]:
    """Yield the database with the parameters to reach it; an embedded server runs meanwhile.

    Args:
        database: The database.
        makes: Whether to make the data directory of an embedded server that has none yet.
        is_announced: Whether it was said which database this is; an embedded server is named before it starts.

    Raises:
        ConfigurationError: The embedded server has no data directory, and is not to be made.
    """
    if database.embedded is None:
        yield database
        return
    from ragschema import embedded

    if not is_announced and (embedded.is_made(database.embedded) or makes):
        is_new = "" if embedded.is_made(database.embedded) else ", made now"
        log.info("Database: %s%s", database, is_new)
    with embedded.running(database.embedded, makes=makes) as parameters:
        yield replace(database, parameters=parameters)


@contextmanager
def held_reachable(options: Options) -> Iterator[Options]:
    """Yield options for several connections: an embedded server runs meanwhile, and is named once."""
    with reachable(options.database, makes=options.makes_server, is_announced=options.is_announced) as found:
        is_announced = options.is_announced or found.embedded is not None
        yield replace(options, database=found, is_announced=is_announced)


@contextmanager
def opened(options: Options) -> Iterator[Opened]:
    """Open a connection to migrate or look, and find out what is at its other end.

    Raises:
        DatabaseUnreachable: The server does not answer.
        ConfigurationError: It refuses this login, is too old or a transaction pooler, or it is not clear which
            schema is meant; or functions of others in the schema could be called for PostgreSQL's own.
        LockNotObtained: A statement met a lock, or a deadlock.
        RagSchemaError: The server refused a statement of ours.
    """
    with held_reachable(options) as held:
        database = held.database
        if not held.is_announced:
            log.info("Database: %s", database)
        lent = connect(options, database) if options.lend is None else options.lend()
        with lent as connection, _answered_by(options.deadline, connection, database), explained():
            access = find_access(connection, database.parameters)
            refuse_transaction_pooler(access)
            check_server(connection)
            apply_settings(connection, options)
            schemas = find_schemas(connection, options.schema)
            refuse_impostors(connection, schemas)
            set_search_path(connection, schemas)
            yield Opened(connection, database, options, schemas, access)


@contextmanager
def explained() -> Iterator[None]:
    """Turn the server's errors about our own statements into errors with a remedy; a revision's have theirs.

    Raises:
        DatabaseUnreachable: The connection was lost.
        LockNotObtained: A statement met a lock, or a deadlock.
        RowsHidden: Row security would have hidden rows from a statement.
        RagSchemaError: The server refused a statement of ours.
    """
    try:
        yield
    except Exception as exc:
        driver_error = getattr(exc, "orig", exc)  # SQLAlchemy wraps it
        if not isinstance(driver_error, psycopg.Error):
            raise
        message = str(driver_error).strip()
        if is_connection_lost(exc):
            raise DatabaseUnreachable(
                "The connection to the database was lost.",
                "See that the server runs, then run the same command again.",
                message,
            ) from exc
        if is_lock_conflict(exc):
            raise LockNotObtained(
                "A statement waited too long for a lock.", "Run the same command again.", message
            ) from exc
        if is_refusal(driver_error):
            raise RowsHidden(
                "Row security hides rows from this role.",
                "Run `rag migrate health` as this role: it names the tables, the policies and the way out.",
                message,
            ) from exc
        raise RagSchemaError(
            "The server refused a statement.",
            "Mend the cause below, then run the same command again.",
            f"SQLSTATE: {driver_error.sqlstate}\n{message}",
        ) from exc


@contextmanager
def _answered_by(deadline: float | None, connection: Connection, database: Database) -> Iterator[None]:
    """Close the connection at a deadline: a frozen server, or a pooler without one, never answers a question."""
    if deadline is None:
        yield
        return
    cut_off = threading.Event()
    with socket.socket(fileno=os.dup(connection.fileno())) as ours:

        def cut() -> None:
            cut_off.set()
            with suppress(OSError):
                ours.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(min(max(0.0, deadline - time.monotonic()), threading.TIMEOUT_MAX), cut)
        timer.daemon = True
        timer.start()
        try:
            yield
        except DatabaseUnreachable as exc:
            if cut_off.is_set():
                raise DatabaseUnreachable(
                    f"The database {database} was reached, and did not answer in time.",
                    "See what its server, or the pooler before it, waits for.",
                ) from exc
            raise
        finally:
            timer.cancel()
            timer.join()


def connect(options: Options, database: Database) -> Connection:
    """Connect in autocommit mode, waiting ``options.wait`` seconds for a server that is still starting.

    Raises:
        DatabaseUnreachable: The server does not answer, or cannot take another connection now.
        ConfigurationError: It refuses this login, database or encryption, which no waiting heals.
    """
    started = time.monotonic()
    ends = [options.deadline] if options.deadline is not None else []
    if options.wait:
        ends.append(started + options.wait)
    end = min(ends, default=None)

    def make() -> Connection:
        parameters = _with_defaults(database.parameters, end)
        try:
            # not from the URL: SQLAlchemy makes that
            return psycopg.connect(make_conninfo(**parameters), autocommit=True, client_encoding="utf8")
        except (psycopg.Error, UnicodeError) as exc:
            has_waited = options.wait and time.monotonic() >= started + options.wait
            error = explain_refusal(exc, database, f" after {options.wait:g} s" if has_waited else "")
            raise error from None if database.parameters.get("password") else exc

    if not options.wait or end is None:
        return make()
    from tenacity import (
        RetryCallState,
        Retrying,
        before_sleep_log,
        retry_if_exception_type,
        stop_after_delay,
        wait_exponential,
    )

    backoff = wait_exponential(multiplier=0.1, max=2)

    def pause(state: RetryCallState) -> float:
        return max(0.0, min(backoff(state), end - time.monotonic()))

    attempts = Retrying(
        retry=retry_if_exception_type(DatabaseUnreachable),
        wait=pause,
        stop=stop_after_delay(end - started),
        before_sleep=before_sleep_log(log, logging.DEBUG),
        reraise=True,
    )
    return attempts(make)


def _with_defaults(parameters: Mapping[str, str], end: float | None) -> dict[str, str]:
    """Add how long to wait for a server, cut to what is left, and how soon to miss one; a setting's own stand."""
    told = parameters.get("connect_timeout") or os.environ.get("PGCONNECT_TIMEOUT") or ""
    is_service = "service" in parameters or "PGSERVICE" in os.environ  # libpq reads there what we do not see
    seconds: int | None = (
        int(told) if re.fullmatch(r"\+?\d+", told) else None if is_service else _CONNECT_TIMEOUT
    )
    if end is not None:
        hosts = (parameters.get("host") or parameters.get("hostaddr") or "").count(",") + 1
        left = max(_LEAST_TIMEOUT, math.ceil((end - time.monotonic()) / hosts))
        seconds = min(seconds or left, left)
    defaults = {} if is_service else _KEEPALIVES
    timeout = {} if seconds is None else {"connect_timeout": str(seconds)}
    return {**defaults, **parameters, **timeout}


def apply_settings(connection: Connection, options: Options) -> None:
    """Set what every migration and every look obeys, the role last.

    Raises:
        ConfigurationError: The role to set does not exist or may not be set, or a setting is refused.
    """
    session.apply(
        connection,
        session.PINNED | options.server_settings | ({"role": options.role} if options.role else {}),
    )


def set_search_path(connection: Connection, schemas: Schemas) -> None:
    """Make our schema the first of the search_path, and pgvector's the second."""
    connection.execute("SELECT set_config('search_path', %s, false)", (schemas.search_path,))


def quoted(*names: str) -> str:
    """Return a qualified name as SQL."""
    return sql.Identifier(*names).as_string()
