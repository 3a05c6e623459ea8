"""Filling in the rows that are there: small batches with commits of their own, which hold nobody up."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from ragschema.operations_v1.statements import (
    OperationRefused,
    comment,
    escape,
    is_offline,
    outside_transaction,
    quote,
    read,
    run,
)

log = logging.getLogger("ragschema.backfill")

_PASSES = 5  # over the table, while rows that match keep being written
_REPORT_EVERY = 10.0  # seconds between lines of progress


def backfill(
    table: str, set_: str, where: str, *, key: str = "id", batch_size: int = 1000, pause: float = 0.0
) -> None:
    """Update the rows that match, in batches in the order of their key. Commits after every batch.

    ``set_`` should make ``where`` false of a row: then what an interrupted run has done is not done again,
    and rows written meanwhile are found too. If it does not, a run still updates each row once only.

    A batch passes over rows that others have locked, so that it never waits while it holds locks itself;
    those are waited for at the end, one at a time. Progress goes to the logger ``ragschema.backfill``, at
    INFO now and then and at DEBUG for every batch, with ``table``, ``done`` and ``total`` in the record.
    Offline it is one UPDATE.

    Args:
        table: The table.
        set_: What follows SET, in SQL: ``"title = 'untitled', url = NULL"``.
        where: Which rows, in SQL.
        key: A column with a unique index, NOT NULL, of a type that comes with PostgreSQL.
        batch_size: Rows in a batch.
        pause: Seconds between batches.

    Raises:
        OperationRefused: The key is not unique, or rows that match keep being written.
    """
    rows = _Rows(quote(table), set_, where, quote(key), batch_size)
    if is_offline():
        comment(
            "Offline this is one UPDATE, which keeps its row locks to the end; online it goes in batches."
        )
        with outside_transaction():
            run(f"UPDATE {rows.table} SET {set_} WHERE {where}")
        return
    _check_key(table, key)
    progress = _Progress(table)
    # with sorting off, a batch reads the index on the key from where the last one ended, never the table
    with outside_transaction(enable_sort="off"):
        for _ in range(_PASSES):
            progress.total = progress.done + _count(rows)
            if progress.done == progress.total:
                log.info("Backfill of %s: nothing left to do.", table)
                return
            if _update_all(rows, progress, pause):
                log.warning("Backfill of %s: updated rows still match, so a rerun updates them again.", table)
                return
        if left := _count(rows):
            raise OperationRefused(
                f"After {_PASSES} passes {left} rows of {table} match: they are being written meanwhile.",
                "What was updated is committed. Stop what writes such rows.",
                f"rows that match: {where}",
            )


@dataclass(frozen=True)
class _Rows:
    """Which rows to update, and how; names are quoted."""

    table: str
    set_: str
    where: str
    key: str
    batch_size: int


@dataclass
class _Progress:
    table: str
    total: int = 0
    done: int = 0
    started: float = field(default_factory=time.monotonic)
    reported: float = field(default_factory=time.monotonic)

    def add(self, count: int) -> None:
        """Count rows as done, and report."""
        self.done += count
        now = time.monotonic()
        is_due = now - self.reported >= _REPORT_EVERY or self.done >= self.total
        self.reported = now if is_due else self.reported
        left = (now - self.started) / max(self.done, 1) * max(self.total - self.done, 0)
        log.log(
            logging.INFO if is_due else logging.DEBUG,
            "Backfill of %s: %d of about %d rows, %.0f s to go.",
            self.table,
            self.done,
            self.total,
            left,
            extra={"table": self.table, "done": self.done, "total": self.total},
        )


def _count(rows: _Rows) -> int:
    return int(read(f"SELECT count(*) FROM {rows.table} WHERE {escape(rows.where)}").scalar_one())


def _update_all(rows: _Rows, progress: _Progress, pause: float) -> int:
    """Update every row that matches, once; return how many match even after it."""
    still_matching = 0
    locked: list[object] = []

    def finish(batch: sa.Row[Any]) -> None:
        nonlocal still_matching
        still_matching += batch.still_matching
        updated = set(batch.updated)
        locked.extend(key for key in batch.candidates if key not in updated)
        progress.add(len(updated))
        time.sleep(pause)

    batch = _update_batch(rows, "")
    while batch.candidates:
        finish(batch)
        batch = _update_batch(rows, f"AND {rows.key} > :last", last=batch.candidates[-1])
    while locked:
        log.info("Backfill of %s: waiting for %d rows that others have locked.", progress.table, len(locked))
        first, *rest = locked
        locked.clear()
        finish(read(_fill_in(rows, _WAIT_FOR_ONE), key=first).one())
        for start in range(0, len(rest), rows.batch_size):
            keys = rest[start : start + rows.batch_size]
            finish(_update_batch(rows, f"AND {rows.key} = ANY(:keys)", keys=keys))
    return still_matching


# The rows that match, and those of them that nobody has locked. The keys go from step to step as an array:
# that keeps the index on the key in use, where a join of many would read the whole table.
_BATCH = """
WITH backfill_candidates AS MATERIALIZED (
  SELECT {key} AS backfill_key FROM {table} WHERE ({where}) {bound} ORDER BY {key} LIMIT {batch_size}
), backfill_unlocked AS MATERIALIZED (
  SELECT {key} AS backfill_key FROM {table}
  WHERE {key} = ANY (ARRAY(SELECT backfill_key FROM backfill_candidates)) AND ({where})
  FOR NO KEY UPDATE SKIP LOCKED
), backfill_updated AS (
  UPDATE {table} SET {set_} WHERE {key} = ANY (ARRAY(SELECT backfill_key FROM backfill_unlocked))
  RETURNING {key} AS backfill_key, ({where}) AS still_matches
)
SELECT ARRAY(SELECT backfill_key FROM backfill_candidates ORDER BY backfill_key) AS candidates,
       ARRAY(SELECT backfill_key FROM backfill_updated) AS updated,
       (SELECT count(*) FROM backfill_updated WHERE still_matches) AS still_matching
"""

_WAIT_FOR_ONE = """
WITH backfill_updated AS (
  UPDATE {table} SET {set_} WHERE {key} = :key AND ({where})
  RETURNING {key} AS backfill_key, ({where}) AS still_matches
)
SELECT ARRAY(SELECT backfill_key FROM backfill_updated) AS candidates,
       ARRAY(SELECT backfill_key FROM backfill_updated) AS updated,
       (SELECT count(*) FROM backfill_updated WHERE still_matches) AS still_matching
"""


def _update_batch(rows: _Rows, bound: str, **parameters: object) -> sa.Row[Any]:
    return read(_fill_in(rows, _BATCH, bound), **parameters).one()


def _fill_in(rows: _Rows, template: str, bound: str = "") -> str:
    return template.format(
        table=rows.table,
        key=rows.key,
        set_=escape(rows.set_),
        where=escape(rows.where),
        bound=bound,
        batch_size=rows.batch_size,
    )


_IS_UNIQUE = """
SELECT count(*) FROM pg_index i
JOIN pg_class c ON c.oid = i.indrelid
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.indkey[0]
WHERE c.relname = :table AND a.attname = :column AND a.attnotnull
AND c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = current_schema())
AND i.indisunique AND i.indisvalid AND i.indnkeyatts = 1 AND i.indpred IS NULL
"""


def _check_key(table: str, key: str) -> None:
    if not read(_IS_UNIQUE, table=table, column=key).scalar_one():
        raise OperationRefused(
            f"No unique index says that {key} tells the rows of {table} apart.",
            "Give a NOT NULL column with a unique index as the key of the backfill.",
        )
