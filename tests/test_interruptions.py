"""Migrations that are killed, terminated or cancelled in the middle of a concurrent index build."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from checkouts import (
    ALEMBIC,
    CONCURRENT_INDEX,
    INDEX,
    MIGRATE,
    Checkout,
    build_held_up,
    finish,
    invalid_indexes,
    made_role,
    rows,
    wait_for_build,
    wait_until,
)
from conftest import connect
from forks import Fork
from ragschema import migrations
from ragschema.database.settings import Database
from ragschema.errors import RagSchemaError
from ragschema.migrations.deployer_lock import deployer_lock_key

BOTH = pytest.mark.parametrize("command", [MIGRATE, ALEMBIC], ids=["rag", "alembic"])
ELSEWHERE = 'op.add_column("rag_jobs", sa.Column("note", sa.Text()))'
PLAIN_INDEX = f"""
with op.get_context().autocommit_block():
    op.create_index("{INDEX}", "rag_chunks", ["created_at"], postgresql_concurrently=True)
"""


@contextmanager
def building(checkout: Checkout, database: Database, command: tuple[str, ...]) -> Iterator[tuple[Fork, int]]:
    """Run a command until its concurrent build waits for a writer; yield the process and its backend."""
    with build_held_up(database), checkout.start(*command, database=database) as process:
        try:
            yield process, wait_for_build(database)
        finally:
            process.kill()


def assert_heals(checkout: Checkout, database: Database, revision: str) -> None:
    """The left-over is reported; the next run drops and builds it anew, and reaches the revision."""
    status = migrations.status(database)
    assert status.current != revision
    assert status.invalid_indexes == (INDEX,)
    result = checkout.run(*MIGRATE, database=database)
    assert result.returncode == 0, result.stderr
    status = migrations.status(database)
    assert (status.state, status.invalid_indexes) == ("OK", ())
    with connect(database) as connection:
        assert invalid_indexes(connection) == []


@BOTH
def test_after_kill_9_nobody_starts_before_the_backend_is_gone_and_the_next_run_heals(
    checkout: Checkout, database: Database, command: tuple[str, ...]
) -> None:
    checkout.add(ELSEWHERE)
    revision = checkout.add(CONCURRENT_INDEX)
    key = deployer_lock_key("public")
    with connect(database) as connection:  # the embedded server looks for its clients by itself
        name = database.parameters["dbname"]
        connection.execute(f"ALTER DATABASE {name} SET client_connection_check_interval = 0".encode())
    with connect(database) as connection, building(checkout, database, command) as (process, pid):

        def has_obtained_lock() -> bool:
            obtained = rows(connection, "SELECT pg_try_advisory_lock(%s)", key) == [True]
            is_building = rows(connection, "SELECT FROM pg_stat_progress_create_index WHERE pid = %s", pid)
            assert not (obtained and is_building), "another deployer may start while the server still builds"
            return obtained

        assert not has_obtained_lock()
        process.kill()
        finish(process)
        wait_until(has_obtained_lock, "the lock of the killed deployer")
        alive = "SELECT FROM pg_stat_activity WHERE pid = %s"
        wait_until(lambda: not rows(connection, alive, pid), "the end of the backend")
        connection.execute("SELECT pg_advisory_unlock_all()")
    assert_heals(checkout, database, revision)


@pytest.mark.parametrize(
    ("command", "build", "sent", "code", "said"),
    [
        (MIGRATE, CONCURRENT_INDEX, signal.SIGTERM, 143, "SIGTERM"),
        (ALEMBIC, CONCURRENT_INDEX, signal.SIGINT, 130, "Ctrl-C"),
        (MIGRATE, PLAIN_INDEX, signal.SIGINT, 130, "Ctrl-C"),
        (ALEMBIC, PLAIN_INDEX, signal.SIGTERM, 143, "SIGTERM"),
    ],
    ids=["rag, helper", "alembic, helper", "rag, plain", "alembic, plain"],
)
def test_a_signal_cancels_the_build_and_says_what_to_run_next(
    checkout: Checkout,
    database: Database,
    command: tuple[str, ...],
    build: str,
    sent: signal.Signals,
    code: int,
    said: str,
) -> None:
    first = checkout.add(ELSEWHERE)
    revision = checkout.add(build)
    with connect(database) as connection, building(checkout, database, command) as (process, pid):
        process.send_signal(sent)
        result = finish(process)
        assert result.returncode == code
        wait_until(
            lambda: rows(connection, "SELECT FROM pg_stat_activity WHERE pid = %s", pid) == [],
            "the end of the backend",
        )
    assert "Traceback" not in result.stderr
    assert (
        f"Interrupted: the running statement was cancelled; committed in this run: {first};"
        f" not committed: {revision}. Run the same command again to go on; " in result.stderr
    )
    failure = migrations.status(database).last_failure
    assert failure is not None
    assert (failure.revision, failure.error) == (revision, f"interrupted by {said}")
    if build == CONCURRENT_INDEX:
        assert_heals(checkout, database, revision)


def test_a_signal_ends_the_wait_for_another_deployer(checkout: Checkout, database: Database) -> None:
    checkout.add(ELSEWHERE)
    with connect(database) as holder:
        holder.execute("SELECT pg_advisory_lock(%s)", (deployer_lock_key("public"),))
        process = checkout.start(*MIGRATE, database=database)
        assert process.stderr is not None
        assert any("Waiting for another deployer" in line for line in process.stderr)
        process.terminate()
        result = finish(process)
    assert result.returncode == 143
    assert "committed in this run: nothing; not committed: nothing" in result.stderr


def test_a_cancelled_build_is_a_failure_and_the_next_run_heals(
    checkout: Checkout, database: Database
) -> None:
    revision = checkout.add(CONCURRENT_INDEX)
    with connect(database) as connection, building(checkout, database, MIGRATE) as (process, pid):
        connection.execute("SELECT pg_cancel_backend(%s)", (pid,))
        result = finish(process)
    assert result.returncode == 1
    error = result.stderr[result.stderr.index("Error: ") :]
    assert f"Revision {revision} failed, and what it did outside a transaction stays; " in error
    assert "SQLSTATE: 57014" in error
    assert f"Statement: CREATE INDEX CONCURRENTLY {INDEX} ON rag_chunks (created_at)" in error
    failure = migrations.status(database).last_failure
    assert failure is not None
    assert failure.error == "canceling statement due to user request"
    assert_heals(checkout, database, revision)


def test_an_index_that_another_session_builds_is_neither_reported_nor_touched(
    checkout: Checkout, database: Database
) -> None:
    revision = checkout.add(CONCURRENT_INDEX)
    oid = f"SELECT '{INDEX}'::regclass::oid::int"
    with (
        connect(database) as connection,
        connect(database) as builder,
        made_role(database, "GRANT SELECT ON ALL TABLES IN SCHEMA public TO _role_") as other_role,
        ThreadPoolExecutor(1) as pool,
    ):
        with build_held_up(database):
            build = pool.submit(
                builder.execute, f"CREATE INDEX CONCURRENTLY {INDEX} ON rag_chunks (created_at)"
            )
            wait_for_build(database)
            assert invalid_indexes(connection) == [INDEX]
            assert migrations.status(database).invalid_indexes == ()
            assert migrations.status(other_role).invalid_indexes == ()  # to which the build is hidden
            with pytest.raises(RagSchemaError, match=f"Revision {revision} was stopped") as stopped:
                migrations.upgrade(database)
            assert "Another session is building index" in stopped.value.message
        build.result()
        built = rows(connection, oid)
        assert migrations.upgrade(database).current == revision
        assert rows(connection, oid) == built


def test_an_interrupted_transaction_leaves_nothing(checkout: Checkout, database: Database) -> None:
    checkout.add("op.execute('CREATE TABLE rag_seen (n int)')\nop.execute('SELECT pg_sleep(600)')")
    with connect(database) as connection:
        process = checkout.start(*MIGRATE, database=database)
        sleeping = "SELECT FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600)' AND datname = current_database()"
        wait_until(lambda: rows(connection, sleeping), "the revision to run")
        process.terminate()
        result = finish(process)
        assert result.returncode == 143
        wait_until(lambda: not rows(connection, sleeping), "the end of the statement")
        assert rows(connection, "SELECT to_regclass('rag_seen')::text") == [None]
    assert migrations.status(database).current == checkout.base


def test_an_interruption_between_a_statement_and_its_answer_is_one_too(
    checkout: Checkout, database: Database
) -> None:
    """Then the connection can roll nothing back, which is not to be taken for a lost one."""
    checkout.add(ELSEWHERE)
    checkout.add(
        "op.execute('CREATE TABLE rag_seen (n int)')\n"
        "op.get_bind().connection.driver_connection.pgconn.send_query(b'SELECT pg_sleep(600)')\n"
        "raise KeyboardInterrupt"
    )
    result = checkout.run(*MIGRATE, database=database)
    assert result.returncode == 130, result.stderr
    assert "Interrupted" in result.stderr
    assert "Traceback" not in result.stderr
    with connect(database) as connection:
        assert rows(connection, "SELECT to_regclass('rag_seen')") == [None]
