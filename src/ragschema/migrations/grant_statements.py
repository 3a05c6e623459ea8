"""Statements that grant: what an application and a reader need of our tables, read from the catalogue."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ragschema.database.connections import quoted
from ragschema.database.schemas import Schemas
from ragschema.database.server import BOOKKEEPING, VERSION_TABLE, Connection
from ragschema.errors import UsageError
from ragschema.state.expected import our_tables

_WRITES = ("SELECT", "INSERT", "UPDATE", "DELETE")
NEVER = ("TRUNCATE", "REFERENCES", "TRIGGER")
"""Rights on a table that only the role that migrates needs."""

# Everything of ours, as it is named with an empty search_path.
_OBJECTS = r"""
WITH tables AS (
    SELECT c.oid, c.relname::text AS name, c.relkind, c.relowner
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = %(schema)s AND c.relkind IN ('r', 'p', 'v', 'm') AND (
        c.relname = ANY (%(tables)s) OR c.relkind IN ('v', 'm') AND c.relname::text LIKE 'rag\_%%'
        OR EXISTS (SELECT FROM pg_inherits i JOIN pg_class p ON p.oid = i.inhparent
            WHERE i.inhrelid = c.oid AND p.relname = ANY (%(tables)s) AND p.relnamespace = c.relnamespace))
)
SELECT CASE WHEN relkind IN ('v', 'm') THEN 'view' ELSE 'table' END AS kind, name, NULL AS of_table,
    false AS is_volatile, pg_get_userbyid(relowner)::text AS owner
FROM tables
UNION ALL
SELECT 'sequence', s.relname::text, t.name, false, pg_get_userbyid(s.relowner)::text
FROM pg_depend d JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S' JOIN tables t ON t.oid = d.refobjid
WHERE d.classid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
UNION ALL
SELECT 'function', p.oid::regprocedure::text, NULL, p.provolatile = 'v', pg_get_userbyid(p.proowner)::text
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname = %(schema)s AND p.proname::text LIKE 'rag\_%%' AND p.prokind = 'f'
AND p.prorettype <> 'trigger'::regtype
ORDER BY kind, name
"""
_TABLE_RIGHTS = """
SELECT c.relname::text, acl.privilege_type FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_roles r ON r.rolname = %s
CROSS JOIN LATERAL aclexplode(c.relacl) acl
WHERE n.nspname = %s AND c.relname = ANY (%s) AND acl.grantee = r.oid AND acl.grantee <> c.relowner
ORDER BY 1, 2
"""
_PUBLIC_CREATES = """
SELECT EXISTS (SELECT FROM pg_namespace n CROSS JOIN LATERAL aclexplode(n.nspacl) acl
    WHERE n.nspname = %s AND acl.grantee = 0 AND acl.privilege_type = 'CREATE')
"""


@dataclass(frozen=True)
class GrantStatement:
    """A statement that gives or takes rights.

    Attributes:
        text: The statement, with its semicolon.
        needed: The rights on schemas that it gives: role, schema, right. Only a schema's owner may give them, so that a
            statement is passed over where they are there, from whomever.
    """

    text: str
    needed: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True)
class OurObjects:
    """The names of what is ours, in SQL.

    Attributes:
        tables: Those that services write, partitions included.
        bookkeeping: Those that say which revisions were applied.
        views: Our views.
        sequences: Those of ``tables``.
        functions: Those that a service may call, which excludes the functions of triggers.
        looking_functions: Those of them that change nothing.
        owner: Who made the tables, and makes those of later revisions.
    """

    tables: Sequence[str]
    bookkeeping: Sequence[str]
    views: Sequence[str]
    sequences: Sequence[str]
    functions: Sequence[str]
    looking_functions: Sequence[str]
    owner: str


def missing_roles(connection: Connection, roles: Iterable[str]) -> list[str]:
    """Return those of some roles that do not exist."""
    known = {name for (name,) in connection.execute("SELECT rolname::text FROM pg_roles").fetchall()}
    return [role for role in roles if role not in known]


def no_role(roles: Sequence[str]) -> UsageError:
    """Return the error of roles that do not exist, at least one."""
    return UsageError(
        f"There is no role {' and no role '.join(roles)}.",
        "Nothing was changed. Name another, or create it, with a password or a certificate of its own:",
        "\n".join(f"CREATE ROLE {quoted(role)} LOGIN;" for role in roles),
    )


def every_table() -> list[str]:
    """Return the names of all tables of ours, but for partitions."""
    return sorted({*our_tables(), *BOOKKEEPING})


def read_objects(connection: Connection, schema: str) -> OurObjects:
    """Read what there is of ours in a schema that has our version table."""
    with connection.transaction():
        connection.execute("SET LOCAL search_path = ''")  # so that what is in it is qualified
        rows = connection.execute(_OBJECTS.encode(), {"schema": schema, "tables": every_table()}).fetchall()
    named: dict[str, list[str]] = {
        kind: [] for kind in ("table", "bookkeeping", "view", "sequence", "function", "looking")
    }
    owner = ""
    for kind, name, of_table, is_volatile, owned_by in rows:
        if kind == "function":
            named["function"].append(name)
            if not is_volatile:
                named["looking"].append(name)
        elif name in BOOKKEEPING:
            named["bookkeeping"].append(quoted(schema, name))
            owner = owned_by if name == VERSION_TABLE else owner
        elif of_table not in BOOKKEEPING:
            named[kind].append(quoted(schema, name))
    return OurObjects(
        tables=named["table"],
        bookkeeping=named["bookkeeping"],
        views=named["view"],
        sequences=named["sequence"],
        functions=named["function"],
        looking_functions=named["looking"],
        owner=owner,
    )


def find_statements(
    connection: Connection, schemas: Schemas, ours: OurObjects, app: str | None, read_only: str | None
) -> Iterator[GrantStatement]:
    """Yield what gives the roles their rights, in order: schemas, tables, sequences, functions, later revisions."""
    schema, owner = schemas.target, ours.owner
    roles = [role for role in (app, read_only) if role is not None]
    services = ", ".join(map(quoted, roles))
    if connection.execute(_PUBLIC_CREATES, (schema,)).fetchone() == (True,):
        yield GrantStatement(f"REVOKE CREATE ON SCHEMA {quoted(schema)} FROM PUBLIC;")
    yield GrantStatement(
        f"GRANT USAGE, CREATE ON SCHEMA {quoted(schema)} TO {quoted(owner)};",
        ((owner, schema, "USAGE"), (owner, schema, "CREATE")),
    )
    yield GrantStatement(
        f"GRANT USAGE ON SCHEMA {quoted(schema)} TO {services};",
        tuple((role, schema, "USAGE") for role in roles),
    )
    extension = schemas.extension.schema
    if extension is not None and extension != schema:
        yield GrantStatement(
            f"GRANT USAGE ON SCHEMA {quoted(extension)} TO {quoted(owner)}, {services};",
            tuple((role, extension, "USAGE") for role in (owner, *roles)),
        )
    if app is not None:
        yield from map(GrantStatement, _of_excess(connection, schema, app, is_reader=False))
        yield from map(GrantStatement, _of_app(quoted(app), ours))
    if read_only is not None:
        yield from map(GrantStatement, _of_excess(connection, schema, read_only, is_reader=True))
        yield from map(GrantStatement, _of_reader(quoted(read_only), ours))
    later = f"ALTER DEFAULT PRIVILEGES FOR ROLE {quoted(owner)} IN SCHEMA {quoted(schema)} GRANT"
    if app is not None:
        yield GrantStatement(f"{later} {', '.join(_WRITES)} ON TABLES TO {quoted(app)};")
        yield GrantStatement(f"{later} USAGE, SELECT ON SEQUENCES TO {quoted(app)};")
    if read_only is not None:
        yield GrantStatement(f"{later} SELECT ON TABLES TO {quoted(read_only)};")
        yield GrantStatement(f"{later} SELECT ON SEQUENCES TO {quoted(read_only)};")
    yield GrantStatement(f"{later} EXECUTE ON FUNCTIONS TO {services};")


def _of_app(role: str, ours: OurObjects) -> Iterator[str]:
    yield f"GRANT {', '.join(_WRITES)} ON TABLE {', '.join(ours.tables)} TO {role};"
    yield f"GRANT SELECT ON TABLE {', '.join([*ours.bookkeeping, *ours.views])} TO {role};"
    if ours.sequences:
        yield f"GRANT USAGE, SELECT ON SEQUENCE {', '.join(ours.sequences)} TO {role};"
    if ours.functions:
        yield f"GRANT EXECUTE ON FUNCTION {', '.join(ours.functions)} TO {role};"


def _of_reader(role: str, ours: OurObjects) -> Iterator[str]:
    yield f"GRANT SELECT ON TABLE {', '.join([*ours.tables, *ours.bookkeeping, *ours.views])} TO {role};"
    if ours.sequences:
        yield f"GRANT SELECT ON SEQUENCE {', '.join(ours.sequences)} TO {role};"
    if ours.looking_functions:
        yield f"GRANT EXECUTE ON FUNCTION {', '.join(ours.looking_functions)} TO {role};"


def _of_excess(connection: Connection, schema: str, role: str, *, is_reader: bool) -> Iterator[str]:
    """Yield what takes away the rights on tables that a role was given and does not need."""
    held: dict[str, list[str]] = {}
    for table, right in connection.execute(_TABLE_RIGHTS, (role, schema, every_table())).fetchall():
        only_looks = is_reader or table in BOOKKEEPING
        if right in NEVER or (only_looks and right in _WRITES and right != "SELECT"):
            held.setdefault(table, []).append(right)
    alike: dict[tuple[str, ...], list[str]] = {}
    for table, rights in held.items():
        alike.setdefault(tuple(rights), []).append(quoted(schema, table))
    for taken, tables in alike.items():
        yield f"REVOKE {', '.join(taken)} ON TABLE {', '.join(tables)} FROM {quoted(role)};"
