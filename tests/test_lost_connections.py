"""Connections lost in the middle, and at COMMIT: what is said and written is what the database has done."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from checkouts import (
    ADD_COLUMN,
    INDEX,
    MIGRATE,
    Checkout,
    finish,
    in_the_way,
    rows,
    wait_until,
)
from conftest import Command, connect
from proxies import Cut, Proxy, proxied
from ragschema import migrations
from ragschema.database.options import Options
from ragschema.database.settings import Database
from ragschema.errors import DatabaseUnreachable, DriftFound, LockNotObtained, RagSchemaError
from ragschema.migrations import settlement
from ragschema.publishing import StalePlan, plan_version, publish

# a revision's own COMMIT is the one after this statement
MARK = "SELECT 'the mark'"
KEPT = "op.execute('CREATE TABLE kept (n int)')"
OUTSIDE = "with op.get_context().autocommit_block():"
MARKED = f'{ADD_COLUMN}\nop.execute("{MARK}")'


@pytest.fixture
def proxy(database: Database) -> Iterator[Proxy]:
    with proxied(database) as proxy:
        yield proxy


def cut_at_commit(proxy: Proxy, cut: Cut, *, stays_down: bool = False) -> None:
    """Cut the connection at the first COMMIT after the mark."""
    passes = proxy._passes
    marked = []

    def look(data: bytes) -> bool:
        if MARK.encode() in data:
            marked.append(data)
            proxy.arm("COMMIT", cut, stays_down=stays_down)
        return passes(data)

    proxy._passes = look  # type: ignore[method-assign]


def history(database: Database, revision: str) -> list[object]:
    with connect(database) as connection:
        return rows(
            connection,
            "SELECT succeeded, direction FROM rag_migration_history WHERE revision = %s ORDER BY id",
            revision,
        )


def test_a_commit_whose_answer_is_lost_is_no_failure(
    checkout: Checkout, database: Database, proxy: Proxy
) -> None:
    revision = checkout.add(MARKED)
    cut_at_commit(proxy, "after")
    result = migrations.upgrade(proxy.database)
    assert proxy.cuts == 1
    assert (result.current, [each.revision for each in result.applied]) == (revision, [revision])
    assert history(database, revision) == [(True, "upgrade")]
    status = migrations.status(database)
    assert (status.state, status.last_failure) == ("OK", None)


def test_what_is_left_after_a_lost_commit_is_said(
    checkout: Checkout, database: Database, proxy: Proxy
) -> None:
    first = checkout.add(MARKED)
    second = checkout.add("op.execute('SELECT 1')")
    cut_at_commit(proxy, "after")
    with pytest.raises(DatabaseUnreachable) as lost:
        migrations.upgrade(proxy.database)
    assert lost.value.exit_code == 69
    assert lost.value.message == (
        f"The run broke off after revision {first} was committed; committed in this run: {first};"
        f" not committed: {second}."
    )
    assert history(database, first) == [(True, "upgrade")]
    assert history(database, second) == []
    assert migrations.upgrade(database).current == second


def test_a_commit_that_never_arrived_is_a_failure_that_was_rolled_back(
    checkout: Checkout, database: Database, proxy: Proxy
) -> None:
    revision = checkout.add(MARKED)
    cut_at_commit(proxy, "before")
    with pytest.raises(DatabaseUnreachable) as lost:
        migrations.upgrade(proxy.database)
    assert lost.value.message == (
        f"Revision {revision} failed and was rolled back; committed in this run: nothing;"
        f" not committed: {revision}."
    )
    assert "Statement: COMMIT" in lost.value.evidence
    assert history(database, revision) == [(False, "upgrade")]
    assert migrations.upgrade(database).current == revision


def test_a_lost_commit_of_what_was_held_back_is_read_from_the_history(
    checkout: Checkout, database: Database, proxy: Proxy
) -> None:
    """The version table is past an owed revision, whether it was committed or not."""
    first = checkout.add(MARKED, deploy="contract")
    second = checkout.add(MARKED.replace("note", "another"), deploy="contract")
    assert migrations.upgrade(database, expand_only=True).owed == (first, second)
    cut_at_commit(proxy, "before")
    with pytest.raises(DatabaseUnreachable, match=f"Revision {first} failed and was rolled back"):
        migrations.upgrade(proxy.database)
    assert [each.revision for each in migrations.status(database).owed] == [first, second]
    assert history(database, first) == [(True, "defer"), (False, "upgrade")]
    with proxied(database) as another:
        cut_at_commit(another, "after")
        with pytest.raises(DatabaseUnreachable, match=f"broke off after revision {first} was committed"):
            migrations.upgrade(another.database)
    assert [each.revision for each in migrations.status(database).owed] == [second]
    assert history(database, first)[-1] == (True, "upgrade")
    with proxied(database) as third:
        cut_at_commit(third, "after")
        result = migrations.upgrade(third.database)
    assert ([each.revision for each in result.applied], result.owed) == ([second], ())


@pytest.mark.parametrize("cut", ["before", "after"])
def test_a_commit_that_nobody_can_ask_about_is_unknown(
    checkout: Checkout,
    database: Database,
    proxy: Proxy,
    cut: Cut,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(settlement, "_SETTLES_WITHIN", 0.3)
    revision = checkout.add(MARKED)
    later = checkout.add("op.execute('SELECT 1')")
    cut_at_commit(proxy, cut, stays_down=True)
    with pytest.raises(DatabaseUnreachable) as lost:
        migrations.upgrade(proxy.database)
    assert lost.value.exit_code == 69
    assert lost.value.message == (
        f"The connection was lost, and it is unknown whether revision {revision} was committed;"
        f" committed in this run: nothing; not known: {revision}; not committed: {later}."
    )
    done = [(True, "upgrade")] if cut == "after" else []
    assert history(database, revision) == done  # and no failure of it
    assert migrations.upgrade(database).current == later


def test_a_lost_commit_of_a_downgrade_and_of_a_stamp(
    checkout: Checkout, database: Database, proxy: Proxy
) -> None:
    revision = checkout.add(ADD_COLUMN, f'op.drop_column("rag_chunks", "note")\nop.execute("{MARK}")')
    migrations.upgrade(database)
    cut_at_commit(proxy, "after")
    result = migrations.downgrade(proxy.database, "-1")
    assert (result.current, result.applied[0].direction) == (checkout.base, "downgrade")
    assert history(database, revision) == [(True, "upgrade"), (True, "downgrade")]

    passes = proxy._passes

    def look(data: bytes) -> bool:
        if b"UPDATE" in data and b"rag_alembic_version" in data:
            proxy.arm("COMMIT", "after")
        return passes(data)

    proxy._passes = look  # type: ignore[method-assign]
    with connect(database) as connection:
        connection.execute("ALTER TABLE rag_chunks ADD COLUMN note text")
    assert migrations.stamp(proxy.database, revision, force=True).current == revision
    assert proxy.cuts == 2
    assert migrations.status(database).state == "OK"


def test_the_command_says_what_became_of_a_lost_commit(
    checkout: Checkout, database: Database, proxy: Proxy
) -> None:
    revision = checkout.add(MARKED)
    cut_at_commit(proxy, "after")
    result = checkout.run(*MIGRATE, database=proxy.database)
    assert result.returncode == 0, result.stderr
    assert "The connection was lost at the last COMMIT; the database says that it is done." in result.stderr
    assert f"upgrade {revision}" in result.stdout
    assert "failed" not in result.stdout + result.stderr


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_server_commits_is_no_failure(
    checkout: Checkout, database: Database, sent: signal.Signals
) -> None:
    """A deferred trigger makes the COMMIT last, and pays no heed to the cancel."""
    revision = checkout.add(
        """
        op.execute(\"\"\"CREATE FUNCTION rag_slow() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
          PERFORM pg_sleep(1.5);
          RETURN NULL;
        EXCEPTION WHEN query_canceled THEN
          RETURN NULL;
        END $$\"\"\")
        op.execute("CREATE TABLE slow (n int)")
        op.execute("CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON slow DEFERRABLE INITIALLY DEFERRED"
                   " FOR EACH ROW EXECUTE FUNCTION rag_slow()")
        op.execute("INSERT INTO slow VALUES (1)")
        """
    )
    process = checkout.start(*MIGRATE, database=database)
    with connect(database) as connection:
        committing = (
            "SELECT FROM pg_stat_activity WHERE query = 'COMMIT' AND state = 'active'"
            " AND application_name = 'ragschema migrate' AND datname = current_database()"
        )
        wait_until(lambda: rows(connection, committing), "the COMMIT to run")
    process.send_signal(sent)
    result = finish(process)
    assert result.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}[sent], result.stderr
    assert f"committed in this run: {revision}; not committed: nothing" in result.stderr
    assert history(database, revision) == [(True, "upgrade")]
    assert migrations.status(database).current == revision


def test_a_connection_lost_in_a_revision_is_69(checkout: Checkout, database: Database) -> None:
    checkout.add(f'{ADD_COLUMN}\nop.execute("SELECT pg_terminate_backend(pg_backend_pid())")')
    result = checkout.run(*MIGRATE, database=database)
    assert result.returncode == 69, result.stderr
    assert "failed and was rolled back" in result.stderr
    assert "SQLSTATE: 57P01" in result.stderr


@pytest.mark.parametrize("timeout", ["idle_in_transaction_session_timeout", "transaction_timeout"])
def test_a_session_that_the_server_ends_is_69(checkout: Checkout, database: Database, timeout: str) -> None:
    checkout.add(
        f"op.execute(\"SET LOCAL {timeout} = '100ms'\")\nimport time\ntime.sleep(0.4)\nop.execute('SELECT 1')"
    )
    with pytest.raises(DatabaseUnreachable, match="failed and was rolled back"):
        migrations.upgrade(database)
    assert migrations.status(database).current == checkout.base


def test_a_connection_lost_before_the_first_revision_is_69(
    checkout: Checkout, database: Database, proxy: Proxy
) -> None:
    checkout.add(ADD_COLUMN)
    proxy.arm("pg_get_functiondef")  # the drift check
    with pytest.raises(DatabaseUnreachable) as lost:
        migrations.upgrade(proxy.database)
    assert lost.value.message.startswith("The migration failed before its first revision; ")
    assert "the connection was lost" in lost.value.evidence


@pytest.mark.parametrize(
    ("command", "question"),
    [
        (("jobs", "stats"), "rag_jobs"),
        (("migrate", "health"), "pg_get_functiondef"),
        (("migrate", "verify"), "pg_get_functiondef"),
        (("migrate", "repair"), "indisvalid"),
        (("migrate", "history"), "rag_migration_history"),
    ],
)
def test_a_connection_lost_in_any_command_is_69_in_a_sentence(
    run: Command, proxy: Proxy, command: tuple[str, ...], question: str
) -> None:
    proxy.arm(question)
    result = run("rag", *command, DATABASE_URL=proxy.database.libpq_url())
    assert proxy.cuts == 1
    assert result.returncode == 69, result.stderr
    assert "Error: The connection to the database was lost." in result.stderr
    assert "Traceback" not in result.stderr


# locks before the first revision


LOCKED = {
    "first look": "rag_alembic_version",
    "drift check": "rag_documents",
    "precheck": "rag_jobs",
}


@pytest.mark.parametrize("table", LOCKED.values(), ids=LOCKED)
def test_a_lock_before_the_first_revision_is_75_and_is_tried_again(
    checkout: Checkout, database: Database, table: str, caplog: pytest.LogCaptureFixture
) -> None:
    precheck = """
    def precheck(connection):
        return connection.execute(sa.text("SELECT id FROM rag_jobs WHERE false")).all()
    """
    revision = checkout.add("op.execute('SELECT 1')", checks=precheck)
    quick = Options(database, lock_timeout=0.1, retries=0)
    with in_the_way(database, f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"):
        with pytest.raises(LockNotObtained) as met:
            migrations.upgrade(quick)
        assert met.value.exit_code == 75
    caplog.set_level("INFO", logger="ragschema")
    with connect(database) as holder:
        holder.execute("BEGIN")
        holder.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE".encode())
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(migrations.upgrade, Options(database, lock_timeout=0.1, retries=50))
            wait_until(lambda: "trying again" in caplog.text, "a retry")
            holder.execute("ROLLBACK")
            assert running.result().current == revision
    assert migrations.status(database).last_failure is None


def test_the_drift_check_is_made_again_after_a_lock(
    checkout: Checkout, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """A check that met a lock has not been made: the next attempt makes it."""
    checkout.add("op.execute('SELECT 1')")
    caplog.set_level("INFO", logger="ragschema")
    with connect(database) as holder, ThreadPoolExecutor(1) as pool:
        holder.execute("ALTER TABLE rag_documents ALTER COLUMN article_id DROP NOT NULL")
        holder.execute("BEGIN")
        holder.execute("LOCK TABLE rag_documents IN ACCESS EXCLUSIVE MODE")
        running = pool.submit(
            migrations.upgrade, Options(database, lock_timeout=0.1, retries=50), check_drift="fail"
        )
        wait_until(lambda: "trying again" in caplog.text, "a retry")
        holder.execute("ROLLBACK")
        with pytest.raises(DriftFound, match="1 object differs"):
            running.result()


def test_every_look_that_meets_a_lock_is_75(database: Database) -> None:
    quick = Options(database, lock_timeout=0.1)
    with in_the_way(database, "LOCK TABLE rag_alembic_version, rag_documents IN ACCESS EXCLUSIVE MODE"):
        for look in (
            lambda: migrations.status(quick),
            lambda: migrations.verify(quick),
            lambda: migrations.history(quick),
            lambda: migrations.plan(quick),
            lambda: migrations.adopt(quick),
        ):
            with pytest.raises(LockNotObtained) as met:
                look()
            assert met.value.exit_code == 75


# what stays, and where it failed


def test_a_build_that_did_nothing_leaves_nothing_and_says_so(checkout: Checkout, database: Database) -> None:
    revision = checkout.add(
        f"""
        with op.get_context().autocommit_block():
            op.execute("CREATE INDEX CONCURRENTLY {INDEX} ON rag_chunks (no_such_column)")
        """
    )
    with pytest.raises(RagSchemaError, match=f"Revision {revision} failed and was rolled back; "):
        migrations.upgrade(database)


@pytest.mark.parametrize(
    "before",
    [
        f"{KEPT}\n{OUTSIDE}\n    op.execute('SELECT 1 / 0')",
        f"{OUTSIDE}\n    {KEPT}\nop.execute('SELECT 1 / 0')",
    ],
    ids=["before the block", "in the block"],
)
def test_what_was_done_outside_a_transaction_is_said_to_stay(
    checkout: Checkout, database: Database, before: str
) -> None:
    revision = checkout.add(before)
    with pytest.raises(
        RagSchemaError, match=f"Revision {revision} failed, and what it did outside a transaction stays; "
    ):
        migrations.upgrade(database)
    with connect(database) as connection:
        assert rows(connection, "SELECT to_regclass('kept')::text") == ["kept"]


def test_the_place_that_is_named_is_in_the_revision(checkout: Checkout, database: Database) -> None:
    """The path of a Python that pyenv installed has a directory versions/ too."""
    revision = checkout.add(
        """
        from concurrent.futures import ThreadPoolExecutor
        with ThreadPoolExecutor(1) as pool:
            pool.submit(int, "none").result()
        """
    )
    with pytest.raises(RagSchemaError) as failed:
        migrations.upgrade(database)
    (place,) = [line for line in failed.value.evidence.splitlines() if line.startswith("At: ")]
    assert str(checkout.file(revision)) in place
    assert 'pool.submit(int, "none").result()' in place


def test_a_password_in_a_statement_is_not_shown(checkout: Checkout, database: Database) -> None:
    checkout.add("op.execute(\"CREATE ROLE postgres PASSWORD 'zq7sesame'\")")
    with pytest.raises(RagSchemaError) as failed:
        migrations.upgrade(database)
    assert "Statement: CREATE ROLE postgres PASSWORD ***" in failed.value.evidence
    assert "zq7sesame" not in str(failed.value)
    failure = migrations.status(database).last_failure
    assert failure is not None
    assert "zq7sesame" not in str(failure)


# a service that publishes


def test_a_publication_whose_commit_is_lost_is_published_once(database: Database, proxy: Proxy) -> None:
    """docs/ingest.md: plan again, and the plan says that it is up to date."""

    def plan(session: Session) -> object:
        return plan_version(
            session, "cats", ["Cats purr."], source_hash="1", chunker_version="1", embedder_version="1"
        )

    engine = sa.create_engine(proxy.database.url())
    with Session(engine) as session:
        first = plan(session)
        session.rollback()
    with Session(engine) as session:
        publish(session, first, [None])  # type: ignore[arg-type]
        proxy.arm("COMMIT", "after")
        with pytest.raises(sa.exc.OperationalError):
            session.commit()
    assert proxy.cuts == 1
    with Session(engine) as session:
        again = plan(session)
        assert again.is_up_to_date  # type: ignore[attr-defined]
    with Session(engine) as session, pytest.raises(StalePlan):
        publish(session, first, [None])  # type: ignore[arg-type]
    engine.dispose()
    with connect(database) as connection:
        assert rows(connection, "SELECT count(*) FROM rag_document_versions") == [1]
