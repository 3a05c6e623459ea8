"""Connections that migrate or look, made with psycopg alone."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, cast

import psycopg
from psycopg import sql

from ragschema.database.connecting import Begun, answered_by, begin, begin_lent
from ragschema.database.options import Options
from ragschema.database.poolers import Access, refuse_transaction_pooler
from ragschema.database.refusals import named_refusals
from ragschema.database.row_security import is_refusal
from ragschema.database.schemas import Schemas
from ragschema.database.server import Connection, check_server
from ragschema.database.settings import Database
from ragschema.database.sqlstates import is_connection_lost, is_lock_conflict, is_node_away
from ragschema.database.surroundings import look_around
from ragschema.errors import DatabaseUnreachable, LockNotObtained, NodeUnreachable, RagSchemaError, RowsHidden

log = logging.getLogger(__name__)


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
    """Yield options for several connections: an embedded server runs meanwhile, and is named once.

    SIGTERM ends the block like an exception where that server is ours, so that it is stopped.
    """
    with (
        nullcontext() if options.database.embedded is None else _ended_by_sigterm(),
        reachable(options.database, makes=options.makes_server, is_announced=options.is_announced) as found,
    ):
        is_announced = options.is_announced or found.embedded is not None
        yield replace(options, database=found, is_announced=is_announced)


def _ended_by_sigterm() -> AbstractContextManager[None]:
    from ragschema.embedded.termination import ended_by_sigterm

    return ended_by_sigterm()


@contextmanager
def opened(options: Options) -> Iterator[Opened]:
    """Open a connection to migrate or look, and find out what is at its other end.

    Raises:
        DatabaseUnreachable: The server does not answer.
        ConfigurationError: It refuses this login, is too old or a transaction pooler, or it is not clear which
            schema is meant; or functions of others in the schema could be called for PostgreSQL's own.
        LockNotObtained: A statement met a lock, or a deadlock.
        RowsHidden: Row security would have hidden rows from a statement.
        RagSchemaError: The server refused a statement of ours.
    """
    with held_reachable(options) as held:
        database = held.database
        if not held.is_announced:
            log.info("Database: %s", database)
        with (
            _begun(options, database) as begun,
            answered_by(options.deadline, begun.connection, database),
            explained(),
        ):
            refuse_transaction_pooler(begun.access)
            check_server(begun.connection)
            schemas = look_around(begun.connection, options.schema)
            with named_refusals(begun.connection, is_ours=options.lend is None):
                yield Opened(begun.connection, begun.database, options, schemas, begun.access)


@contextmanager
def opened_database(options: Options) -> Iterator[tuple[Connection, Options]]:
    """Open a connection to a database, whatever schemas it has; its search_path is pg_catalog alone.

    Yields:
        The connection, in autocommit mode, and options that reach the same database again.

    Raises:
        DatabaseUnreachable: The server does not answer.
        ConfigurationError: It refuses this login, is too old or a transaction pooler.
        RagSchemaError: The server refused a statement of ours.
    """
    with held_reachable(options) as held:
        if not held.is_announced:
            log.info("Database: %s", held.database)
        with (
            _begun(options, held.database) as begun,
            answered_by(options.deadline, begun.connection, held.database),
            explained(),
        ):
            refuse_transaction_pooler(begun.access)
            check_server(begun.connection)
            begun.connection.execute("SELECT pg_catalog.set_config('search_path', 'pg_catalog', false)")
            yield begun.connection, replace(held, is_announced=True)


@contextmanager
def _begun(options: Options, database: Database) -> Iterator[Begun]:
    """Begin a connection, or the caller's own."""
    with ExitStack() as stack:
        with explained():
            if options.lend is None:
                begun = begin(options, database)
                stack.enter_context(begun.connection)
            else:
                connection = stack.enter_context(options.lend())
                begun = begin_lent(connection, options, database)
        yield begun


@contextmanager
def explained() -> Iterator[None]:
    """Turn the server's errors about our own statements into errors with a remedy; a revision's have theirs.

    Raises:
        DatabaseUnreachable: The connection was lost.
        NodeUnreachable: A node of Citus is away.
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
        if is_node_away(exc):
            raise NodeUnreachable(
                "A node of Citus that this command needs does not answer.",
                "Bring the node back, then run the same command again.",
                message,
            ) from exc
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


def set_search_path(connection: Connection, schemas: Schemas) -> None:
    """Make our schema the first of the search_path, and pgvector's the second."""
    connection.execute("SELECT set_config('search_path', %s, false)", (schemas.search_path,))


def quoted(*names: str) -> str:
    """Return a qualified name as SQL."""
    return sql.Identifier(*names).as_string()


def beside_parameters(*names: str) -> sql.SQL:
    """Return a qualified name for a statement that is executed with parameters: a percent sign of it is none."""
    return sql.SQL(cast(Any, quoted(*names).replace("%", "%%")))
