"""Facts of a server, asked through psycopg alone: a status imports no SQLAlchemy and no Alembic."""

from __future__ import annotations

import re
from dataclasses import dataclass

import psycopg
from psycopg import sql
from psycopg.rows import TupleRow

from ragschema.errors import ConfigurationError
from ragschema.words import counted

Connection = psycopg.Connection[TupleRow]

VERSION_TABLE = "rag_alembic_version"
HISTORY_TABLE = "rag_migration_history"
BOOKKEEPING = (VERSION_TABLE, HISTORY_TABLE)

MINIMUM_SERVER = 140000
MINIMUM_PGVECTOR = (0, 7)
LONGEST_NAME = 63  # bytes
ADVISED_PGVECTOR = (0, 8, 4)  # 0.8.2 to 0.8.4 fix an HNSW build overflow and index corruption

_TABLES_OF_OTHERS = """
SELECT c.relname::text, pg_get_userbyid(c.relowner)::text FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname LIKE 'rag\\_%%' AND c.relkind IN ('r', 'p')
AND NOT pg_has_role(c.relowner, 'USAGE') ORDER BY 1
"""


@dataclass(frozen=True)
class Extension:
    """The extension ``vector`` on a server.

    Attributes:
        installed: Its version in this database, or None.
        available: The version the server can create, or None where its files are missing.
        schema: The schema it is installed in, or None.
    """

    installed: str | None
    available: str | None
    schema: str | None


@dataclass(frozen=True)
class Schemas:
    """Where our tables are or will be, and where pgvector is.

    Attributes:
        target: The schema of our tables.
        target_exists: Whether it is there yet.
        extension: What the server has of pgvector.
    """

    target: str
    target_exists: bool
    extension: Extension

    @property
    def names(self) -> list[str]:
        """Our schema, then pgvector's where that is another."""
        return list(dict.fromkeys([self.target, self.extension.schema or "public"]))

    @property
    def search_path(self) -> str:
        """The search_path that a migration runs with: our schema, then pgvector's."""
        return ", ".join(sql.Identifier(name).as_string() for name in self.names)


def find_extension(connection: Connection) -> Extension:
    """Find pgvector in the database and among what the server can create."""
    row = connection.execute(
        "SELECT e.extversion, a.default_version, n.nspname"
        " FROM (SELECT 1) one"
        " LEFT JOIN pg_available_extensions a ON a.name = 'vector'"
        " LEFT JOIN pg_extension e ON e.extname = 'vector'"
        " LEFT JOIN pg_namespace n ON n.oid = e.extnamespace"
    ).fetchone()
    assert row is not None
    return Extension(*row)


def check_schema_name(name: str, source: str) -> None:
    """Refuse a name that the server cannot give to a schema, or would cut: then it would be another schema.

    Raises:
        ConfigurationError: It is one.
    """
    remedy = "Name another schema, or leave it out."
    if not name.strip():
        raise ConfigurationError(f"{source} is empty.", "Name a schema, or unset it.")
    if re.search("[\0\ud800-\udfff]", name):  # Python reads bytes that are not UTF-8 as surrogates
        raise ConfigurationError(f"{source} holds a character that no name can hold: {name!r}.", remedy)
    if (length := len(name.encode())) > LONGEST_NAME:
        raise ConfigurationError(
            f"{source} is {length} bytes long, and PostgreSQL cuts names at {LONGEST_NAME}: {name}.",
            "Name a shorter one.",
        )
    if name.startswith("pg_") or name in ("information_schema", "$user"):
        raise ConfigurationError(f"{source} is {name}, which PostgreSQL keeps for itself.", remedy)


def find_schemas(connection: Connection, schema: str | None = None) -> Schemas:
    """Find the target schema and pgvector.

    Without a schema named, it is the first of the search_path, and that must be unambiguous: it exists, and
    no other schema of the search_path has our version table.

    Raises:
        ConfigurationError: It is not clear which schema is meant; the remedy names the two ways to say it.
    """
    extension = find_extension(connection)
    row = connection.execute(
        "SELECT current_schema(), current_setting('search_path'), current_user,"
        " ARRAY(SELECT n.nspname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        "  WHERE c.relname = %(table)s AND n.nspname = ANY (current_schemas(false))),"
        " (SELECT nspname::text FROM pg_namespace WHERE nspname = %(schema)s)",
        {"table": VERSION_TABLE, "schema": schema},
    ).fetchone()
    assert row is not None
    current, search_path, user, migrated, found = row
    if schema is not None:  # the deployer lock hashes the name: as the server has it, where it has it
        return Schemas(found or schema, found is not None, extension)
    first = _first_name(search_path)
    if first not in ("", "$user", current):
        raise ConfigurationError(
            f"The search_path is {search_path}, but there is no schema {first} that {user} may use.",
            f"Add `--schema {first}` (or RAG_SCHEMA={first}) to create it, or set search_path to a schema"
            " that exists.",
        )
    if current is None or current.startswith("pg_"):
        raise ConfigurationError(
            f"No schema of the search_path ({search_path or 'empty'}) can hold our tables for {user}.",
            "Add `--schema NAME` (or RAG_SCHEMA=NAME): it is created if it is missing.",
        )
    if migrated and current not in migrated:
        raise ConfigurationError(
            f"The search_path ({search_path}) starts with {current}, but schema {migrated[0]} has the tables.",
            f"Say which you mean: `--schema {migrated[0]}`, or `--schema {current}` for a second set.",
        )
    return Schemas(current, True, extension)


def check_server(connection: Connection) -> None:
    """Refuse a server that is too old.

    Raises:
        ConfigurationError: It is older than PostgreSQL 14.
    """
    if connection.info.server_version < MINIMUM_SERVER:
        raise ConfigurationError(
            f"The server is PostgreSQL {connection.info.server_version // 10000}; ragschema needs 14.",
            "Upgrade the server.",
        )


def check_extension(extension: Extension) -> str | None:
    """Refuse a pgvector that is missing or too old; return a warning for one with known faults.

    Raises:
        ConfigurationError: The server has none, or one before 0.7.
    """
    version = extension.installed or extension.available
    if version is None:
        raise ConfigurationError(
            "The server does not have the extension vector (pgvector).",
            "Install pgvector on the server (Debian: postgresql-18-pgvector), or use an image that has it"
            " (pgvector/pgvector:pg18), then run this again.",
        )
    numbers = version_numbers(version)
    if numbers < MINIMUM_PGVECTOR:
        update = (
            "Run `ALTER EXTENSION vector UPDATE;`"
            if extension.installed and version_numbers(extension.available or "0") >= MINIMUM_PGVECTOR
            else "Upgrade pgvector on the server, then run `ALTER EXTENSION vector UPDATE;`"
        )
        raise ConfigurationError(
            f"pgvector is {version}; ragschema needs 0.7 or later.", f"{update}, then run this again."
        )
    if numbers < ADVISED_PGVECTOR:
        return (
            f"pgvector {version} has faults in HNSW builds that 0.8.4 fixes: upgrade it when you can"
            " (`ALTER EXTENSION vector UPDATE;` after the server has the files)."
        )
    return None


def version_numbers(version: str) -> tuple[int, ...]:
    """Return the numbers of a version: ``0.8.4`` is ``(0, 8, 4)``."""
    return tuple(int(number) for number in re.findall(r"\d+", version))


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
        f"Migrate as {owner}, or add --role {owner} after GRANT {quoted} TO {user};",
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
    """Create a schema.

    Raises:
        ConfigurationError: This role may not; the remedy is the one line for somebody who may.
    """
    statement = sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(schema))
    try:
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


def _first_name(search_path: str) -> str:
    """Return the first schema of a search_path, cut as the server cuts it."""
    match = re.match(r'\s*(?:"((?:[^"]|"")*)"|([^,\s]*))', search_path)
    assert match is not None
    name = match[1].replace('""', '"') if match[1] is not None else fold(match[2])
    return name.encode()[:LONGEST_NAME].decode(errors="ignore")


def fold(name: str) -> str:
    """Return an unquoted name as the server reads it: of its letters, it makes those of ASCII small."""
    return re.sub("[A-Z]+", lambda match: match[0].lower(), name)
