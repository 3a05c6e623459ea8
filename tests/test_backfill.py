"""Backfill: in batches, resumed, and no row missed or updated twice."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
import pytest

from added_revisions import Revisions, in_background, make_revisions, wait_for
from conftest import connect, run_psql
from ragschema.errors import RagSchemaError

revisions = pytest.fixture(make_revisions)


ROWS = 20_000
FILL = 'operations.backfill("things", "b = \'filled\', n = n + 1", "b IS NULL", batch_size=1000)'
COUNTS = "SELECT string_agg(DISTINCT b || ' ' || n, ', ') || ': ' || count(b) FROM things"


class Progress(logging.Handler):
    """Collects a backfill's records, and does something at each batch."""

    def __init__(self, at_batch: Callable[[int], object] = lambda done: None) -> None:
        super().__init__(logging.DEBUG)
        self.at_batch = at_batch
        self.messages: list[str] = []
        self.done: list[int] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())
        if (done := getattr(record, "done", None)) is not None:
            self.done.append(done)
            self.at_batch(done)


@contextmanager
def progress_of(at_batch: Callable[[int], object] = lambda done: None) -> Iterator[Progress]:
    logger, progress = logging.getLogger("ragschema.backfill"), Progress(at_batch)
    level = logger.level
    logger.addHandler(progress)
    logger.setLevel(logging.DEBUG)
    try:
        yield progress
    finally:
        logger.removeHandler(progress)
        logger.setLevel(level)


@pytest.fixture
def unfilled(revisions: Revisions) -> Revisions:
    run_psql(
        revisions.database,
        f"TRUNCATE things RESTART IDENTITY; INSERT INTO things (a) SELECT generate_series(1, {ROWS})",
    )
    return revisions


def test_backfill_waits_at_the_end_for_rows_that_others_have_locked(unfilled: Revisions) -> None:
    unfilled.add(FILL)

    def release_when_waited_for(locker: psycopg.Connection[psycopg.rows.TupleRow]) -> None:
        waiting = (
            f"SELECT pid FROM pg_stat_activity WHERE {locker.info.backend_pid} = ANY(pg_blocking_pids(pid))"
        )
        wait_for(unfilled, waiting)
        assert unfilled.ask(COUNTS) == f"filled 1: {ROWS - 2}"
        locker.commit()

    with connect(unfilled.database) as locker, progress_of() as progress:
        locker.execute("SET idle_in_transaction_session_timeout = '20s'")  # rather a failure than a deadlock
        locker.autocommit = False
        locker.execute("SELECT FROM things WHERE id IN (1500, 7000) FOR UPDATE")
        with in_background(lambda: release_when_waited_for(locker)):
            unfilled.upgrade()
    assert unfilled.ask(COUNTS) == f"filled 1: {ROWS}"
    assert progress.done == [
        1000,
        1999,
        *range(2999, 6999, 1000),
        *range(6998, ROWS - 1, 1000),
        ROWS - 1,
        ROWS,
    ]
    assert progress.messages[0].startswith(f"Backfill of things: 1000 of about {ROWS} rows, ")
    assert "Backfill of things: waiting for 2 rows that others have locked." in progress.messages
    assert progress.messages[-1] == "Backfill of things: nothing left to do."


def test_backfill_killed_in_the_middle_goes_on_with_what_is_left(unfilled: Revisions) -> None:
    revision = unfilled.add(FILL)

    def kill(done: int) -> None:
        if done == 7000:
            unfilled.ask(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND query LIKE '%backfill_key%' AND pid <> pg_backend_pid()"
            )

    with progress_of(kill), pytest.raises(RagSchemaError, match="terminating connection"):
        unfilled.upgrade()
    assert unfilled.ask(COUNTS) == "filled 1: 7000"
    assert unfilled.current() != revision
    with progress_of() as progress:
        unfilled.upgrade()
    assert unfilled.ask(COUNTS) == f"filled 1: {ROWS}"
    assert progress.done == [*range(1000, 13001, 1000)]
    assert unfilled.current() == revision


def test_backfill_whose_rows_still_match_updates_each_once(unfilled: Revisions) -> None:
    unfilled.add('operations.backfill("things", "n = n + 1, b = \'once\'", "a > 100", batch_size=3000)')
    with progress_of() as progress:
        unfilled.upgrade()
    assert unfilled.ask(COUNTS) == f"once 1: {ROWS - 100}"
    assert progress.messages[-1] == (
        "Backfill of things: updated rows still match, so a rerun updates them again."
    )


def test_backfill_finds_rows_written_meanwhile(unfilled: Revisions) -> None:
    """Behind the place it has come to, as random keys are."""
    unfilled.add(FILL)

    def write(done: int) -> None:
        if done == 5000:
            unfilled.ask("INSERT INTO things OVERRIDING SYSTEM VALUE SELECT -i FROM generate_series(1, 7) i")

    with progress_of(write) as progress:
        unfilled.upgrade()
    assert unfilled.ask(COUNTS) == f"filled 1: {ROWS + 7}"
    assert progress.done[-2:] == [ROWS, ROWS + 7]


def test_backfill_gives_up_on_rows_that_keep_coming(revisions: Revisions) -> None:
    run_psql(revisions.database, "UPDATE things SET b = NULL")
    revision = revisions.add(FILL)

    def write(done: int) -> None:
        revisions.ask(f"INSERT INTO things OVERRIDING SYSTEM VALUE VALUES (-{done})")

    with progress_of(write), pytest.raises(RagSchemaError, match="After 5 passes 1 rows of things match"):
        revisions.upgrade()
    assert revisions.ask(COUNTS) == "filled 1: 104"
    assert revisions.current() != revision
    revisions.upgrade()
    assert revisions.ask(COUNTS) == "filled 1: 105"


def test_backfill_goes_by_a_uuid_key_and_reads_each_batch_from_the_index(revisions: Revisions) -> None:
    run_psql(
        revisions.database,
        """
        CREATE TABLE papers (id uuid PRIMARY KEY DEFAULT gen_random_uuid());
        INSERT INTO papers SELECT FROM generate_series(1, 3000);
        ANALYZE papers;
        ALTER TABLE papers ADD place int; -- of which the planner knows nothing
        """,
    )
    revisions.add('operations.backfill("papers", "place = 1", "place IS NULL", batch_size=7)')
    revisions.upgrade()
    assert revisions.ask("SELECT count(*) FROM papers WHERE place = 1") == 3000
    scans = "FROM pg_stat_user_tables WHERE relname = 'papers'"
    wait_for(revisions, f"SELECT idx_scan >= 3000 / 7 {scans}")
    counting = 9  # before and after, and not for each of the 429 batches
    assert revisions.ask(f"SELECT seq_scan < {counting} {scans}")


def test_backfill_by_a_key_that_is_not_unique_is_refused(revisions: Revisions) -> None:
    revisions.add(FILL.replace("batch_size", "key='a', batch_size"))
    with pytest.raises(RagSchemaError, match="No unique index says that a tells the rows of things apart"):
        revisions.upgrade()
