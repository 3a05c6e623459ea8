"""Rights of a service's role that it should not have: what lets it destroy, define or escape what is ours."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ragschema.database.connections import quoted
from ragschema.database.server import BOOKKEEPING, Connection
from ragschema.migrations.grant_statements import NEVER, every_table, missing_roles, no_role

# A role may become each role that it is a member of; a superuser is a member of all.
_ATTRIBUTES = """
SELECT s.rolname::text, s.rolsuper, s.rolbypassrls, s.rolcreaterole FROM pg_roles s
WHERE (s.rolsuper OR s.rolbypassrls OR s.rolcreaterole) AND (s.rolname = %(role)s OR NOT (
    SELECT rolsuper FROM pg_roles WHERE rolname = %(role)s) AND pg_has_role(%(role)s, s.oid, 'MEMBER'))
ORDER BY s.rolname <> %(role)s, s.rolname
"""
_OWNED = r"""
SELECT thing.name, pg_get_userbyid(thing.owner)::text FROM (
    SELECT 'the schema ' || n.nspname::text AS name, n.nspowner AS owner FROM pg_namespace n
    WHERE n.nspname = %(schema)s
    UNION ALL SELECT c.relname::text, c.relowner FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = %(schema)s AND c.relname::text LIKE 'rag\_%%' AND c.relkind IN ('r', 'p', 'v', 'm')
    UNION ALL SELECT p.proname || '()', p.proowner FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE n.nspname = %(schema)s AND p.proname::text LIKE 'rag\_%%'
) thing WHERE pg_has_role(%(role)s, thing.owner, 'MEMBER') ORDER BY thing.name
"""
_TABLES = """
SELECT acl.privilege_type,
    CASE acl.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(acl.grantee)) END AS grantee,
    array_agg(c.relname::text ORDER BY c.relname)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace CROSS JOIN LATERAL aclexplode(c.relacl) acl
WHERE n.nspname = %(schema)s AND c.relname = ANY (%(tables)s) AND acl.grantee <> c.relowner
AND (acl.grantee = 0 OR pg_has_role(%(role)s, acl.grantee, 'MEMBER'))
AND (acl.privilege_type = ANY (%(never)s)
    OR c.relname = ANY (%(bookkeeping)s) AND acl.privilege_type IN ('INSERT', 'UPDATE', 'DELETE'))
GROUP BY 1, 2 ORDER BY 1, 2
"""
_CREATES = """
SELECT CASE acl.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(acl.grantee)) END
FROM pg_namespace n CROSS JOIN LATERAL aclexplode(n.nspacl) acl
WHERE n.nspname = %(schema)s AND acl.privilege_type = 'CREATE' AND acl.grantee <> n.nspowner
AND (acl.grantee = 0 OR pg_has_role(%(role)s, acl.grantee, 'MEMBER'))
ORDER BY 1
"""


_SUPERUSER = "is a superuser"


@dataclass(frozen=True)
class Excess:
    """A right that a service's role has and should not.

    Attributes:
        finding: What it may do.
        remedy: What takes it away.
    """

    finding: str
    remedy: str


def find_service_role(connection: Connection, schema: str) -> str | None:
    """Return the current role, where it is not the one that may alter our tables; None where there are none."""
    row = connection.execute(
        "SELECT current_user::text, bool_or(pg_has_role(c.relowner, 'USAGE')) FROM pg_class c"
        " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relname = ANY (%s)",
        (schema, every_table()),
    ).fetchone()
    return row[0] if row is not None and row[1] is False else None


def find_excess(connection: Connection, schema: str, role: str) -> list[Excess]:
    """Find what a service's role may do that it should not; reads the catalogue only.

    Raises:
        UsageError: There is no such role.
    """
    if missing := missing_roles(connection, [role]):
        raise no_role(missing)
    asked = {"schema": schema, "role": role}
    found = [*_find_attributes(connection, asked)]
    if any(excess.finding == _SUPERUSER for excess in found):
        return found  # it may do all that follows
    return [*found, *_find_owned(connection, asked), *_find_rights(connection, asked)]


def _find_attributes(connection: Connection, asked: dict[str, str]) -> Iterator[Excess]:
    role = asked["role"]
    for name, is_super, bypasses, makes_roles in connection.execute(_ATTRIBUTES, asked).fetchall():
        kinds = {
            _SUPERUSER: (is_super, "NOSUPERUSER"),
            "passes row security by": (bypasses, "NOBYPASSRLS"),
            "may make roles, and members of others": (makes_roles, "NOCREATEROLE"),
        }
        for finding, (has_it, attribute) in kinds.items():
            if not has_it:
                continue
            if name == role:
                yield Excess(finding, f"ALTER ROLE {quoted(role)} {attribute};")
            else:
                yield Excess(
                    f"may become {name}, which {finding}", f"REVOKE {quoted(name)} FROM {quoted(role)};"
                )


def _find_owned(connection: Connection, asked: dict[str, str]) -> Iterator[Excess]:
    role = asked["role"]
    owned: dict[str, list[str]] = {}
    for name, owner in connection.execute(_OWNED.encode(), asked).fetchall():
        owned.setdefault(owner, []).append(name)
    for owner, names in owned.items():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        if owner == role:
            yield Excess(
                f"owns {names[0]}{more}",
                f"Migrate as another role, and let it own them: REASSIGN OWNED BY {quoted(role)} TO that role;",
            )
        else:
            yield Excess(
                f"may become {owner}, which owns {names[0]}{more}",
                f"REVOKE {quoted(owner)} FROM {quoted(role)};",
            )


def _find_rights(connection: Connection, asked: dict[str, str]) -> Iterator[Excess]:
    schema, role = asked["schema"], asked["role"]
    for (grantee,) in connection.execute(_CREATES, asked).fetchall():
        yield Excess(
            f"has CREATE on the schema {schema}{_through(role, grantee)}",
            f"REVOKE CREATE ON SCHEMA {quoted(schema)} FROM {grantee};",
        )
    parameters = {**asked, "tables": every_table(), "bookkeeping": [*BOOKKEEPING], "never": [*NEVER]}
    for right, grantee, tables in connection.execute(_TABLES, parameters).fetchall():
        more = f" and {len(tables) - 1} more" if len(tables) > 1 else ""
        listed = ", ".join(quoted(schema, table) for table in tables)
        yield Excess(
            f"has {right} on {tables[0]}{more}{_through(role, grantee)}",
            f"REVOKE {right} ON {listed} FROM {grantee};",
        )


def _through(role: str, grantee: str) -> str:
    return "" if grantee in (role, quoted(role)) else f", as {grantee} has"
