"""Rights of a role: what it may create, and alter, and whom to ask where it may not."""

from __future__ import annotations

import shlex

import psycopg
from psycopg import sql

from ragschema.database.members import members
from ragschema.database.schemas import Schemas
from ragschema.database.server import Connection
from ragschema.errors import ConfigurationError
from ragschema.words import counted

_TABLES_OF_OTHERS = f"""
SELECT c.relname::text, pg_get_userbyid(c.relowner)::text FROM pg_class c
WHERE c.oid IN ({members("pg_class", "%s")}) AND c.relname::text LIKE 'rag\\_%%' AND c.relkind IN ('r', 'p')
AND NOT pg_has_role(c.relowner, 'USAGE') ORDER BY 1
"""


def check_rights(connection: Connection, schemas: Schemas) -> None:
    """Refuse a role that may not create tables in our schema, or not use pgvector's.

    Raises:
        ConfigurationError: The remedy is the one line for somebody who may grant it.
    """
    needed = {schemas.target: "USAGE, CREATE"}
    if schemas.extension.schema is not None:
        needed.setdefault(schemas.extension.schema, "USAGE")
    for schema, rights in needed.items():
        has_all = " AND ".join(f"has_schema_privilege(%(schema)s, '{right}')" for right in rights.split(", "))
        if connection.execute(f"SELECT {has_all}".encode(), {"schema": schema}).fetchone() == (True,):
            continue
        role = _current_role(connection)
        grant = sql.SQL("GRANT {} ON SCHEMA {} TO {}").format(
            sql.SQL(rights), sql.Identifier(schema), sql.Identifier(role)
        )
        raise ConfigurationError(
            f"The role {role} lacks rights on the schema {schema}: {rights}.",
            "Ask its owner to run this once, then run this again:",
            f"{grant.as_string()};",
        )


def find_owner(connection: Connection, schemas: Schemas) -> tuple[str, str] | None:
    """Return the fact and the remedy, where another owns tables of ours: only an owner may alter a table."""
    rows = connection.execute(_TABLES_OF_OTHERS, (schemas.target,)).fetchall()
    if not rows:
        return None
    table, owner = rows[0]
    more = f" and {counted(len(rows) - 1, 'more table')}" if len(rows) > 1 else ""
    user, quoted = sql.Identifier(connection.info.user).as_string(), sql.Identifier(owner).as_string()
    return (
        f"The role {_current_role(connection)} is not a member of {owner}, which owns {table}{more}.",
        f"Migrate as {owner}, or add --role {shlex.quote(owner)} after GRANT {quoted} TO {user};",
    )


def check_owners(connection: Connection, schemas: Schemas) -> None:
    """Refuse a role that may not alter our tables.

    Raises:
        ConfigurationError: Another owns some of them.
    """
    if found := find_owner(connection, schemas):
        raise ConfigurationError(*found)


def create_extension(connection: Connection, schema: str) -> None:
    """Create pgvector in a schema; another deployer, of another schema, may be creating it too.

    Raises:
        ConfigurationError: This role may not; the remedy is the one line for somebody who may.
    """
    statement = sql.SQL("CREATE EXTENSION IF NOT EXISTS vector WITH SCHEMA {}").format(sql.Identifier(schema))
    try:
        connection.execute(statement)
    except (psycopg.errors.UniqueViolation, psycopg.errors.DuplicateObject):
        connection.execute(statement)  # it is there now: another deployer was faster
    except psycopg.errors.InsufficientPrivilege as exc:
        raise ConfigurationError(
            f"The role {_current_role(connection)} may not create the extension vector.",
            "Ask an administrator of the database to run this once, then run this again:",
            f"{statement.as_string()};",
        ) from exc


def create_schema(connection: Connection, schema: str) -> None:
    """Create a schema: an ordinary one, where Citus is set to put each that is created on a node.

    Raises:
        ConfigurationError: This role may not; the remedy is the one line for somebody who may.
    """
    statement = sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(schema))
    try:
        with connection.transaction():  # a refusal ends no transaction of the caller's
            connection.execute("SET LOCAL citus.enable_schema_based_sharding = off")
            connection.execute(statement)
    except psycopg.errors.InsufficientPrivilege as exc:
        role = _current_role(connection)
        grant = sql.SQL("CREATE SCHEMA {} AUTHORIZATION {}").format(
            sql.Identifier(schema), sql.Identifier(role)
        )
        raise ConfigurationError(
            f"The role {role} may not create the schema {schema}.",
            "Ask an administrator of the database to run this once, then run this again:",
            f"{grant.as_string()};",
        ) from exc


def _current_role(connection: Connection) -> str:
    row = connection.execute("SELECT current_user").fetchone()
    assert row is not None
    return str(row[0])
