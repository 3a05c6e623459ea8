"""Impostors: functions and operators of others in our schema, with the names of PostgreSQL's own.

A call whose argument types are not exactly a function's own goes to whichever fits best on the whole search_path.
Revisions, service code and our own queries hold such calls, so whoever may create in our schema could answer them, as
whoever runs them. Our functions say pg_catalog where it matters; everything else relies on this question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ragschema.database.schemas import Schemas
from ragschema.database.server import VERSION_TABLE, Connection
from ragschema.errors import ConfigurationError

# It runs where impostors may be: every operator has exactly these types, every function is named in full.
PLACE = "place (target, extension) AS (SELECT %(schema)s::name, %(extension)s::name)"
"""Our schema and pgvector's, which `TRUSTED` and `IMPOSTORS` ask about; `place_of` has the parameters."""

TRUSTED = f"""
trusted (role) AS (
    SELECT r.oid FROM pg_catalog.pg_roles r WHERE r.rolsuper OR r.rolname = current_user OR r.rolname = session_user
        OR (pg_catalog.pg_has_role(r.oid, 'USAGE') AND NOT EXISTS ( -- which a superuser has of everybody
            SELECT FROM pg_catalog.pg_roles own WHERE own.rolname = current_user AND own.rolsuper))
    UNION ALL
    SELECT d.datdba FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()
    UNION ALL
    SELECT n.nspowner FROM pg_catalog.pg_namespace n JOIN place ON place.target = n.nspname
    UNION ALL
    SELECT c.relowner FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    JOIN place ON place.target = n.nspname WHERE c.relname = '{VERSION_TABLE}'::name
)
"""
"""The roles that may do all this anyway: superusers, ourselves, and the owners of database, schema and tables."""

IMPOSTORS = """
places (schema, owner) AS (
    SELECT n.oid, n.nspowner FROM pg_catalog.pg_namespace n
    WHERE EXISTS (SELECT FROM place WHERE n.nspname = place.target OR n.nspname = place.extension)
), impostors (kind, signature, owner) AS (
SELECT thing.kind, CASE thing.kind WHEN 'FUNCTION'::text THEN thing.id::pg_catalog.regprocedure::text
    ELSE thing.id::pg_catalog.regoperator::text END, pg_catalog.pg_get_userbyid(thing.owner)::text
FROM (
    SELECT 'FUNCTION'::text AS kind, p.tableoid AS class, p.oid AS id, p.proname AS name, p.proowner AS owner,
        p.pronamespace AS schema, p.oid AS code
    FROM pg_catalog.pg_depend member JOIN pg_catalog.pg_proc p ON p.oid = member.objid -- see members.py
    WHERE member.refclassid = 'pg_catalog.pg_namespace'::pg_catalog.regclass::oid
        AND member.refobjid = ANY (ARRAY(SELECT places.schema FROM places))
        AND member.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass::oid
    UNION ALL
    SELECT 'OPERATOR'::text, o.tableoid, o.oid, o.oprname, o.oprowner, o.oprnamespace, o.oprcode::oid
    FROM pg_catalog.pg_operator o
) thing
JOIN places ON places.schema = thing.schema
WHERE thing.owner <> places.owner AND thing.owner <> ALL (ARRAY(SELECT trusted.role FROM trusted))
    AND (EXISTS (SELECT FROM pg_catalog.pg_proc own WHERE thing.kind = 'FUNCTION'::text
            AND own.pronamespace = 'pg_catalog'::pg_catalog.regnamespace::oid AND own.proname = thing.name)
        OR EXISTS (SELECT FROM pg_catalog.pg_operator own WHERE thing.kind = 'OPERATOR'::text
            AND own.oprnamespace = 'pg_catalog'::pg_catalog.regnamespace::oid AND own.oprname = thing.name))
    AND NOT EXISTS ( -- an extension's, from its library: whoever owns it, nobody wrote it here
        SELECT FROM pg_catalog.pg_depend d
        LEFT JOIN pg_catalog.pg_aggregate a ON a.aggfnoid::oid = thing.code
        JOIN pg_catalog.pg_proc c ON c.oid = coalesce(a.aggtransfn::oid, thing.code)
        JOIN pg_catalog.pg_language l ON l.oid = c.prolang
        WHERE d.classid = thing.class AND d.objid = thing.id AND d.deptype = 'e'::"char" AND l.lanname = 'c'::name)
)
"""
"""The impostors in both: it stands after `PLACE` and `TRUSTED`."""


@dataclass(frozen=True)
class Impostor:
    """A function or operator that could be called for PostgreSQL's own.

    Attributes:
        kind: ``FUNCTION`` or ``OPERATOR``.
        signature: Its name and argument types, as DROP takes them.
        owner: The role that it belongs to.
    """

    kind: str
    signature: str
    owner: str


def find_impostors(connection: Connection, schemas: Schemas) -> list[Impostor]:
    """Find the impostors in our schema and in pgvector's; one statement, about a millisecond."""
    statement = f"WITH {PLACE}, {TRUSTED}, {IMPOSTORS} SELECT kind, signature, owner FROM impostors"
    return [Impostor(*row) for row in connection.execute(statement.encode(), place_of(schemas)).fetchall()]


def place_of(schemas: Schemas) -> dict[str, str | None]:
    """Return the parameters of `PLACE`."""
    return {"schema": schemas.target, "extension": schemas.extension.schema}


def refuse_impostors(impostors: Sequence[Impostor], schemas: Schemas) -> None:
    """Refuse a schema with impostors: whatever we run in it could run them.

    Raises:
        ConfigurationError: There is one.
    """
    if not impostors:
        return
    first, more = impostors[0], len(impostors) - 1
    raise ConfigurationError(
        f"The {first.kind.lower()} {first.signature} of the role {first.owner} could be called for PostgreSQL's own"
        f"{f', and {more} more' if more else ''}.",
        f"See what it does. If it is meant, let the owner of schema {schemas.target} own it; else drop it, and take"
        f" CREATE on the schema from {first.owner}:",
        "\n".join(f"DROP {each.kind} {each.signature};" for each in impostors),
    )
