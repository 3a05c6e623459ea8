"""Owners and privileges of a schema and of all that is in it: read, and given again to what was made anew."""

from __future__ import annotations

from typing import NamedTuple

from ragschema.database.connections import quoted
from ragschema.database.server import Connection

_READ = """
WITH n AS (
    SELECT oid, nspowner, nspacl FROM pg_namespace WHERE nspname = %(schema)s
), tables AS (
    SELECT c.* FROM pg_class c JOIN n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'S')
), things (kind, name, part, owner, acl) AS (
    SELECT 'SCHEMA', oid::regnamespace::text, '', nspowner, coalesce(nspacl, acldefault('n', nspowner)) FROM n
    UNION ALL
    SELECT CASE relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, oid::regclass::text, '', relowner,
        coalesce(relacl, acldefault(CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", relowner))
    FROM tables
    UNION ALL
    SELECT 'TABLE', c.oid::regclass::text, quote_ident(a.attname), c.relowner, a.attacl
    FROM tables c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attacl IS NOT NULL AND NOT a.attisdropped
    UNION ALL
    SELECT 'FUNCTION', p.oid::regprocedure::text, '', p.proowner, coalesce(p.proacl, acldefault('f', p.proowner))
    FROM pg_proc p JOIN n ON n.oid = p.pronamespace
    UNION ALL
    SELECT 'TYPE', t.oid::regtype::text, '', t.typowner, coalesce(t.typacl, acldefault('T', t.typowner))
    FROM pg_type t JOIN n ON n.oid = t.typnamespace WHERE t.typtype = 'e'
    UNION ALL
    SELECT 'DEFAULT', quote_ident(pg_get_userbyid(d.defaclrole)), CASE d.defaclobjtype WHEN 'r' THEN 'TABLES'
        WHEN 'S' THEN 'SEQUENCES' WHEN 'f' THEN 'FUNCTIONS' ELSE 'TYPES' END, d.defaclrole, d.defaclacl
    FROM pg_default_acl d JOIN n ON n.oid = d.defaclnamespace
)
SELECT kind, name, part, 'OWNER', quote_ident(pg_get_userbyid(owner)), false FROM things
WHERE kind IN ('SCHEMA', 'TABLE', 'FUNCTION', 'TYPE') AND part = ''
UNION
SELECT kind, name, part, a.privilege_type,
    CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END, a.is_grantable
FROM things CROSS JOIN LATERAL aclexplode(acl) a
"""


class Right(NamedTuple):
    """A right on something of a schema, whoever gave it; names are as in SQL.

    Attributes:
        kind: ``SCHEMA``, ``TABLE``, ``SEQUENCE``, ``FUNCTION`` or ``TYPE``; ``DEFAULT``: of what is made later.
        name: What it is on; of ``DEFAULT`` the role that makes it.
        part: The column, or nothing; of ``DEFAULT`` the kind of what is made.
        right: The privilege, or ``OWNER``.
        role: Who has it, ``PUBLIC`` too.
        is_grantable: Whether it may be granted on.
    """

    kind: str
    name: str
    part: str
    right: str
    role: str
    is_grantable: bool

    def statement(self, schema: str, *, takes: bool = False) -> str:
        """Return the SQL that gives it, or takes it away."""
        if self.right == "OWNER":
            return f"ALTER {self.kind} {self.name} OWNER TO {self.role}"
        verb, to = ("REVOKE", "FROM") if takes else ("GRANT", "TO")
        option = " WITH GRANT OPTION" if self.is_grantable and not takes else ""
        if self.kind == "DEFAULT":
            return (
                f"ALTER DEFAULT PRIVILEGES FOR ROLE {self.name} IN SCHEMA {quoted(schema)}"
                f" {verb} {self.right} ON {self.part} {to} {self.role}{option}"
            )
        column = f" ({self.part})" if self.part else ""
        return f"{verb} {self.right}{column} ON {self.kind} {self.name} {to} {self.role}{option}"


def read_rights(connection: Connection, schema: str) -> frozenset[Right]:
    """Read who owns a schema and what is in it, and who may do what with it.

    Args:
        connection: In a transaction, whose search_path is empty from now on: names are qualified, and Citus names the
            types of a function's arguments to its nodes as the search_path does.
        schema: The schema.
    """
    connection.execute("SET LOCAL search_path = ''")
    return frozenset(Right(*row) for row in connection.execute(_READ.encode(), {"schema": schema}))


def restore_rights(connection: Connection, schema: str, wanted: frozenset[Right]) -> None:
    """Give a schema that was made anew the owners and privileges that it had; its search_path as of `read_rights`."""
    for each in sorted(wanted - read_rights(connection, schema)):
        if each.right == "OWNER":
            connection.execute(each.statement(schema).encode())
    found = read_rights(connection, schema)
    for each in sorted(found - wanted):
        connection.execute(each.statement(schema, takes=True).encode())
    for each in sorted(wanted - found):
        connection.execute(each.statement(schema).encode())
