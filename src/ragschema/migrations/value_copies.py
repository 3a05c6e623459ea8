"""Copies of a table's values, as hashes: what a rewrite of the table must give back."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from ragschema.database.connections import quoted
from ragschema.database.drivers import as_written
from ragschema.migrations.table_snapshots import COPY_PREFIX, Column, Table


@dataclass(frozen=True)
class Copy:
    """The values of a table's columns, as a table of hashes beside it, in the same transaction.

    Attributes:
        table: The table as it was.
        name: The quoted name of the copy.
        rows: How many rows there were.
        columns: The columns that were copied, by number.
        sums: The sum of each column's hashes.
    """

    table: Table
    name: str
    rows: int
    columns: dict[int, Column]
    sums: dict[int, object]


def make_copy(connection: sa.Connection, schema: str, table: Table, left_out: Collection[str]) -> Copy:
    """Copy the values of a table, which nobody must write meanwhile; reads it once.

    Args:
        connection: A connection.
        schema: Where to make the copy, as we may create tables there; see `drop_copy`.
        table: The table.
        left_out: The columns that need not be given back, ``table.column``.
    """
    columns = {
        number: column
        for number, column in table.columns.items()
        if not column.is_generated and f"{table.label}.{column.name}" not in left_out
    }
    name = quoted(schema, f"{COPY_PREFIX}{table.oid}")
    hashes = ", ".join(f'{_hash(column.quoted)} AS "{number}"' for number, column in columns.items())
    _run(connection, f"CREATE UNLOGGED TABLE {name} AS SELECT {hashes} FROM ONLY {table.name}")
    sums: list[object]
    rows, *sums = _sums(connection, name, [f'"{number}"' for number in columns])
    return Copy(table, name, int(rows), columns, dict(zip(columns, sums, strict=True)))


def drop_copy(connection: sa.Connection, copy: Copy) -> None:
    """Drop a copy."""
    _run(connection, f"DROP TABLE IF EXISTS {copy.name}")


def find_missing(connection: sa.Connection, copy: Copy, now: Table) -> Iterator[tuple[str | None, int]]:
    """Yield what a table does not give back: a column and the number of its values; None and a number of rows.

    A column of another type gives back what converts to its old type and is the same then. Reads the table
    once, and once again for each column with other values.
    """
    kept = {number: column for number, column in copy.columns.items() if number in now.columns}
    columns = [_hash(now.columns[number].quoted) for number in kept]
    sums: list[object]
    rows, *sums = _sums(connection, f"ONLY {now.name}", columns)
    if int(rows) < copy.rows:
        yield None, copy.rows - int(rows)
        return
    for (number, column), total in zip(kept.items(), sums, strict=True):
        if total != copy.sums[number] and (count := _count_missing(connection, copy, number, now)):
            yield column.name, count


def _count_missing(connection: sa.Connection, copy: Copy, number: int, now: Table) -> int:
    before, after = copy.columns[number], now.columns[number]
    expressions = [after.quoted]
    if before.type != after.type:
        expressions += [f"{after.quoted}::{before.type}", f"{after.quoted}::text::{before.type}"]
    missing: list[int] = []
    for expression in expressions:
        try:
            with connection.begin_nested():
                row = _run(
                    connection,
                    f'SELECT count(*) FROM (SELECT "{number}" FROM {copy.name} WHERE "{number}" IS NOT NULL'
                    f" EXCEPT ALL SELECT {_hash(expression)} FROM ONLY {now.name}) missing",
                ).one()
                missing.append(int(row[0]))
        except DBAPIError:  # there is no way back to the old type
            continue
        if not missing[-1]:
            break
    return min(missing)


def _hash(expression: str) -> str:
    return f"hashtextextended(({expression})::text, 0)"


def _sums(connection: sa.Connection, table: str, columns: list[str]) -> sa.Row[Any]:
    sums = "".join(f", sum({column})" for column in columns)
    return _run(connection, f"SELECT count(*){sums} FROM {table}").one()


def _run(connection: sa.Connection, sql: str) -> sa.CursorResult[Any]:
    return connection.execute(as_written(sql))
