"""Losses of a step that destroys: the rows of the tables and the values of the columns that it drops."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from io import StringIO

import sqlalchemy as sa
from alembic.script import Script, ScriptDirectory

from ragschema.revisions.manifest import DIRECTIONS, Direction
from ragschema.revisions.scripts import offline_sql

_NAME = r'("(?:[^"]|"")+"|[a-z_][a-z0-9_$]*)'
_DROP = re.compile(
    rf"\bDROP TABLE (?:IF EXISTS )?{_NAME}"
    rf"|\bALTER TABLE (?:IF EXISTS )?(?:ONLY )?{_NAME} DROP COLUMN (?:IF EXISTS )?{_NAME}",
    re.I,
)


@dataclass(frozen=True)
class Drop:
    """A table, or a column of one, that a revision's step drops.

    Attributes:
        revision: The revision whose step it is.
        table: The table's name, without its schema.
        column: The column's name, or None where the whole table goes.
    """

    revision: str
    table: str
    column: str | None


@dataclass(frozen=True)
class Loss:
    """What a drop destroys: rows of the table, or values of the column, neither NULL nor its default."""

    drop: Drop
    count: int

    def __str__(self) -> str:
        table, column = self.drop.table, self.drop.column
        what = f"rows of {table}" if column is None else f"values of {table}.{column}"
        return f"{self.count} {what} (dropped by revision {self.drop.revision})"


def find_drops(scripts: ScriptDirectory) -> Mapping[tuple[str, Direction], list[Drop]]:
    """Find what the revisions drop, each in both directions, by reading their SQL.

    Needs no database. Call it before the environment runs: reading a revision's SQL takes alembic's ``op``.
    Left out are the columns that a revision lists as ``DERIVED``, ``table.column``: it computes them from others.
    """
    return {
        (script.revision, direction): list(_drops(script, direction))
        for script in scripts.walk_revisions()
        for direction in DIRECTIONS
    }


def _drops(script: Script, direction: Direction) -> Iterator[Drop]:
    derived = getattr(script.module, "DERIVED", ())
    for match in _DROP.finditer(_read_sql(script, direction)):
        table, column = _unquote(match[1] or match[2]), match[3] and _unquote(match[3])
        if f"{table}.{column}" not in derived:
            yield Drop(script.revision, table, column)


def _read_sql(script: Script, direction: Direction) -> str:
    """Return a step's SQL as far as it goes: a downgrade may raise, to say what to do instead."""
    output = StringIO()
    with suppress(Exception):
        offline_sql(script, direction, output)
    return output.getvalue()


def count_losses(connection: sa.Connection, drops: Iterable[Drop]) -> list[Loss]:
    """Count what drops would destroy in a database; those that destroy nothing are left out.

    Takes ACCESS SHARE on the tables, and reads them whole. The first schema of the connection's search_path
    must be the one the drops happen in.
    """
    losses = [Loss(drop, _count(connection, drop)) for drop in drops if _exists(connection, drop)]
    return [loss for loss in losses if loss.count]


def lock_tables(connection: sa.Connection, drops: Iterable[Drop]) -> None:
    """Take ACCESS EXCLUSIVE on the tables that drops concern, so that no row can come before them."""
    for drop in drops:
        if _exists(connection, drop):
            name = connection.dialect.identifier_preparer.quote(drop.table)
            connection.execute(sa.text(f"LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE"))


def _exists(connection: sa.Connection, drop: Drop) -> bool:
    statement = sa.text(
        "SELECT EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass(quote_ident(:table))"
        " AND NOT attisdropped AND (attname = :column OR :column IS NULL))"
    ).bindparams(sa.bindparam("table", drop.table), sa.bindparam("column", drop.column, sa.Text()))
    return bool(connection.scalar(statement))


def _count(connection: sa.Connection, drop: Drop) -> int:
    columns: list[sa.ColumnClause[object]] = [sa.column(drop.column)] if drop.column else []
    table = sa.table(drop.table, *columns)
    statement = sa.select(sa.func.count(*columns)).select_from(table)
    for column in columns:
        default = connection.scalar(_DEFAULT, {"table": drop.table, "column": column.name})
        if default is not None:
            statement = statement.where(column.is_distinct_from(sa.literal_column(default)))
    return connection.scalar(statement) or 0


_DEFAULT = sa.text(
    "SELECT pg_get_expr(d.adbin, d.adrelid) FROM pg_attribute a"
    " JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum"
    " WHERE a.attrelid = to_regclass(quote_ident(:table)) AND a.attname = :column AND a.attgenerated = ''"
)


def _unquote(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name.lower()
