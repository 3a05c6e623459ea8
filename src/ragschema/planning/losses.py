"""Losses of a step: the rows and values that its text says it destroys, counted in a database."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from alembic.runtime.migration import RevisionStep
from alembic.script import Script
from sqlalchemy.exc import DBAPIError

from ragschema.database.drivers import as_written
from ragschema.database.server import BOOKKEEPING
from ragschema.database.sqlstates import is_lock_conflict, server_message
from ragschema.planning.table_sizes import WRITING_FUNCTIONS
from ragschema.revisions.manifest import Direction
from ragschema.revisions.offline import read_sql
from ragschema.revisions.scripts import script_checksum
from ragschema.sql.losses import Loss, find_losses
from ragschema.words import counted

_SHOWN = 100  # characters of a statement that are shown

_read: dict[tuple[str, Direction], Sequence[StepLoss]] = {}  # by the file's checksum: once a process


@dataclass(frozen=True)
class StepLoss:
    """What a revision's step may destroy, as its text tells.

    Attributes:
        revision: The revision whose step it is.
        loss: What it may destroy.
        sql: The statement.
        is_autocommit: Whether it stands in an autocommit block, and cannot be rolled back.
    """

    revision: str
    loss: Loss
    sql: str
    is_autocommit: bool


@dataclass(frozen=True)
class Destroyed:
    """Rows of a table, or values of a column, that a step destroys.

    Attributes:
        count: How many; values are those that are neither NULL nor the column's default.
        table: The table.
        column: The column, None where whole rows go.
        how: What becomes of them: ``dropped by revision 20251225160000``.
        error: Why they could not be counted.
    """

    count: int
    table: str
    column: str | None
    how: str
    error: str = ""

    @property
    def what(self) -> str:
        """What it is: ``2 rows of rag_jobs``."""
        noun = "row" if self.column is None else "value"
        name = self.table if self.column is None else f"{self.table}.{self.column}"
        if self.error:
            return f"all {noun}s of {name}, which could not be counted: {self.error}"
        return f"{counted(self.count, noun)} of {name}"

    def __str__(self) -> str:
        return f"{self.what} ({self.how})"


def read_losses(steps: Iterable[object]) -> dict[tuple[str, Direction], Sequence[StepLoss]]:
    """Read what Alembic's steps may destroy, by revision and direction.

    Takes Alembic's ``op``: call it before the environment runs.
    """
    revisions = [step for step in steps if isinstance(step, RevisionStep)]
    directions: list[Direction] = ["upgrade" if step.is_upgrade else "downgrade" for step in revisions]
    return {
        (step.revision.revision, direction): read_losses_of(step.revision, direction)
        for step, direction in zip(revisions, directions, strict=True)
    }


def read_losses_of(script: Script, direction: Direction) -> Sequence[StepLoss]:
    """Read what a revision's step may destroy, from its SQL, as far as it goes without a database.

    Left out are the columns that a revision lists as ``DERIVED``, ``table.column``: it computes them from others.
    """
    key = (script_checksum(script), direction)
    if key not in _read:
        derived = getattr(script.module, "DERIVED", ())
        _read[key] = [
            StepLoss(script.revision, loss, statement.sql, statement.is_autocommit)
            for statement in read_sql(script, direction).statements
            for loss in find_losses(statement.sql)
            if f"{loss.name}.{loss.column}" not in derived
        ]
    return _read[key]


def count_losses(connection: sa.Connection, losses: Iterable[StepLoss]) -> list[Destroyed]:
    """Count what is sure to be destroyed in a database: by DROP and TRUNCATE; the rest only running tells.

    Takes ACCESS SHARE on the tables, and reads them whole. The first schema of the connection's search_path
    must be the one that is migrated.
    """
    found = []
    for each in losses:
        loss, how = each.loss, f"dropped by revision {each.revision}"
        if loss.kind == "schema":
            tables = _tables_of(connection, loss.name)
            found += [count(connection, table, None, table, how) for table in tables]
        elif loss.kind in ("table", "column", "all rows") and (table := find_table(connection, loss)):
            how = how.replace("dropped", "truncated") if loss.kind == "all rows" else how
            found.append(count(connection, table, loss.column, loss.name, how))
    return [each for each in dict.fromkeys(found) if each.count or each.error]


def count_risked(connection: sa.Connection, loss: Loss) -> Destroyed | None:
    """Count the rows of which some may be deleted, or the values that a new type may cut; None for other losses."""
    if loss.kind not in ("rows", "values") or not (table := find_table(connection, loss)):
        return None
    found = count(connection, table, loss.column, loss.name, "at risk")
    return found if found.count or found.error else None


def find_irreversible(connection: sa.Connection, losses: Iterable[StepLoss]) -> list[str]:
    """Find what may be destroyed in autocommit blocks, where nothing can be rolled back; say each on a line.

    What is dropped there counts even where it is empty: a writer may still fill it while the drop waits.
    """
    found = []
    for each in filter(lambda each: each.is_autocommit, losses):
        loss = each.loss
        if loss.kind in ("call", "unknown", "schema"):
            writes = loss.kind != "call" or _writes(connection, loss.name)
            tables = _tables_of(connection) if writes else []
            rows, what = sum(_count_all(connection, table) for table in tables), "all tables"
        elif table := find_table(connection, loss):
            rows = _count_all(connection, table)
            what = loss.name if loss.column is None else f"{loss.name}, with {loss.name}.{loss.column}"
        else:
            continue
        if rows or loss.kind not in ("call", "unknown", "rows"):
            place = f"in an autocommit block of revision {each.revision}"
            found.append(f"up to {counted(rows, 'row')} of {what}, by {_shorten(each.sql)} ({place})")
    return list(dict.fromkeys(found))


def find_table(connection: sa.Connection, loss: Loss) -> str | None:
    """Return the quoted name of a loss's table, None where there is none, or not with its column."""
    name = _quote(loss.schema, loss.name) if loss.schema else _quote(loss.name)
    found = connection.scalar(
        sa.text(
            "SELECT CAST(to_regclass(:name) AS text) FROM pg_class WHERE oid = to_regclass(:name)"
            " AND relkind IN ('r', 'p') AND relpersistence <> 't' AND (CAST(:column AS text) IS NULL"
            " OR EXISTS (SELECT FROM pg_attribute WHERE attrelid = pg_class.oid AND attname = :column"
            " AND NOT attisdropped))"
        ),
        {"name": name, "column": loss.column},
    )
    return None if found is None else str(found)


def count(connection: sa.Connection, table: str, column: str | None, name: str, how: str) -> Destroyed:
    """Count rows of a table, or a column's values that are neither NULL, its default nor computed.

    Args:
        connection: A connection.
        table: The table, quoted; it may have ONLY before it.
        column: The column.
        name: What to call the table.
        how: What becomes of the rows.
    """
    try:
        with connection.begin_nested():
            found = (
                _count_all(connection, table) if column is None else _count_values(connection, table, column)
            )
            return Destroyed(found, name, column, how)
    except DBAPIError as exc:
        if is_lock_conflict(exc):
            raise
        return Destroyed(0, name, column, how, server_message(exc))


def _count_all(connection: sa.Connection, table: str) -> int:
    return connection.scalar(as_written(f"SELECT count(*) FROM {table}")) or 0


def _count_values(connection: sa.Connection, table: str, column: str) -> int:
    generated, default = connection.execute(
        sa.text(
            "SELECT a.attgenerated <> '', pg_get_expr(d.adbin, d.adrelid) FROM pg_attribute a"
            " LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum"
            " WHERE a.attrelid = CAST(:table AS regclass) AND a.attname = :column"
        ),
        {"table": table.removeprefix("ONLY "), "column": column},
    ).one()
    if generated:
        return 0
    name = _quote(column)
    where = "" if default is None or "nextval(" in default else f" WHERE {name} IS DISTINCT FROM {default}"
    return connection.scalar(as_written(f"SELECT count({name}) FROM {table}{where}")) or 0


def _tables_of(connection: sa.Connection, schema: str | None = None) -> list[str]:
    """Return the tables of a schema, by default of the one that is migrated; their names are quoted."""
    statement = sa.text(
        "SELECT CAST(CAST(oid AS regclass) AS text) FROM pg_class WHERE relkind IN ('r', 'p')"
        " AND relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = coalesce(:schema, current_schema()))"
        " AND NOT relispartition AND NOT relname = ANY (:others) ORDER BY relname"
    )
    return list(connection.scalars(statement, {"schema": schema, "others": list(BOOKKEEPING)}))


def _writes(connection: sa.Connection, function: str) -> bool:
    statement = sa.text(f"{WRITING_FUNCTIONS} AND p.proname = :function LIMIT 1")
    return connection.scalar(statement, {"function": function}) is not None


def _quote(*names: str) -> str:
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)


def _shorten(sql: str) -> str:
    line = " ".join(sql.split())
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}..."
