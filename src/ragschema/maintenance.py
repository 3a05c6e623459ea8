"""What is done to a database beside running revisions: prepare it, and heal what failed builds left."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import psycopg
from psycopg import sql

from ragschema.connections import connect, opened, prepare, reachable
from ragschema.errors import ConfigurationError, DatabaseUnreachable
from ragschema.locks import take_deployer_lock
from ragschema.options import Options
from ragschema.server import VERSION_TABLE, Connection, check_rights
from ragschema.settings import Database
from ragschema.standing import find_invalid_indexes

log = logging.getLogger(__name__)

_UNVALIDATED = """
SELECT t.relname::text, c.conname::text FROM pg_constraint c
JOIN pg_class t ON t.oid = c.conrelid JOIN pg_namespace n ON n.oid = t.relnamespace
WHERE n.nspname = %s AND t.relname LIKE 'rag\\_%%' AND NOT c.convalidated
ORDER BY 1, 2
"""
_LACKS_INDEX = """
SELECT to_regclass(%s) IS NULL AND EXISTS (
    SELECT FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attname = 'is_current' AND NOT attisdropped
)
"""
_LEFT_BY_REINDEX = ("_ccnew", "_ccold")  # suffixes of what an interrupted REINDEX CONCURRENTLY leaves


@dataclass(frozen=True)
class Preparation:
    """What `prepare_database` made, each False where it was there already."""

    database: bool
    schema: bool
    extension: bool
    version_table: bool


@dataclass(frozen=True)
class Repair:
    """What `repair` healed.

    Attributes:
        rebuilt: Indexes built again, concurrently; the vector index also where a load that deferred it has died.
        dropped: Left-overs of an interrupted REINDEX CONCURRENTLY.
        validated: Constraints validated, as ``table.constraint``.
    """

    rebuilt: tuple[str, ...]
    dropped: tuple[str, ...]
    validated: tuple[str, ...]


def prepare_database(options: Options, *, with_database: bool = False) -> Preparation:
    """Make what the first migration needs and nothing else: schema, extension, version table.

    Args:
        options: The database.
        with_database: Whether to create the database too, where it is missing.

    Raises:
        ConfigurationError: This role may not; the remedy is the one SQL line for somebody who may.
    """
    has_made = with_database and _create_database(options)
    with opened(options) as at, at.connection as connection:
        take_deployer_lock(connection, at.schemas.target, wait=options.lock_wait)
        schemas = prepare(connection, at.schemas.target)
        check_rights(connection, schemas)
        table = sql.Identifier(schemas.target, VERSION_TABLE)
        has_table = _exists(connection, "SELECT to_regclass(%s) IS NOT NULL", table.as_string())
        connection.execute(
            sql.SQL(
                "CREATE TABLE IF NOT EXISTS {} (version_num varchar(32) NOT NULL,"
                " CONSTRAINT {} PRIMARY KEY (version_num))"
            ).format(table, sql.Identifier(f"{VERSION_TABLE}_pkc"))
        )
        return Preparation(
            database=has_made,
            schema=not at.schemas.target_exists,
            extension=at.schemas.extension.installed is None,
            version_table=not has_table,
        )


def repair(options: Options) -> Repair:
    """Heal invalid indexes and unvalidated constraints of ours; an index being built is not touched.

    Rebuilds with REINDEX CONCURRENTLY and validates under SHARE UPDATE EXCLUSIVE: reads and writes go on.

    Raises:
        RagSchemaError: psycopg's own error where a constraint does not hold for the rows.
    """
    with opened(options) as at, at.connection as connection:
        schema = at.schemas.target
        take_deployer_lock(connection, schema, wait=options.lock_wait)
        connection.execute("SELECT set_config('lock_timeout', '0', false)")  # it would leave invalid indexes
        rebuilt, dropped, validated = [], [], []
        for index in find_invalid_indexes(connection, schema):
            name = sql.Identifier(schema, index)
            if index.rstrip("0123456789").endswith(_LEFT_BY_REINDEX):
                log.info("Dropping %s, left by an interrupted rebuild", index)
                connection.execute(sql.SQL("DROP INDEX CONCURRENTLY {}").format(name))
                dropped.append(index)
            else:
                log.info("Rebuilding %s", index)
                connection.execute(sql.SQL("REINDEX INDEX CONCURRENTLY {}").format(name))
                rebuilt.append(index)
        rebuilt += _build_deferred(connection, schema)
        for table, constraint in connection.execute(_UNVALIDATED, (schema,)).fetchall():
            log.info("Validating %s of %s", constraint, table)
            connection.execute(
                sql.SQL("ALTER TABLE {} VALIDATE CONSTRAINT {}").format(
                    sql.Identifier(schema, table), sql.Identifier(constraint)
                )
            )
            validated.append(f"{table}.{constraint}")
        return Repair(tuple(rebuilt), tuple(dropped), tuple(validated))


def _build_deferred(connection: Connection, schema: str) -> list[str]:
    """Build the indexes that a load has dropped and not built again; return their names."""
    from ragschema.publishing.deferral import DEFERRED, index_definition  # SQLAlchemy, for this only

    table = sql.Identifier(schema, "rag_chunks").as_string()
    missing = [
        name
        for name in DEFERRED
        if _exists(connection, _LACKS_INDEX, sql.Identifier(schema, name).as_string(), table)
    ]
    for name in missing:
        log.info("Building %s", name)
        connection.execute(index_definition(name).encode())
    return missing


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
        except DatabaseUnreachable as exc:
            log.debug("%s", exc)
        else:
            return False
        with connect(options, _with_name(database, "postgres")) as connection:
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


def _with_name(database: Database, name: str) -> Database:
    parameters: Mapping[str, str] = {**database.parameters, "dbname": name}
    return Database(parameters, database.source)


def _exists(connection: Connection, query: str, *parameters: str) -> bool:
    row = connection.execute(query.encode(), parameters).fetchone()
    return row is not None and bool(row[0])
