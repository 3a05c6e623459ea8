"""Copies of a tenant's rows, and of where its sequences stand, from one schema of a database to another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from psycopg import sql

from ragschema.database.server import Connection
from ragschema.errors import RagSchemaError

# Types of the schema itself are others in each.
_COLUMNS = """
SELECT c.relname::text, a.attname::text, CASE WHEN t.typnamespace = n.oid THEN t.typname::text END
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
JOIN pg_type t ON t.oid = a.atttypid
WHERE n.nspname = %s AND c.relname = ANY (%s)
ORDER BY 1, a.attnum
"""
# Each node has numbers of its own to give of a bigint, and none of a smaller type: its sequence stands at its end.
_SEQUENCES = """
SELECT s.relname::text, t.relname::text, a.attname::text, CASE q.seqtypid WHEN 'int8'::regtype THEN (
        SELECT max(nullif(result, '')::int8) FROM run_command_on_all_nodes(
            format('SELECT pg_sequence_last_value(%%L::regclass)', format('%%I.%%I', n.nspname, s.relname)))
    ) ELSE pg_sequence_last_value(s.oid) END
FROM pg_class s JOIN pg_namespace n ON n.oid = s.relnamespace JOIN pg_sequence q ON q.seqrelid = s.oid
JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = s.oid AND d.deptype = 'i'
JOIN pg_class t ON t.oid = d.refobjid JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = d.refobjsubid
WHERE s.relkind = 'S' AND n.nspname = %s ORDER BY 1
"""


@dataclass(frozen=True)
class IdentitySequence:
    """A sequence of an identity column.

    Attributes:
        name: Its name, without the schema.
        table: The column's table, likewise.
        column: The column.
        last: The greatest number that a node has given; None where none has.
    """

    name: str
    table: str
    column: str
    last: int | None


def find_sequences(connection: Connection, schema: str) -> list[IdentitySequence]:
    """Return the identity sequences of a schema that is on a node of Citus."""
    return [IdentitySequence(*row) for row in connection.execute(_SEQUENCES, (schema,)).fetchall()]


def advance_sequences(connection: Connection, schema: str, sequences: list[IdentitySequence]) -> None:
    """Let sequences go on where others have stopped, and after every number that is in their column."""
    for each in sequences:
        statement = sql.SQL(
            "SELECT setval({name}::regclass, number) FROM (SELECT greatest({last}, max({column})) FROM {table})"
            " of (number) WHERE number IS NOT NULL"
        ).format(
            name=sql.Literal(sql.Identifier(schema, each.name).as_string()),
            last=sql.Literal(each.last),
            column=sql.Identifier(each.column),
            table=sql.Identifier(schema, each.table),
        )
        connection.execute(statement)  # without parameters: the schema's name may have a %


def copy_rows(connection: Connection, source: str, target: str, tables: Sequence[str]) -> None:
    """Copy all rows of some tables of a schema into the empty tables of the same names of another.

    Args:
        connection: In a transaction that holds off all writers.
        source: The schema whose rows they are.
        target: The other; its columns are alike, and it has no triggers.
        tables: The names of the tables, or of partitions.

    Raises:
        RagSchemaError: Not as many rows have come as there are.
    """
    for table, columns in _find_columns(connection, source, tables):
        names = sql.SQL(", ").join(sql.Identifier(column) for column, _ in columns)
        values = sql.SQL(", ").join(
            sql.Identifier(column)
            if own_type is None
            else sql.SQL("{}::text::{}").format(sql.Identifier(column), sql.Identifier(target, own_type))
            for column, own_type in columns
        )
        copied = connection.execute(
            sql.SQL("INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM {}").format(
                sql.Identifier(target, table), names, values, sql.Identifier(source, table)
            )
        ).rowcount
        there = [_count(connection, schema, table) for schema in (source, target)]
        if there != [copied, copied]:
            raise RagSchemaError(
                f"The table {table} has {there[0]} rows, and {there[1]} of them were copied.",
                "Nothing was changed. Report this, with the command you ran.",
            )


def _find_columns(
    connection: Connection, schema: str, tables: Sequence[str]
) -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    found = connection.execute(_COLUMNS, (schema, [*tables])).fetchall()
    for table, rows in groupby(found, key=lambda row: row[0]):
        yield table, [(column, own_type) for _, column, own_type in rows]


def _count(connection: Connection, schema: str, table: str) -> int:
    statement = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(schema, table))
    row = connection.execute(statement).fetchone()
    return 0 if row is None else int(row[0])
