"""Schemas of a database: which one has our tables or is to have them, and where pgvector is."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from shlex import quote
from typing import Any

from psycopg import sql

from ragschema.database.server import LONGEST_NAME, VERSION_TABLE, Connection, Extension
from ragschema.errors import ConfigurationError

# It runs where impostors may be: every operator has exactly these types, every function is named in full.
SCHEMAS = f"""
SELECT e.extversion, CASE WHEN e.extversion IS NULL OR %(asks_what_is_available)s::boolean THEN ( -- it reads files
        SELECT a.default_version FROM pg_catalog.pg_available_extensions a WHERE a.name = 'vector'::name) END,
    n.nspname::text,
    pg_catalog.current_schema()::text, pg_catalog.current_setting('search_path'::text), current_user::text,
    ARRAY(SELECT v.nspname::text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace v ON v.oid = c.relnamespace
        WHERE c.relname = '{VERSION_TABLE}'::name AND v.nspname = ANY (pg_catalog.current_schemas(false))),
    (SELECT s.nspname::text FROM pg_catalog.pg_namespace s WHERE s.nspname = %(schema)s::name)
FROM (VALUES (1)) one (row)
LEFT JOIN pg_catalog.pg_extension e ON e.extname = 'vector'::name
LEFT JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
"""
"""To be asked with a schema, or None for the first of the search_path; `read_schemas` reads its row."""


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


def check_schema_name(name: str, source: str) -> None:
    """Refuse a name that the server cannot give to a schema, or would cut: then it would be another schema.

    Raises:
        ConfigurationError: It is one.
    """
    check_name(name, source, "schema", ("information_schema", "$user"))


def check_name(name: str, source: str, kind: str, reserved: Collection[str]) -> None:
    """Refuse a name that the server cannot give, or would cut.

    Args:
        name: The name.
        source: Where it comes from, the subject of the message.
        kind: Of what it is the name.
        reserved: Names that PostgreSQL keeps for itself, besides those that begin with ``pg_``.

    Raises:
        ConfigurationError: It is one.
    """
    remedy = f"Name another {kind}, or leave it out."
    if not isinstance(name, str):
        raise ConfigurationError(f"{source} is {type(name).__name__}, not str.", f"Name a {kind}.")
    if not name.strip():
        raise ConfigurationError(f"{source} is empty.", f"Name a {kind}, or unset it.")
    if re.search("[\0\ud800-\udfff]", name):  # Python reads bytes that are not UTF-8 as surrogates
        raise ConfigurationError(f"{source} holds a character that no name can hold: {name!r}.", remedy)
    if (length := len(name.encode())) > LONGEST_NAME:
        raise ConfigurationError(
            f"{source} is {length} bytes long, and PostgreSQL cuts names at {LONGEST_NAME}: {name}.",
            "Name a shorter one.",
        )
    if name.startswith("pg_") or name in reserved:
        raise ConfigurationError(f"{source} is {name}, which PostgreSQL keeps for itself.", remedy)


def find_schemas(connection: Connection, schema: str | None = None) -> Schemas:
    """Find the target schema and pgvector.

    Without a schema named, it is the first of the search_path, and that must be unambiguous: it exists, and
    no other schema of the search_path has our version table.

    Raises:
        ConfigurationError: It is not clear which schema is meant; the remedy names the two ways to say it.
    """
    row = connection.execute(SCHEMAS.encode(), {"schema": schema, "asks_what_is_available": True}).fetchone()
    assert row is not None
    return read_schemas(row, schema)


def read_schemas(row: Sequence[Any], schema: str | None) -> Schemas:
    """Read the row that `SCHEMAS` returns; see `find_schemas`."""
    installed, available, place, current, search_path, user, migrated, found = row
    extension = Extension(installed, available, place)
    if schema is not None:  # the deployer lock hashes the name: as the server has it, where it has it
        return Schemas(found or schema, found is not None, extension)
    first = _first_name(search_path)
    if first not in ("", "$user", current):
        raise ConfigurationError(
            f"The search_path is {search_path}, but there is no schema {first} that {user} may use.",
            f"Add `--schema {quote(first)}` (or RAG_SCHEMA={quote(first)}) to create it, or set search_path to a schema"
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
            f"Say which you mean: `--schema {quote(migrated[0])}`, or `--schema {quote(current)}` for a second set.",
        )
    return Schemas(current, True, extension)


def _first_name(search_path: str) -> str:
    """Return the first schema of a search_path, cut as the server cuts it."""
    match = re.match(r'\s*(?:"((?:[^"]|"")*)"|([^,\s]*))', search_path)
    assert match is not None
    name = match[1].replace('""', '"') if match[1] is not None else fold(match[2])
    return name.encode()[:LONGEST_NAME].decode(errors="ignore")


def fold(name: str) -> str:
    """Return an unquoted name as the server reads it: of its letters, it makes those of ASCII small."""
    return re.sub("[A-Z]+", lambda match: match[0].lower(), name)
