"""The tables of a schema as a plan needs them: how large they are, and what hangs on them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import psycopg

from ragschema.database.citus import is_distributed
from ragschema.database.server import BOOKKEEPING, Connection
from ragschema.errors import LockNotObtained

_SIZES = """
SELECT c.relname::text,
    CASE WHEN NOT bool_or(f.rows <= 0 AND f.heap > 0) THEN sum(greatest(f.rows, 0))::int8 END,
    sum(f.total)::int8,
    bool_or(f.heap > 0)
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN LATERAL pg_partition_tree(c.oid) part ON part.isleaf
JOIN pg_class m ON m.oid = coalesce(part.relid::oid, c.oid)
CROSS JOIN LATERAL ({figures}) f
WHERE n.nspname = %s AND c.relkind IN ('r', 'p', 'm') AND NOT c.relname = ANY (%s)
GROUP BY c.relname ORDER BY c.relname
"""
_FIGURES = (
    "SELECT m.reltuples AS rows, pg_relation_size(m.oid) AS heap, pg_total_relation_size(m.oid) AS total"
)
_FIGURES_OF_NODES = """
SELECT (each ->> 0)::real AS rows, (each ->> 1)::int8 AS heap, (each ->> 2)::int8 AS total
FROM run_command_on_shards(m.oid, $$
    SELECT json_build_array(reltuples, pg_relation_size(oid), pg_total_relation_size(oid))
    FROM pg_class WHERE oid = '%%s'::regclass
$$) s CROSS JOIN LATERAL CAST(CASE WHEN s.success THEN s.result END AS jsonb) each
"""
_INDEXES = """
SELECT i.relname::text, t.relname::text FROM pg_index x
JOIN pg_class i ON i.oid = x.indexrelid
JOIN pg_class t ON t.oid = x.indrelid
JOIN pg_namespace n ON n.oid = t.relnamespace
WHERE n.nspname = %s
"""
_CONSTRAINTS = """
SELECT t.relname::text, c.conname::text, c.convalidated, r.relname::text,
    CASE WHEN c.contype = 'c' THEN pg_get_constraintdef(c.oid) END
FROM pg_constraint c
JOIN pg_class t ON t.oid = c.conrelid
JOIN pg_namespace n ON n.oid = t.relnamespace
LEFT JOIN pg_class r ON r.oid = c.confrelid
WHERE n.nspname = %s AND c.contype <> 't'
"""
_STEADY_FUNCTIONS = "SELECT proname::text FROM pg_proc GROUP BY 1 HAVING bool_and(provolatile <> 'v')"
WRITING_FUNCTIONS = """
SELECT DISTINCT p.proname::text FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
WHERE p.provolatile = 'v' AND l.lanname NOT IN ('internal', 'c')
"""
"""The functions that may write: those of the server and of its extensions write no row of ours."""

_NOT_NULL = re.compile(r'CHECK \(+("(?:[^"]|"")+"|[\w$]+) IS NOT NULL\)+', re.I)


@dataclass(frozen=True)
class Table:
    """How large a table is; a partitioned one with all its partitions.

    Attributes:
        name: Its name, without the schema.
        rows: The server's estimate (``pg_class.reltuples``); None where it has never counted them.
        bytes: Its total size, with indexes and TOAST.
        has_rows: False where it is known to be empty: it has no page.
    """

    name: str
    rows: int | None
    bytes: int
    has_rows: bool


@dataclass(frozen=True)
class Constraint:
    """What a plan must know of a constraint.

    Attributes:
        is_valid: Whether all rows are known to meet it.
        references: The table a foreign key refers to.
        not_null: The column that it says is not NULL, as written, where it is CHECK (column IS NOT NULL).
    """

    is_valid: bool
    references: str | None = None
    not_null: str | None = None


@dataclass(frozen=True)
class Tables:
    """The tables of a schema, and what hangs on them; the bookkeeping tables of migrations left out.

    Attributes:
        schema: The schema.
        sizes: Each table.
        indexes: The table of each index.
        constraints: Each constraint, by table and name.
        steady_functions: Functions that are not volatile in any of their forms.
        writing_functions: Functions that may write rows.
    """

    schema: str
    sizes: Mapping[str, Table]
    indexes: Mapping[str, str]
    constraints: Mapping[tuple[str, str], Constraint]
    steady_functions: frozenset[str]
    writing_functions: frozenset[str]


def read_tables(connection: Connection, schema: str) -> Tables:
    """Read the tables of a schema from the system catalogues; takes ACCESS SHARE on each for its size.

    On Citus their sizes are asked of the node that has them.

    Raises:
        LockNotObtained: Somebody holds ACCESS EXCLUSIVE on a table for longer than lock_timeout.
    """
    figures = _FIGURES_OF_NODES if is_distributed(connection, schema) else _FIGURES
    try:
        sizes = connection.execute(
            _SIZES.format(figures=figures).encode(), (schema, list(BOOKKEEPING))
        ).fetchall()
    except psycopg.errors.LockNotAvailable as exc:
        raise LockNotObtained(
            "The sizes of the tables cannot be read: somebody holds ACCESS EXCLUSIVE on one of them.",
            "Wait until that session has finished, then run the same command again.",
        ) from exc
    return Tables(
        schema,
        {name: Table(name, rows, size, has_rows) for name, rows, size, has_rows in sizes},
        dict(connection.execute(_INDEXES, (schema,)).fetchall()),
        {
            (table, name): Constraint(is_valid, references, find_not_null(definition or ""))
            for table, name, is_valid, references, definition in connection.execute(
                _CONSTRAINTS, (schema,)
            ).fetchall()
        },
        frozenset(name for (name,) in connection.execute(_STEADY_FUNCTIONS).fetchall()),
        frozenset(name for (name,) in connection.execute(WRITING_FUNCTIONS).fetchall()),
    )


def find_not_null(definition: str) -> str | None:
    """Return the column, as written, of a definition that is CHECK (column IS NOT NULL)."""
    match = _NOT_NULL.match(definition)
    return match[1] if match else None
