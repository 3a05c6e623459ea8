"""Tables as a transaction sees them: before a revision, and those that it has touched after it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ragschema.database.citus import NodeCount, count_deletions
from ragschema.database.members import members
from ragschema.database.server import Connection

COPY_PREFIX = "ragschema_guard_"

_TABLES = ("r", "p")

_WHAT = """
    n.nspname::text, c.relname::text, c.relkind::text,
    quote_ident(n.nspname) || '.' || quote_ident(c.relname),
    c.relpersistence = 't', c.relfilenode::int8,
    CASE WHEN c.relkind IN ('r', 'p') THEN pg_stat_get_xact_tuples_deleted(c.oid) END,
    CASE WHEN c.relkind IN ('r', 'p') THEN (
        SELECT json_agg(json_build_array(
            a.attnum, a.attname, quote_ident(a.attname), format_type(a.atttypid, a.atttypmod), a.attgenerated <> ''))
        FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) END
"""
_BEFORE = f"""
SELECT c.oid::int8, {_WHAT}, current_setting('track_counts') = 'on', c.reltoastrelid::int8, (
        SELECT i.indexrelid::int8 FROM pg_index i WHERE c.reltoastrelid <> 0 AND i.indrelid = c.reltoastrelid
    )
FROM (
    SELECT oid FROM pg_class WHERE oid IN ({members("pg_class")})
    UNION SELECT indexrelid FROM pg_index WHERE indrelid IN ({members("pg_class")})
    UNION SELECT unnest(%(others)s::oid[])
) looked_at JOIN pg_class c ON c.oid = looked_at.oid JOIN pg_namespace n ON n.oid = c.relnamespace
"""
# Whatever is written, altered or dropped stays locked to the end of the transaction, whichever statement, trigger
# or cascade did it, and in whichever schema.
_TOUCHED = f"""
SELECT l.relation::int8, l.is_altered, {_WHAT} FROM (
    SELECT relation, bool_or(mode = 'AccessExclusiveLock') AS is_altered FROM pg_locks
    WHERE pid = pg_backend_pid() AND locktype = 'relation' AND relation >= 16384
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND mode NOT IN ('AccessShareLock', 'RowShareLock') GROUP BY relation) l
LEFT JOIN pg_class c ON c.oid = l.relation LEFT JOIN pg_namespace n ON n.oid = c.relnamespace
"""
_ALL_TABLES = "SELECT oid::int8 FROM pg_class WHERE relkind IN ('r', 'p') AND relpersistence <> 't'"


@dataclass(frozen=True)
class Column:
    """A column: its name, the name quoted, its type as SQL, and whether it is generated."""

    name: str
    quoted: str
    type: str
    is_generated: bool


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        oid: Its identity, whatever it is called.
        name: Its quoted name, with its schema.
        label: What to call it: without the schema where that is the one that is migrated.
        schema: Its schema.
        relation: Its name.
        kind: ``r``, or ``p`` where it is partitioned; other relations have other letters.
        is_temporary: Whether it is of this session only.
        file: The number of its file: another one after a TRUNCATE or a rewrite.
        deleted: The rows this session has deleted that the server's statistics do not have yet: only the
            difference of two looks in one transaction tells something.
        columns: Its columns by number.
    """

    oid: int
    name: str
    label: str
    schema: str
    relation: str
    kind: str
    is_temporary: bool
    file: int
    deleted: int
    columns: Mapping[int, Column]


@dataclass(frozen=True)
class Snapshot:
    """The tables of a schema, and what else was asked for.

    Attributes:
        tables: The tables by their oids.
        relations: The oids of all that is there: of tables, indexes, views, sequences, TOAST.
        are_deletions_counted: Whether the server counts the rows that we delete.
    """

    tables: Mapping[int, Table]
    relations: frozenset[int]
    are_deletions_counted: bool


@dataclass(frozen=True)
class Touched:
    """A relation that the transaction has written, altered or dropped.

    Attributes:
        oid: Its identity.
        is_altered: Whether it took ACCESS EXCLUSIVE: else its rows at most are others.
        table: It as it is now, None where it is gone.
    """

    oid: int
    is_altered: bool
    table: Table | None


def read_snapshot(
    connection: Connection, schema: str, others: Iterable[int] = (), *, is_on_node: bool = False
) -> Snapshot:
    """Return the tables of a schema, and further ones by their oids.

    Args:
        connection: A connection in a transaction.
        schema: The schema.
        others: Further tables.
        is_on_node: Whether the schema's tables are on a node of Citus, which counts what is deleted of them.
    """
    rows = connection.execute(_BEFORE, {"schema": schema, "others": list(others)}).fetchall()
    there = count_deletions(connection, schema) if is_on_node else {}
    tables = {
        oid: table
        for oid, *what in rows
        if (table := _table(oid, what, schema, there)) is not None
        if table.kind in _TABLES and not table.is_temporary and not table.relation.startswith(COPY_PREFIX)
    }
    relations = frozenset(oid for own, *_, toast, index in rows for oid in (own, toast, index) if oid)
    are_counted = all(row[-3] for row in rows) and all(each.is_counted for each in there.values())
    return Snapshot(tables, relations, are_counted)


def read_touched(connection: Connection, schema: str, *, is_on_node: bool = False) -> list[Touched]:
    """Return what the transaction has written, altered or dropped so far; arguments as of `read_snapshot`."""
    rows = connection.execute(_TOUCHED).fetchall()
    there = count_deletions(connection, schema) if is_on_node else {}
    return [Touched(oid, is_altered, _table(oid, what, schema, there)) for oid, is_altered, *what in rows]


def read_all_tables(connection: Connection) -> frozenset[int]:
    """Return the oids of the database's tables; there may be very many."""
    return frozenset(oid for (oid,) in connection.execute(_ALL_TABLES).fetchall())


def _table(oid: int, what: Sequence[Any], target: str, there: Mapping[int, NodeCount]) -> Table | None:
    schema, relation, kind, name, is_temporary, file, deleted, columns, *_ = what
    if relation is None:
        return None
    label = relation if schema == target else f"{schema}.{relation}"
    found = {number: Column(*column) for number, *column in columns or ()}
    deleted = there[oid].deleted if oid in there else deleted or 0
    return Table(oid, name, label, schema, relation, kind, is_temporary, file, deleted, found)
