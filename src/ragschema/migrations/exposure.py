"""Exposures: what lets roles other than ours put code into our schema, which then runs as whoever uses it."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import sql

from ragschema.database.impostors import PLACE, TRUSTED, place_of
from ragschema.database.schemas import Schemas
from ragschema.database.server import Connection

# Written as impostors.TRUSTED is, and for the same reason.
_CREATORS = f"""
WITH {PLACE}, {TRUSTED}
SELECT n.nspname::text, CASE acl.grantee WHEN 0::oid THEN 'PUBLIC' ELSE
    pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(acl.grantee)::text) END
FROM pg_catalog.pg_namespace n CROSS JOIN LATERAL pg_catalog.aclexplode(n.nspacl) acl
WHERE (n.nspname = %(schema)s::name OR n.nspname = %(extension)s::name)
    AND acl.privilege_type = 'CREATE'::text AND acl.grantee <> n.nspowner
    AND NOT EXISTS (SELECT FROM trusted WHERE trusted.role = acl.grantee)
ORDER BY 1, 2
"""

_TRIGGERERS = f"""
WITH {PLACE}, {TRUSTED}
SELECT c.relname::text, CASE acl.grantee WHEN 0::oid THEN 'PUBLIC' ELSE
    pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(acl.grantee)::text) END
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN LATERAL pg_catalog.aclexplode(c.relacl) acl
WHERE n.nspname = %(schema)s::name AND c.relname::text LIKE 'rag\\_%%'
    AND (c.relkind = 'r'::"char" OR c.relkind = 'p'::"char" OR c.relkind = 'v'::"char")
    AND acl.privilege_type = 'TRIGGER'::text AND acl.grantee <> c.relowner
    AND NOT EXISTS (SELECT FROM trusted WHERE trusted.role = acl.grantee)
ORDER BY 2, 1
"""

_OWNERS = f"""
WITH {PLACE}, {TRUSTED}
SELECT thing.kind, thing.name, pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(thing.owner)::text) FROM (
    SELECT 'TABLE' AS kind, c.oid::pg_catalog.regclass::text AS name, c.relowner AS owner
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = %(schema)s::name AND c.relname::text LIKE 'rag\\_%%'
        AND (c.relkind = 'r'::"char" OR c.relkind = 'p'::"char")
    UNION ALL
    SELECT 'FUNCTION', p.oid::pg_catalog.regprocedure::text, p.proowner
    FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
    WHERE n.nspname = %(schema)s::name AND p.proname::text LIKE 'rag\\_%%'
) thing
WHERE NOT EXISTS (SELECT FROM trusted WHERE trusted.role = thing.owner)
ORDER BY 3, 1, 2
"""


@dataclass(frozen=True)
class Exposure:
    """A right of others that is enough to run code as whoever uses our schema.

    Attributes:
        finding: Who may do what.
        remedy: The line that takes it away.
    """

    finding: str
    remedy: str


def find_exposures(connection: Connection, schemas: Schemas) -> list[Exposure]:
    """Find who may create in our schema and pgvector's, set triggers on our tables, or owns one of ours."""
    parameters = place_of(schemas)
    found = []
    for schema, role in connection.execute(_CREATORS.encode(), parameters).fetchall():
        name = sql.Identifier(schema).as_string()
        finding = f"{role} may create in the schema {schema}: functions there may answer for PostgreSQL's own"
        found.append(Exposure(finding, f"Its owner runs: REVOKE CREATE ON SCHEMA {name} FROM {role};"))
    tables: dict[str, list[str]] = {}
    for table, role in connection.execute(_TRIGGERERS.encode(), parameters).fetchall():
        tables.setdefault(role, []).append(table)
    for role, names in tables.items():
        listed = ", ".join(sql.Identifier(schemas.target, name).as_string() for name in names)
        finding = f"{role} may set triggers on {', '.join(names)}: they run as whoever writes"
        found.append(Exposure(finding, f"Their owner runs: REVOKE TRIGGER ON {listed} FROM {role};"))
    for kind, name, owner in connection.execute(_OWNERS.encode(), parameters).fetchall():
        finding = f"the {kind.lower()} {name} belongs to {owner}, who may make anything of it"
        found.append(
            Exposure(finding, f"A superuser runs: ALTER {kind} {name} OWNER TO the owner of the others;")
        )
    return found
