"""Connections that migrate or look, made with psycopg alone."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from ragschema.database.impostors import refuse_impostors
from ragschema.database.options import Options
from ragschema.database.poolers import Access, find_access, refuse_transaction_pooler
from ragschema.database.server import (
    Connection,
    Schemas,
    check_extension,
    check_server,
    create_extension,
    create_schema,
    find_schemas,
)
from ragschema.database.settings import Database
from ragschema.errors import ConfigurationError, DatabaseUnreachable, LockNotObtained, RagSchemaError

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
    """Yield options for several connections: an embedded server runs meanwhile, and is named once."""
    with reachable(options.database, makes=options.makes_server, is_announced=options.is_announced) as found:
        is_announced = options.is_announced or found.embedded is not None
        yield replace(options, database=found, is_announced=is_announced)


@contextmanager
def opened(options: Options) -> Iterator[Opened]:
    """Open a connection to migrate or look, and find out what is at its other end.

    Raises:
        DatabaseUnreachable: The server does not answer, or refuses this login.
        ConfigurationError: It is too old, a transaction pooler, or it is not clear which schema is meant; or
            functions of others in the schema could be called for PostgreSQL's own.
        RagSchemaError: The server refused a statement of ours.
    """
    with held_reachable(options) as held:
        database = held.database
        if not held.is_announced:
            log.info("Database: %s", database)
        lent = connect(options, database) if options.lend is None else options.lend()
        with lent as connection, _explained(connection):
            access = find_access(connection, database.parameters)
            refuse_transaction_pooler(access)
            check_server(connection)
            apply_settings(connection, options)
            schemas = find_schemas(connection, options.schema)
            refuse_impostors(connection, schemas)
            set_search_path(connection, schemas)
            yield Opened(connection, database, options, schemas, access)


@contextmanager
def _explained(connection: Connection) -> Iterator[None]:
    """Turn the server's errors about our own statements into errors with a remedy; a revision's have theirs."""
    try:
        yield
    except psycopg.Error as exc:
        message = str(exc).strip()
        if connection.broken:
            raise DatabaseUnreachable(
                "The connection to the database was lost.",
                "See that the server runs, then run the same command again.",
                message,
            ) from exc
        if exc.sqlstate == "55P03":  # lock_not_available
            raise LockNotObtained(
                "A statement waited too long for a lock.", "Run the same command again.", message
            ) from exc
        raise RagSchemaError(
            "The server refused a statement.",
            "Mend the cause below, then run the same command again.",
            f"SQLSTATE: {exc.sqlstate}\n{message}",
        ) from exc


def connect(options: Options, database: Database) -> Connection:
    """Connect in autocommit mode, waiting ``options.wait`` seconds for a server that is still starting.

    Raises:
        DatabaseUnreachable: The server does not answer, or refuses this login.
    """
    deadline = time.monotonic() + options.wait
    conninfo = make_conninfo(**database.parameters)  # not the URL: SQLAlchemy makes that
    try:
        return _waiting(
            options.wait, lambda: psycopg.connect(conninfo, autocommit=True, client_encoding="utf8")
        )
    except psycopg.OperationalError as exc:
        waited = f" after {options.wait:g} s" if options.wait and time.monotonic() >= deadline else ""
        raise DatabaseUnreachable(
            f"The database {database} cannot be reached{waited}.",
            "Check that the server runs and that the setting named above is right; `--wait 60s` waits for a"
            " server that is still starting.",
            _without_password(str(exc).strip(), database),
        ) from None if database.parameters.get("password") else exc


def _waiting(wait: float, make: Callable[[], Connection]) -> Connection:
    if not wait:
        return make()
    from tenacity import (
        Retrying,
        before_sleep_log,
        retry_if_exception_type,
        stop_after_delay,
        wait_exponential,
    )

    attempts = Retrying(
        retry=retry_if_exception_type(psycopg.OperationalError),
        wait=wait_exponential(multiplier=0.1, max=2),
        stop=stop_after_delay(wait),
        before_sleep=before_sleep_log(log, logging.DEBUG),
        reraise=True,
    )
    return attempts(make)


def apply_settings(connection: Connection, options: Options) -> None:
    """Set what every migration obeys: by statements, for poolers refuse startup options.

    Raises:
        ConfigurationError: The role to set does not exist or may not be set, or a setting is refused.
    """
    settings = options.server_settings | ({"role": options.role} if options.role else {})
    for name, value in settings.items():
        try:
            connection.execute("SELECT set_config(%s, %s, false)", (name, value))
        except psycopg.Error as exc:
            raise ConfigurationError(
                f"The server refuses to set {name} to {value}.",
                f"Correct the option that says so: {exc.diag.message_primary}.",
            ) from exc


def set_search_path(connection: Connection, schemas: Schemas) -> None:
    """Make our schema the first of the search_path, and pgvector's the second."""
    connection.execute("SELECT set_config('search_path', %s, false)", (schemas.search_path,))


def prepare(connection: Connection, schema: str) -> Schemas:
    """Make the schema and the extension that a migration needs, if they are missing.

    The extension goes into ``public``, where every schema of the database can use it.

    Args:
        connection: In autocommit mode.
        schema: The target schema.

    Raises:
        ConfigurationError: One is missing and this role may not create it; or pgvector is missing or too old.
    """
    schemas = find_schemas(connection, schema)
    if warning := check_extension(schemas.extension):
        log.warning(warning)
    if not schemas.target_exists:
        create_schema(connection, schemas.target)
    if schemas.extension.installed is None:
        create_extension(connection, "public" if _exists(connection, "public") else schemas.target)
    schemas = find_schemas(connection, schemas.target)
    set_search_path(connection, schemas)
    return schemas


def quoted(*names: str) -> str:
    """Return a qualified name as SQL."""
    return sql.Identifier(*names).as_string()


def _exists(connection: Connection, schema: str) -> bool:
    row = connection.execute("SELECT FROM pg_namespace WHERE nspname = %s", (schema,)).fetchone()
    return row is not None


def _without_password(text: str, database: Database) -> str:
    password = database.parameters.get("password")
    return text.replace(password, "***") if password else text
