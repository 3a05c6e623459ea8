"""Tenants that get what a revision has run on two others: as if it had run on them, or by the revision itself."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from psycopg import sql

from checkouts import Checkout, finish, in_the_way, made_role, rows, use_checkout, wait_until
from conftest import connect, made_database
from ragschema import tenants
from ragschema.database.options import find_options
from ragschema.database.settings import Database
from ragschema.errors import RagSchemaError
from ragschema.migrations.replay import Replay, is_replayable
from ragschema.migrations.request import Recording
from ragschema.revisions.manifest import read_manifest
from ragschema.state.catalogue import read_catalogue
from ragschema.tenants import dispatching
from ragschema.tenants.dispatching import Dispatch
from ragschema.tenants.lending import Lender
from ragschema.tenants.tasks import Task

HEAD = read_manifest().head
NAMES = ("a1", "a2", 'a3 "Sons"', "a4", "a5")
SMALL = 'op.add_column("rag_documents", sa.Column("language_tag", sa.Text(), comment="50% of it"))'
MIGRATE = ("rag", "tenants", "migrate", "--workers", "1")


@pytest.fixture(scope="module")
def template(server: dict[str, str]) -> Iterator[str]:
    """The name of a database with five tenants at head."""
    with made_database(server) as database:
        for tenant in NAMES:
            tenants.create_tenant(tenant, database)
        yield database.parameters["dbname"]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkout:
    """A copy of the checkout to add revisions to."""
    return use_checkout(tmp_path, monkeypatch)


def migrate(checkout: Checkout, database: Database, *arguments: str, code: int = 0) -> dict[str, Any]:
    """Run the command in one worker, and return what it prints as JSON."""
    result = checkout.run(*MIGRATE, "--json", *arguments, database=database)
    assert result.returncode == code, result.stderr + result.stdout
    document: dict[str, Any] = json.loads(result.stdout)
    return document


def fates(document: dict[str, Any]) -> list[str]:
    """Return what became of each, by name."""
    return [
        each["fate"] for each in sorted(document["tenants"], key=lambda each: NAMES.index(each["schema"]))
    ]


def noting(path: Path, upgrade: str) -> str:
    """Return the code of a revision that also writes down that it runs."""
    return f"{upgrade}\nif not op.get_context().as_sql:\n    open({str(path)!r}, 'a').write('ran ')"


def execute(database: Database, schema: str, statement: str) -> None:
    with connect(database) as connection:
        connection.execute(sql.SQL("SET search_path = {}, public").format(sql.Identifier(schema)))
        connection.execute(statement.encode())


def test_the_rest_is_as_if_the_revisions_had_run_on_them(
    checkout: Checkout, database: Database, tmp_path: Path
) -> None:
    first = checkout.add(noting(tmp_path / "first", SMALL))
    second = checkout.add(
        noting(
            tmp_path / "second",
            """
op.create_table("rag_notes", sa.Column("id", sa.Integer(), primary_key=True), sa.Column("text", sa.Text()))
op.execute("CREATE FUNCTION rag_note() RETURNS text LANGUAGE sql SET search_path FROM CURRENT AS $$SELECT ';%'$$")
op.create_index("rag_notes_text_idx", "rag_notes", ["text"])
""",
        )
    )
    found = migrate(checkout, database)
    assert found["counts"] == {"migrated": 5}
    assert [each["applied"] for each in found["tenants"]] == [[first, second]] * 5
    # the first revision's own catalogue is not known, so that nobody can say that a tenant is as it leaves it
    assert (tmp_path / "first").read_text() == "ran ran "
    assert (tmp_path / "second").read_text().count("ran") >= 2
    with connect(database) as connection:
        catalogues = [read_catalogue(connection, name) for name in NAMES]
        assert catalogues == [catalogues[0]] * 5
        assert "column rag_documents.language_tag" in catalogues[0]
        history = sql.SQL(
            "SELECT revision, direction, succeeded, checksum, seconds > 0 FROM {} ORDER BY id OFFSET 1"
        )
        entries = [
            connection.execute(history.format(sql.Identifier(name, "rag_migration_history"))).fetchall()
            for name in NAMES
        ]
        assert entries == [entries[0]] * 5
        assert [each[:3] for each in entries[0]] == [(first, "upgrade", True), (second, "upgrade", True)]
        here = "(SELECT oid FROM pg_database WHERE datname = current_database())"
        locks = f"SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = {here}"
        assert rows(connection, locks) == [0]
    assert migrate(checkout, database, "--visit")["counts"] == {"up to date": 5}


@pytest.mark.parametrize(
    "upgrade",
    [
        'op.get_bind().scalar(sa.text("SELECT 1")); ' + SMALL,
        """op.execute("INSERT INTO rag_jobs (job_type, payload) VALUES ('a', '{}')")""",
        SMALL
        + "\nwith op.get_context().autocommit_block():\n    op.execute('ALTER TABLE rag_jobs ADD note text')",
    ],
    ids=["it asks", "it writes rows", "it commits in between"],
)
def test_what_depends_on_the_database_runs_on_each(
    checkout: Checkout, database: Database, tmp_path: Path, upgrade: str
) -> None:
    checkout.add(noting(tmp_path / "ran", upgrade))
    assert migrate(checkout, database)["counts"] == {"migrated": 5}
    assert (tmp_path / "ran").read_text() == "ran " * 5


def test_statements_that_differ_by_schema_are_not_taken_to_another() -> None:
    replay = Replay()
    of_a = Recording("2", "1", "", "", ("ALTER TABLE a.rag_jobs ADD note text",))
    of_b = Recording("2", "1", "", "", ("ALTER TABLE b.rag_jobs ADD note text",))
    replay.hear("a", of_a)
    assert replay.next("1") is None
    replay.hear("a", of_a)
    assert replay.next("1") is None
    replay.hear("b", of_b)
    assert replay.next("1") is None
    replay.hear("c", of_b)
    assert replay.next("1") == of_b
    replay.hear("d", of_a)
    assert replay.next("1") is None


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT 1",
        "DO $$ BEGIN END $$",
        "DROP TABLE rag_jobs",
        "ALTER TABLE rag_jobs DROP COLUMN note",
        "ALTER TABLE rag_jobs ADD note text; DELETE FROM rag_jobs",
        "ALTER TABLE rag_jobs ADD note text; COMMIT",
        "SET lock_timeout = 0",
        "",
    ],
)
def test_what_may_do_more_than_add_is_no_replay(statement: str) -> None:
    assert not is_replayable(statement)
    assert is_replayable("ALTER TABLE rag_jobs ADD note text; COMMENT ON COLUMN rag_jobs.note IS ';'")


def test_a_tenant_unlike_the_others_is_left_to_the_revision(
    checkout: Checkout, database: Database, tmp_path: Path
) -> None:
    checkout.add(noting(tmp_path / "ran", SMALL))
    execute(database, NAMES[3], "DROP INDEX rag_documents_current_version_id_id_idx")
    result = checkout.run(*MIGRATE, "--json", database=database)
    assert json.loads(result.stdout)["counts"] == {"migrated": 5}
    assert "a4: Drift: " in result.stderr
    assert result.stderr.count("Drift: ") == 1
    assert (tmp_path / "ran").read_text() == "ran " * 3


def test_rows_that_go_are_seen_in_a_tenant_where_the_others_had_none(
    checkout: Checkout, database: Database
) -> None:
    with connect(database) as connection:
        connection.execute(
            """
            CREATE FUNCTION public.emptied() RETURNS event_trigger LANGUAGE plpgsql
                AS $$ BEGIN DELETE FROM rag_jobs; END $$;
            CREATE EVENT TRIGGER emptied ON ddl_command_end WHEN TAG IN ('ALTER TABLE')
                EXECUTE FUNCTION public.emptied()
            """
        )
    execute(database, NAMES[3], "INSERT INTO rag_jobs (job_type, payload) VALUES ('a', '{}')")
    checkout.add(SMALL)
    found = migrate(checkout, database, code=1)
    assert fates(found) == ["migrated"] * 3 + ["failed", "migrated"]
    (failed,) = (each for each in found["tenants"] if each["fate"] == "failed")
    assert "destroys data, so it was rolled back" in failed["error"]
    with connect(database) as connection:
        assert rows(connection, "SELECT count(*) FROM a4.rag_jobs") == [1]


def test_who_is_in_the_way_of_one_is_named(checkout: Checkout, database: Database) -> None:
    checkout.add(SMALL)
    arguments = ("--lock-timeout", "300ms", "--retries", "0")
    with in_the_way(database, "LOCK TABLE a4.rag_documents IN ACCESS SHARE MODE") as pid:
        result = checkout.run(*MIGRATE, *arguments, database=database)
    assert result.returncode == 75, result.stderr
    assert f"a4: Waiting for pid {pid} (a reader at lunch)" in result.stderr
    assert "1 locked, 4 migrated" in result.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_end_in_the_middle_leaves_a_tenant_as_it_was(
    checkout: Checkout, database: Database, number: signal.Signals
) -> None:
    body = "BEGIN PERFORM pg_sleep(60); RETURN 1; END"
    slow = f"CREATE FUNCTION public.slow(uuid) RETURNS int IMMUTABLE LANGUAGE plpgsql AS '{body}'"
    execute(database, "public", slow)
    execute(database, NAMES[2], "INSERT INTO rag_jobs (job_type, payload) VALUES ('a', '{}')")
    revision = checkout.add("op.execute('CREATE INDEX ON rag_jobs (public.slow(id))')")
    with connect(database) as connection:
        process = checkout.start(*MIGRATE, "--json", database=database)
        try:
            wait_until(lambda: bool(_sleeping(connection)), "the tenant with a row")
            (worker,) = psutil.Process(process.pid).children()
            if number == signal.SIGKILL:
                worker.kill()
                process.kill()
            else:
                process.send_signal(number)
            result = finish(process)
        finally:
            process.kill()
        if number == signal.SIGINT:
            assert (
                fates(json.loads(result.stdout)) == ["migrated"] * 2 + ["interrupted"] + ["not started"] * 2
            )
            assert "the running statement was cancelled" in result.stderr
        wait_until(lambda: not _sleeping(connection), "the end of the statement")
    found = {each.schema: each.revision for each in tenants.list_tenants(database)}
    assert [found[name] for name in NAMES] == [revision] * 2 + [HEAD] * 3


def _sleeping(connection: psycopg.Connection[Any]) -> list[object]:
    return rows(
        connection,
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'",
    )


# workers and canaries


def test_a_worker_that_has_died_is_replaced(database: Database) -> None:
    def work(_lender: Lender, task: Task) -> str:
        if task.schema == "b":
            psutil.Process().kill()
        return task.schema

    heard: list[tuple[str, object]] = []
    tasks = [Task(0, name) for name in "abcdef"]
    dispatch = Dispatch(
        [find_options(database)], work, lambda task, said: heard.append((task.schema, said)), 1
    )
    with dispatch.started(tasks):
        assert dispatch.run(tasks, lambda: True) == []
    assert heard == [("a", "a"), ("b", None), ("c", "c"), ("d", "d"), ("e", "e"), ("f", "f")]
    assert dispatching.AHEAD > 1


def test_a_worker_that_dies_before_it_is_given_another_is_replaced(database: Database) -> None:
    heard: list[tuple[str, object]] = []

    def hear(task: Task, said: object) -> None:
        heard.append((task.schema, said))
        if len(heard) == 1:
            assert isinstance(said, int)
            worker = psutil.Process(said)
            worker.kill()
            worker.wait()

    tasks = [Task(0, name) for name in "abcdef"]
    dispatch = Dispatch([find_options(database)], lambda _lender, _task: os.getpid(), hear, 1)
    with dispatch.started(tasks):
        assert dispatch.run(tasks, lambda: True) == []
    assert [name for name, _ in heard] == [*"abcdef"]
    assert [said for _, said in heard].count(None) == 1  # the one that it may have begun


@pytest.mark.parametrize(("places", "expected"), [(1, "done"), (0, "refused")])
def test_a_worker_without_a_connection_takes_no_tenant_from_the_others(
    database: Database, places: int, expected: str
) -> None:
    """As where the server has few places left: it would fail one after the other while they work."""

    def work(lender: Lender, task: Task) -> str:
        try:
            with lender.lent_in_passing(task.schema):
                return "done"
        except RagSchemaError:
            return "refused"

    heard: list[object] = []
    tasks = [Task(0, name) for name in NAMES]
    with made_role(database, attributes=f"CONNECTION LIMIT {places}") as role:
        dispatch = Dispatch([find_options(role)], work, lambda _task, said: heard.append(said), 3)
        with dispatch.started(tasks):
            assert dispatch.run(tasks, lambda: True) == []
    assert heard == [expected] * len(NAMES)


def test_no_canary_begins_after_one_has_failed(checkout: Checkout, database: Database) -> None:
    checkout.add('op.execute("SELECT 1 / 0")')
    found = migrate(checkout, database, "--canary", "3", code=1)
    assert fates(found) == ["failed"] + ["not started"] * 4
