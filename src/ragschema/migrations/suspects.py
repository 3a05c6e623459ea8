"""Suspects: what a transaction has done to tables that may be a loss, and must be known of the tables as they were."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import sqlalchemy as sa

from ragschema.migrations.table_snapshots import Table, Touched
from ragschema.planning.losses import Destroyed, count
from ragschema.sql.losses import Loss


@dataclass(frozen=True)
class Suspect:
    """What may be a loss.

    Attributes:
        kind: ``table`` or ``column``: it is gone; ``file``: the table has another file, after a TRUNCATE or a rewrite;
            ``other``: the table is of another schema, and was not looked at before.
        oid: The table.
        column: The number of the column.
    """

    kind: Literal["table", "column", "file", "other"]
    oid: int
    column: int = 0


def find_told(losses: Iterable[Loss], tables: Collection[Table], schema: str) -> Iterator[Suspect]:
    """Yield what a text tells of tables that exist; what it does not name more closely is of ``schema``."""
    for loss in losses:
        of_schema = loss.name if loss.kind == "schema" else loss.schema or schema
        for table in (table for table in tables if table.schema == of_schema):
            if loss.kind == "schema":
                yield Suspect("table", table.oid)
            elif loss.name != table.relation:
                continue
            elif loss.kind == "table":
                yield Suspect("table", table.oid)
            elif loss.kind in ("all rows", "values"):
                yield Suspect("file", table.oid)
            elif loss.kind == "column":
                numbers = (number for number, column in table.columns.items() if column.name == loss.column)
                yield from (Suspect("column", table.oid, number) for number in numbers)


def compare(before: Table, now: Table | None, derived: Collection[str]) -> Iterator[Suspect]:
    """Yield what a table lacks now; but for the columns that are derived, ``table.column``."""
    if now is None:
        yield Suspect("table", before.oid)
        return
    for number in before.columns.keys() - now.columns.keys():
        if f"{before.label}.{before.columns[number].name}" not in derived:
            yield Suspect("column", before.oid, number)
    if before.file != now.file:
        yield Suspect("file", before.oid)


def is_unknown_table(touched: Touched, schema: str) -> bool:
    """Whether what was not looked at before may be a table that lost something: if it is new, is for others to tell."""
    table = touched.table
    if table is None:
        return True
    has_no_rows = table.is_temporary or table.kind not in ("r", "p")
    # Citus notes in tables of pg_catalog what is where: a function that is dropped is a row there
    is_told = table.schema in (schema, "pg_catalog")
    return not (is_told or has_no_rows) and (touched.is_altered or table.deleted > 0)


def count_dropped(
    connection: sa.Connection, suspects: Iterable[Suspect], tables: Mapping[int, Table], how: str
) -> list[Destroyed]:
    """Count the rows of tables and the values of columns that go, in tables as they are before that."""
    found = []
    for each in sorted(suspects, key=lambda each: (each.kind != "table", each.oid, each.column)):
        if each.kind in ("table", "column") and (table := tables.get(each.oid)):
            column = table.columns[each.column].name if each.kind == "column" else None
            found.append(count(connection, f"ONLY {table.name}", column, table.label, how))
    return [each for each in found if each.count or each.error]
