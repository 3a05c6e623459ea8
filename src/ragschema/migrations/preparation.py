"""Preparation of a database for its first migration: schema, extension, version table, the database itself."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace

import psycopg
from psycopg import sql

from ragschema.database.connecting import begin, connect
from ragschema.database.connections import explained, opened, reachable, set_search_path
from ragschema.database.options import Options
from ragschema.database.rights import check_rights, create_extension, create_schema
from ragschema.database.schemas import Schemas, find_schemas
from ragschema.database.server import (
    ADVISED_PGVECTOR,
    VERSION_TABLE,
    Connection,
    check_extension,
    version_numbers,
)
from ragschema.database.settings import Database
from ragschema.database.write_access import check_writable
from ragschema.errors import ConfigurationError, DatabaseMissing, DatabaseUnreachable
from ragschema.migrations.deployer_lock import take_deployer_lock
from ragschema.migrations.retries import retrying
from ragschema.revisions.manifest import read_manifest
from ragschema.state.cluster import refuse_away
from ragschema.state.elsewhere import refuse_second_set

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Preparation:
    """What `prepare_database` made, each False where it was there already."""

    database: bool
    schema: bool
    extension: bool
    version_table: bool


def prepare_database(options: Options, *, with_database: bool = False) -> Preparation:
    """Make what the first migration needs and nothing else: schema, extension, version table.

    Args:
        options: The database.
        with_database: Whether to create the database too, where it is missing.

    Raises:
        ConfigurationError: This role may not; the remedy is the one SQL line for somebody who may.
    """
    has_made = with_database and _create_database(options)
    with opened(options) as at:
        connection = at.connection
        refuse_second_set(at, read_manifest())
        take_deployer_lock(connection, at.schemas.target, wait=options.lock_wait)
        check_writable(connection)
        schemas = retrying(options)(prepare, connection, at.schemas.target)
        check_rights(connection, schemas)
        has_table = has_version_table(connection, schemas.target)
        retrying(options)(connection.execute, create_version_table(schemas.target))
        return Preparation(
            database=has_made,
            schema=not at.schemas.target_exists,
            extension=at.schemas.extension.installed is None,
            version_table=not has_table,
        )


def has_version_table(connection: Connection, schema: str) -> bool:
    """Whether there is a version table of ours, with or without a row."""
    table = sql.Identifier(schema, VERSION_TABLE).as_string()
    return connection.execute("SELECT to_regclass(%s)", (table,)).fetchone() != (None,)


def create_version_table(schema: str) -> sql.Composed:
    """Return the SQL that makes the version table, as Alembic does, where it is missing."""
    return sql.SQL(
        "CREATE TABLE IF NOT EXISTS {} (version_num varchar(32) NOT NULL, CONSTRAINT {} PRIMARY KEY (version_num))"
    ).format(sql.Identifier(schema, VERSION_TABLE), sql.Identifier(f"{VERSION_TABLE}_pkc"))


def is_prepared(schemas: Schemas) -> bool:
    """Whether `prepare` would find schema and extension there, and nothing to say of them."""
    installed = schemas.extension.installed
    return schemas.target_exists and installed is not None and version_numbers(installed) >= ADVISED_PGVECTOR


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
    if not schemas.target_exists:
        refuse_away(connection)
        create_schema(connection, schemas.target)
    return prepare_extension(connection, schemas.target)


def prepare_extension(connection: Connection, schema: str) -> Schemas:
    """Make the extension, where it is missing; the schema need not be there where ``public`` is.

    Raises:
        ConfigurationError: It is missing and this role may not create it; or pgvector is missing or too old.
    """
    schemas = find_schemas(connection, schema)
    if warning := check_extension(schemas.extension):
        log.warning(warning)
    if schemas.extension.installed is None:
        if not _exists(connection, "public"):
            create_schema(connection, schemas.target)
        create_extension(connection, "public" if _exists(connection, "public") else schemas.target)
        schemas = find_schemas(connection, schemas.target)
    set_search_path(connection, schemas)
    return schemas


def _create_database(options: Options) -> bool:
    """Create the database, from the server's maintenance database; return whether it was missing."""
    with reachable(options.database) as database:
        name = database.parameters.get("dbname")
        if name is None:
            raise ConfigurationError(
                f"{database.source} names no database to create.", "Write it: postgresql://HOST/NAME."
            )
        try:
            connect(options, database).close()
        except (DatabaseMissing, DatabaseUnreachable) as exc:
            log.debug("%s", exc)
        else:
            return False
        with _connect_beside(options, database) as connection, explained():
            try:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
            except psycopg.errors.DuplicateDatabase:
                return False
            except psycopg.errors.InsufficientPrivilege as exc:
                raise ConfigurationError(
                    f"The role {connection.info.user} may not create the database {name}.",
                    "Ask an administrator of the server to run this once, then run this again:",
                    sql.SQL("CREATE DATABASE {} OWNER {};")
                    .format(sql.Identifier(name), sql.Identifier(connection.info.user))
                    .as_string(),
                ) from exc
    return True


def _connect_beside(options: Options, database: Database) -> Connection:
    """Connect to a database that every server has, unless somebody has dropped it."""
    as_login = replace(options, role=None)
    with explained():
        try:
            return begin(as_login, _with_name(database, "postgres")).connection
        except DatabaseMissing:
            return begin(as_login, _with_name(database, "template1")).connection


def _with_name(database: Database, name: str) -> Database:
    parameters: Mapping[str, str] = {**database.parameters, "dbname": name}
    return Database(parameters, database.source)


def _exists(connection: Connection, schema: str) -> bool:
    row = connection.execute("SELECT FROM pg_namespace WHERE nspname = %s", (schema,)).fetchone()
    return row is not None
