"""Our tables in another schema of the same database: whoever names no schema may have missed them."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import psycopg
from psycopg import sql

from ragschema.database.connections import Opened
from ragschema.database.server import VERSION_TABLE
from ragschema.errors import ConfigurationError
from ragschema.revisions.manifest import Manifest

_SHOWN = 5

_VERSION_TABLES = """
SELECT n.nspname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relname = %s AND c.relkind IN ('r', 'p') AND n.nspname <> %s AND n.nspname !~ '^pg_'
AND has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')
ORDER BY 1 LIMIT 100
"""


@dataclass(frozen=True)
class Elsewhere:
    """A schema with our tables, which is not the one that is looked at.

    Attributes:
        schema: Its name.
        revision: The revision it is at, one that this package knows.
    """

    schema: str
    revision: str

    def __str__(self) -> str:
        return f"schema {self.schema} is at {self.revision}"


def find_elsewhere(at: Opened, manifest: Manifest) -> tuple[Elsewhere, ...]:
    """Find our version tables in the rest of the database, where no schema was named and the target has none.

    A search_path in the database's URL names one, that of a role does not.
    Reads only; a version table that this role may not read is passed over.
    """
    connection, target = at.connection, at.schemas.target
    table = f"to_regclass(quote_ident(%s) || '.{VERSION_TABLE}')"
    if at.options.schema is not None or "search_path" in at.database.parameters.get("options", ""):
        return ()  # it was named
    if connection.execute(f"SELECT {table}".encode(), (target,)).fetchone() != (None,):
        return ()
    found = []
    for (schema,) in connection.execute(_VERSION_TABLES, (VERSION_TABLE, target)).fetchall():
        statement = sql.SQL("SELECT version_num FROM {}").format(sql.Identifier(schema, VERSION_TABLE))
        with suppress(psycopg.Error):
            rows = connection.execute(statement).fetchall()
            found += [Elsewhere(schema, row[0]) for row in rows if row[0] in manifest.checksums]
    return tuple(found)


def describe(found: Sequence[Elsewhere]) -> str:
    """Say where our tables are, and how to name them; nothing where they are nowhere else."""
    if not found:
        return ""
    more = f", and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return f"In the same database {', '.join(map(str, found[:_SHOWN]))}{more}; --schema NAME names one."


def refuse_second_set(at: Opened, manifest: Manifest) -> None:
    """Refuse to make our tables beside those of another schema, unless the schema was named.

    Raises:
        ConfigurationError: They are in another schema of the database.
    """
    if found := find_elsewhere(at, manifest):
        target, other = shlex.quote(at.schemas.target), shlex.quote(found[0].schema)
        raise ConfigurationError(
            f"Schema {at.schemas.target} has none of our tables, but another schema of this database has:"
            f" {found[0].schema}.",
            f"Nothing was changed. Write --schema {other} or RAG_SCHEMA={other} if those are meant, and"
            f" --schema {target} to make a second set.",
            describe(found),
        )
