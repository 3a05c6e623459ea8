"""Surroundings of a connection: our schema, pgvector's, and no impostors in them; one statement finds them."""

from __future__ import annotations

from ragschema.database.impostors import IMPOSTORS, TRUSTED, Impostor, refuse_impostors
from ragschema.database.prepared import fetch_all
from ragschema.database.schemas import SCHEMAS, Schemas, read_schemas
from ragschema.database.server import Connection

# Written as impostors.TRUSTED is, and for the same reason; the search_path is what Schemas.search_path says.
_AROUND = f"""
WITH around (installed, available, extension, current, path, role, migrated, found) AS ({SCHEMAS}),
place (target, extension) AS (
    SELECT coalesce(%(schema)s::name, around.current::name), around.extension::name FROM around
), {TRUSTED}, {IMPOSTORS}, names (target, extension) AS (
    SELECT place.target::text, coalesce(place.extension::text, 'public'::text) FROM place
)
SELECT around.*,
    (SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_array(i.kind, i.signature, i.owner)) FROM impostors i),
    (SELECT pg_catalog.set_config('search_path'::text, pg_catalog.quote_ident(names.target)
            || CASE WHEN names.target = names.extension THEN ''::text
                ELSE ', '::text || pg_catalog.quote_ident(names.extension) END, false)
        FROM names WHERE names.target IS NOT NULL AND NOT EXISTS (SELECT FROM impostors))
FROM around
"""
_TYPES = {"schema": "text", "asks_what_is_available": "boolean"}


def look_around(connection: Connection, schema: str | None = None) -> Schemas:
    """Find the schemas, see that nobody answers for PostgreSQL's own there, and set the search_path to them.

    Args:
        connection: In autocommit mode, its role set.
        schema: Our schema; the first of the search_path by default.

    Raises:
        ConfigurationError: It is not clear which schema is meant, or there is an impostor.
    """
    parameters = {"schema": schema, "asks_what_is_available": False}
    (row,) = fetch_all(connection, _AROUND, _TYPES, parameters)
    *around, impostors, _ = row
    schemas = read_schemas(around, schema)
    refuse_impostors([Impostor(*each) for each in impostors or ()], schemas)
    return schemas
