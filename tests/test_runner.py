"""Runs of several revisions: beside other deployers and other sessions, refused, failed, and recorded."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from functools import partial
from importlib.metadata import version
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

from checkouts import (
    ADD_COLUMN,
    ALEMBIC,
    CONCURRENT_INDEX,
    INDEX,
    MIGRATE,
    Checkout,
    in_the_way,
    invalid_indexes,
    made_role,
    rows,
    wait_until,
)
from conftest import Command, DatabaseAt, clean_environment, connect, dump_schema, made_database
from forks import Fork
from proxies import proxied
from ragschema import migrations
from ragschema.database.options import Options
from ragschema.database.settings import Database
from ragschema.errors import (
    DatabaseAhead,
    DatabaseUnreachable,
    PendingRevisions,
    RagSchemaError,
    RevisionRefused,
    UsageError,
)
from ragschema.migrations.deployer_lock import deployer_lock_key
from ragschema.migrations.watch import Build
from ragschema.revisions.manifest import read_manifest

ROUNDS = int(os.environ.get("RAG_TEST_ROUNDS", "2"))
ROWS = """
WITH document AS (INSERT INTO rag_documents (article_id) VALUES ('a') RETURNING id),
     version AS (
         INSERT INTO rag_document_versions
         (document_id, version_number, source_hash, chunker_version, embedder_version)
         SELECT id, 1, 'h', 'c', 'e' FROM document RETURNING id)
INSERT INTO rag_chunks (version_id, ordinal, content, embedding)
SELECT id, n, 'chunk ' || n, CASE WHEN n % 20 = 0 THEN array_fill(n::real, ARRAY[768])::vector END
FROM version, generate_series(1, 2000) n
"""


@pytest.fixture(scope="module")
def template_with_rows(server: Mapping[str, str], template: str) -> Iterator[str]:
    """The name of a database at head with 2,000 chunks."""
    with made_database(server, template) as database:
        with connect(database) as connection:
            connection.execute(ROWS)
        yield database.parameters["dbname"]


@pytest.fixture
def filled(server: Mapping[str, str], template_with_rows: str) -> Iterator[Database]:
    """A database at head with 2,000 chunks."""
    with made_database(server, template_with_rows) as database:
        yield database


def successes(database: Database) -> list[object]:
    with connect(database) as connection:
        return rows(connection, "SELECT revision FROM rag_migration_history WHERE succeeded ORDER BY id")


@pytest.mark.parametrize("round_", range(ROUNDS))
def test_eight_deployers_mixed_apply_each_revision_once(
    checkout: Checkout, filled: Database, round_: int
) -> None:
    added = [
        checkout.add(ADD_COLUMN),
        checkout.add(CONCURRENT_INDEX),
        checkout.add('op.create_index("rag_chunks_note_idx", "rag_chunks", ["note"])'),
    ]
    before = successes(filled)
    with ThreadPoolExecutor(8) as pool:
        results = list(
            pool.map(lambda command: checkout.run(*command, database=filled), [MIGRATE, ALEMBIC] * 4)
        )
    assert [result.returncode for result in results] == [0] * 8, [result.stderr for result in results]
    assert successes(filled) == before + added
    with connect(filled) as connection:
        assert rows(connection, "SELECT count(*) FROM rag_migration_history WHERE NOT succeeded") == [0]
        assert invalid_indexes(connection) == []
        assert rows(connection, "SELECT count(*) FROM rag_chunks") == [2000]
    assert migrations.status(filled).state == "OK"


# readers, and the sessions in the way


def test_readers_wait_no_longer_than_lock_timeout_and_the_blocker_is_named(
    checkout: Checkout, filled: Database
) -> None:
    checkout.add(ADD_COLUMN)
    timeout = 1.0
    waits: list[float] = []  # of reads that ended while the blocker was still there
    left = threading.Event()
    stopped = threading.Event()

    def read() -> None:
        with connect(filled) as connection:
            while not stopped.wait(0.01):
                start = time.monotonic()
                connection.execute("SELECT content FROM rag_chunks LIMIT 1")
                if not left.is_set():
                    waits.append(time.monotonic() - start)

    reader = threading.Thread(target=read)
    with in_the_way(filled) as pid:
        reader.start()
        process = checkout.start("rag", "migrate", "--lock-timeout", f"{timeout:g}s", database=filled)
        assert process.stderr is not None
        seen = _read_until(process, "trying again in")  # twice
        seen += _read_until(process, "trying again in")
        assert process.poll() is None
        left.set()
    stdout, rest = process.communicate()
    stopped.set()
    reader.join()
    assert process.returncode == 0, seen + rest
    assert f"upgrade {checkout.head}" in stdout
    named = rf"Waiting for pid {pid} \(a reader at lunch\), idle in transaction, in a transaction for \d+ s: "
    assert re.search(named + r"SELECT count\(\*\) FROM rag_chunks\n", seen)
    print(f"lock_timeout {timeout} s; longest wait of {len(waits)} reads: {max(waits):.2f} s")  # noqa: T201
    assert timeout / 2 < max(waits), "no read has waited behind the deployer"


def _read_until(process: Fork, text: str) -> str:
    assert process.stderr is not None
    seen = ""
    for line in process.stderr:
        seen += line
        if text in line:
            return seen
    pytest.fail(f"it never said {text!r}: {seen}")


def test_a_blocker_that_never_leaves_costs_exit_75_and_nothing_changes(
    checkout: Checkout, filled: Database
) -> None:
    first = checkout.add('op.add_column("rag_jobs", sa.Column("note", sa.Text()))')
    second = checkout.add(ADD_COLUMN)
    with in_the_way(filled) as pid:
        result = checkout.run("rag", "migrate", "--lock-timeout", "200ms", "--retries", "2", database=filled)
    assert result.returncode == 75
    assert result.stderr.count("trying again in") == 2
    error = result.stderr[result.stderr.index("Error: ") :]
    assert error.startswith(
        f"Error: Revision {second} failed and was rolled back; committed in this run: {first};"
        f" not committed: {second}."
    )
    assert f"Blocked by pid {pid} (a reader at lunch), idle in transaction" in error
    assert "SQLSTATE: 55P03" in error
    assert "Statement: ALTER TABLE rag_chunks ADD COLUMN note TEXT" in error
    assert migrations.status(filled).current == first
    with connect(filled) as connection:
        found = rows(connection, "SELECT FROM information_schema.columns WHERE column_name = 'note'")
        assert len(found) == 1  # that of the first revision


def test_a_deadlock_is_tried_again(checkout: Checkout, filled: Database) -> None:
    revision = checkout.add(
        """
        op.add_column("rag_jobs", sa.Column("note", sa.Text()))
        op.execute("SELECT pg_sleep(0.5)")
        op.add_column("rag_documents", sa.Column("note", sa.Text()))
        """
    )
    with connect(filled) as connection:
        connection.execute(f"ALTER DATABASE {filled.parameters['dbname']} SET deadlock_timeout = '100ms'")
    with psycopg.connect(filled.libpq_url()) as other:
        other.execute("SET deadlock_timeout = '1min'")  # so that the migration is the victim
        other.execute("SELECT FROM rag_documents")
        result: list[migrations.Result] = []
        deployer = threading.Thread(
            target=lambda: result.append(migrations.upgrade(Options(filled, lock_timeout=30.0)))
        )
        deployer.start()
        with connect(filled) as looker:
            wait_until(
                lambda: rows(looker, "SELECT FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(0.5)'"),
                "the revision to lock its first table",
            )
        other.execute("SELECT FROM rag_jobs")  # waits for the migration, which then waits for us
        other.rollback()
        deployer.join()
    assert [applied.revision for applied in result[0].applied] == [revision]
    with connect(filled) as connection:
        assert rows(
            connection, "SELECT deadlocks > 0 FROM pg_stat_database WHERE datname = current_database()"
        ) == [True]


def test_a_relative_target_stays_where_it_was_when_a_revision_is_tried_again(
    checkout: Checkout, filled: Database
) -> None:
    first, second, third = (
        checkout.add('op.add_column("rag_jobs", sa.Column("note", sa.Text()))'),
        checkout.add(ADD_COLUMN),
        checkout.add("op.execute('SELECT 1')"),
    )
    with ExitStack() as until_seen:
        until_seen.enter_context(in_the_way(filled))
        process = checkout.start("rag", "migrate", "--to", "+2", "--lock-timeout", "100ms", database=filled)
        seen = _read_until(process, "trying again in")
    _, rest = process.communicate()
    assert process.returncode == 0, seen + rest
    status = migrations.status(filled)
    assert status.current == second
    assert [pending.revision for pending in status.pending] == [third]
    assert successes(filled)[-2:] == [first, second]


def test_a_concurrent_build_does_not_give_way(checkout: Checkout, filled: Database) -> None:
    """lock_timeout would end it and leave an INVALID index: it is 0 in every autocommit block."""
    checkout.add(
        f"""
        with op.get_context().autocommit_block():
            op.create_index("{INDEX}", "rag_chunks", ["created_at"], postgresql_concurrently=True)
        op.execute("CREATE TABLE rag_seen AS SELECT current_setting('lock_timeout') AS lock_timeout")
        """
    )
    with ExitStack() as until_seen:
        until_seen.enter_context(in_the_way(filled, "LOCK TABLE rag_chunks IN ROW EXCLUSIVE MODE"))
        process = checkout.start("rag", "migrate", "--lock-timeout", "100ms", database=filled)
        _read_until(process, f"Building {INDEX}: waiting for writers before build")
        time.sleep(0.3)
        assert process.poll() is None
    _, stderr = process.communicate()
    assert process.returncode == 0, stderr
    assert "trying again" not in stderr
    with connect(filled) as connection:
        assert invalid_indexes(connection) == []
        assert rows(connection, "SELECT lock_timeout FROM rag_seen") == ["100ms"]


# how far an index build is

SLOW_INDEX = """
op.execute(
    "CREATE FUNCTION slowly(n int) RETURNS int LANGUAGE plpgsql IMMUTABLE"
    " AS 'BEGIN PERFORM pg_sleep(0.001); RETURN n; END'"
)
concurrent_index("rag_chunks_slow_idx", "rag_chunks", ["slowly(ordinal)"], where="ordinal % 4 = 0")
"""


def test_an_index_build_is_watched(checkout: Checkout, filled: Database) -> None:
    checkout.add(SLOW_INDEX)
    builds: list[Build | None] = []
    often = Options(filled, lock_timeout=0.2)  # the watch looks four times as often
    assert migrations.upgrade(often, show_build=builds.append).current == checkout.head
    assert builds[-1] is None
    seen = [build for build in builds if build is not None and build.phase.startswith("building index")]
    assert {build.index for build in seen} == {"rag_chunks_slow_idx"}
    fractions = [build.fraction for build in seen if build.fraction is not None]
    assert any(0 < fraction < 1 for fraction in fractions)
    assert any(build.remaining is not None and build.remaining > 0 for build in seen)
    assert re.fullmatch(
        r"Building rag_chunks_slow_idx: building index: \D+, \d+%, about \d+ s left",
        str(next(build for build in seen if build.remaining is not None)),
    )


def test_a_terminal_shows_a_bar_and_standard_output_stays_itself(
    checkout: Checkout, filled: Database
) -> None:
    checkout.add(SLOW_INDEX)
    ours, theirs = pty.openpty()
    with checkout.start("rag", "migrate", database=filled, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        with suppress(OSError):  # the terminal is gone with its process
            while piece := os.read(ours, 4096):
                shown += piece
        os.close(ours)
        stdout = process.stdout.read() if process.stdout else ""
    assert process.returncode == 0
    assert re.search(r"rag_chunks_slow_idx: building index: .*\d+%", shown.decode())
    assert stdout.startswith(f"upgrade {checkout.head}  ")
    assert stdout.endswith(f"Done: the database is at {checkout.head}.\n")


# what a revision refuses, and what is said of one that fails

NO_SHORT_CHUNKS = """
def precheck(connection):
    return connection.execute(
        sa.text("SELECT ordinal, content FROM rag_chunks WHERE length(content) < 8 ORDER BY ordinal")
    )
"""


def test_a_precheck_refuses_before_anything_runs_and_shows_rows(checkout: Checkout, filled: Database) -> None:
    checkout.add(ADD_COLUMN)
    refusing = checkout.add("op.execute('SELECT 1')", checks=NO_SHORT_CHUNKS)
    before = dump_schema(filled)
    for command in (MIGRATE, ALEMBIC):
        result = checkout.run(*command, database=filled)
        assert result.returncode != 0
        shown = result.stdout + result.stderr
        assert f"Revision {refusing} cannot be applied: its precheck finds 9 rows in its way." in shown
        assert "1, chunk 1\n2, chunk 2\n3, chunk 3\n4, chunk 4\n5, chunk 5\n..." in shown
        assert "Traceback" not in shown
    assert dump_schema(filled) == before
    assert migrations.status(filled).current == checkout.base
    with connect(filled) as connection:
        connection.execute("UPDATE rag_chunks SET content = content || ' mended'")
    assert migrations.upgrade(filled).current == refusing


def test_a_precheck_of_what_an_earlier_revision_makes_is_asked_in_its_turn(
    checkout: Checkout, filled: Database
) -> None:
    made = checkout.add("op.execute('CREATE TABLE rag_seen AS SELECT 1 AS n')")
    refusing = checkout.add(
        "op.execute('SELECT 1')",
        checks="def precheck(connection):\n    return connection.exec_driver_sql('SELECT n FROM rag_seen')",
    )
    with pytest.raises(
        RevisionRefused, match=f"{refusing} cannot be applied: its precheck finds 1 row "
    ) as refused:
        migrations.upgrade(filled)
    assert refused.value.evidence == "1"
    assert migrations.status(filled).current == made
    with connect(filled) as connection:
        connection.execute("DELETE FROM rag_seen")
    assert migrations.upgrade(filled).current == refusing


def test_a_verify_that_finds_rows_rolls_its_revision_back(checkout: Checkout, filled: Database) -> None:
    first = checkout.add("op.execute('SELECT 1')")
    wrong = checkout.add(
        ADD_COLUMN,
        checks="def verify(connection):\n"
        "    return connection.exec_driver_sql('SELECT ordinal FROM rag_chunks WHERE note IS NULL')",
    )
    before = dump_schema(filled)
    with pytest.raises(RevisionRefused, match=f"{wrong} was rolled back: its own check found 2,000 rows"):
        migrations.upgrade(filled)
    assert dump_schema(filled) == before
    status = migrations.status(filled)
    assert status.current == first
    assert status.last_failure is not None
    assert status.last_failure.revision == wrong


def test_a_failure_says_what_failed_what_is_committed_and_what_to_do(
    checkout: Checkout, filled: Database
) -> None:
    first = checkout.add(ADD_COLUMN)
    failing = checkout.add(
        """
        op.execute("CREATE TABLE rag_seen (n int)")
        op.execute("DO $$ BEGIN RAISE 'so not' USING ERRCODE = 'RS001', HINT = 'ask somebody'; END $$")
        """
    )
    last = checkout.add("op.execute('SELECT 1')")
    result = checkout.run("rag", "migrate", database=filled)
    assert result.returncode == 1
    assert result.stderr[result.stderr.index("Error: ") :] == (
        f"Error: Revision {failing} failed and was rolled back; committed in this run: {first};"
        f" not committed: {failing}, {last}.\n"
        "Mend the cause below, then run the same command again; `rag migrate status` says where it stands.\n"
        "SQLSTATE: RS001\n"
        "Message: so not\n"
        "Hint: ask somebody\n"
        "Context: PL/pgSQL function inline_code_block line 1 at RAISE\n"
        "Statement: DO $$ BEGIN RAISE 'so not' USING ERRCODE = 'RS001', HINT = 'ask somebody'; END $$\n"
    )
    status = migrations.status(filled)
    assert (status.state, status.current) == ("PENDING", first)
    failure = status.last_failure
    assert failure is not None
    assert (failure.revision, failure.direction, failure.succeeded) == (failing, "upgrade", False)
    assert (failure.error or "").startswith("so not")
    with connect(filled) as connection:
        assert rows(connection, "SELECT to_regclass('rag_seen')::text") == [None]


def test_a_failure_of_python_is_a_failure_of_its_revision(checkout: Checkout, filled: Database) -> None:
    failing = checkout.add(f"{ADD_COLUMN}\nraise RuntimeError('not on a Sunday')")
    result = checkout.run("rag", "migrate", database=filled)
    assert result.returncode == 1
    error = result.stderr[result.stderr.index("Error: ") :]
    assert error.startswith(f"Error: Revision {failing} failed and was rolled back; ")
    assert "RuntimeError: not on a Sunday\n" in error
    assert re.search(rf"At: \S+/{failing}_added.py, line \d+: raise RuntimeError", error)
    assert "Traceback" not in result.stderr
    failure = migrations.status(filled).last_failure
    assert failure is not None
    assert (failure.revision, failure.error) == (failing, "not on a Sunday")


def test_an_operation_that_refuses_names_its_revision(checkout: Checkout, filled: Database) -> None:
    with connect(filled) as connection:
        connection.execute(f"CREATE INDEX {INDEX} ON rag_chunks (content)")
    first, failing = checkout.add(ADD_COLUMN), checkout.add(CONCURRENT_INDEX)
    with pytest.raises(RagSchemaError, match=f"Revision {failing} was stopped; .*: {first}; ") as refused:
        migrations.upgrade(filled)
    assert refused.value.exit_code == 1
    failure = migrations.status(filled).last_failure
    assert failure is not None
    assert failure.revision == failing


def test_what_a_revision_did_outside_a_transaction_is_said_to_stay(
    checkout: Checkout, filled: Database
) -> None:
    failing = checkout.add(
        f"""
        {ADD_COLUMN}
        with op.get_context().autocommit_block():
            op.execute("CREATE UNIQUE INDEX CONCURRENTLY rag_chunks_note_idx ON rag_chunks ((1))")
        """
    )
    with pytest.raises(RagSchemaError, match="could not create unique index") as failed:
        migrations.upgrade(filled)
    assert f"{failing} failed, and what it did outside a transaction stays; " in failed.value.message
    assert migrations.status(filled).invalid_indexes == ("rag_chunks_note_idx",)
    with connect(filled) as connection:
        connection.execute("DROP INDEX rag_chunks_note_idx")
        connection.execute("ALTER TABLE rag_chunks DROP COLUMN note")


def test_a_failure_at_commit_is_a_failure_of_its_revision(checkout: Checkout, filled: Database) -> None:
    failing = checkout.add(
        'op.execute("UPDATE rag_documents SET current_version_id = gen_random_uuid()")'  # deferred foreign key
    )
    with pytest.raises(RagSchemaError, match=f"Revision {failing} failed and was rolled back") as failed:
        migrations.upgrade(filled)
    assert "SQLSTATE: 23503" in failed.value.evidence
    assert "Statement: COMMIT" in failed.value.evidence
    assert migrations.status(filled).current == checkout.base


def test_a_lost_connection_is_recorded_and_the_next_run_goes_on(checkout: Checkout, filled: Database) -> None:
    failing = checkout.add(f'{ADD_COLUMN}\nop.execute("SELECT pg_terminate_backend(pg_backend_pid())")')
    with pytest.raises(RagSchemaError, match=f"Revision {failing} failed and was rolled back") as failed:
        migrations.upgrade(filled)
    assert "terminating connection due to administrator command" in failed.value.evidence
    status = migrations.status(filled)
    assert status.current == checkout.base
    assert status.last_failure is not None
    checkout.file(failing).write_text(
        checkout.file(failing).read_text().replace("pg_terminate_backend(pg_backend_pid())", "1")
    )
    assert migrations.upgrade(filled).current == failing
    assert migrations.status(filled).last_failure is None


def test_a_connection_lost_outside_a_revision_is_said_in_a_sentence(empty_database: Database) -> None:
    with connect(empty_database) as holder:
        holder.execute("SELECT pg_advisory_lock(%s)", (deployer_lock_key("public"),))

        def end_the_waiting() -> None:
            # one that has only just connected would connect again
            waiting = (
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s"
                " AND datname = current_database() AND query LIKE '%%pg_try_advisory_lock%%'"
            )
            wait_until(
                lambda: rows(holder, waiting, "ragschema migrate"),
                "a deployer",
            )

        ending = threading.Thread(target=end_the_waiting)
        ending.start()
        with pytest.raises(DatabaseUnreachable, match="The connection to the database was lost"):
            migrations.upgrade(empty_database)
        ending.join()


# edited, ahead


def test_history_has_a_row_for_each_step_and_status_tells_an_edited_revision(
    checkout: Checkout, filled: Database
) -> None:
    first = checkout.add(ADD_COLUMN, 'op.drop_column("rag_chunks", "note")')
    checkout.add("op.execute('SELECT 1')")
    migrations.upgrade(filled)
    migrations.downgrade(filled, "-2")
    migrations.upgrade(filled)
    entries = {entry.revision: entry for entry in migrations.history(filled)}
    attempts = entries[first].attempts
    assert [attempt.direction for attempt in attempts] == ["upgrade", "downgrade", "upgrade"]
    assert {attempt.checksum for attempt in attempts} == {read_manifest().checksums[first]}
    assert {attempt.migrated_by for attempt in attempts} == {"postgres"}
    assert {attempt.package_version for attempt in attempts} == {version("ragschema")}
    assert all(attempt.succeeded and attempt.seconds > 0 for attempt in attempts)
    assert migrations.status(filled).edited == ()
    checkout.file(first).write_text(checkout.file(first).read_text() + "# a remark\n")
    assert migrations.status(filled).edited == (first,)
    migrations.downgrade(filled, checkout.base)
    assert migrations.status(filled).edited == ()


def test_a_database_ahead_names_the_package_version_that_wrote_it(
    checkout: Checkout, filled: Database
) -> None:
    ahead = checkout.add(ADD_COLUMN)
    migrations.upgrade(filled)
    with connect(filled) as connection:
        connection.execute(
            "UPDATE rag_migration_history SET package_version = '7.8.9' WHERE revision = %s", (ahead,)
        )
    checkout.file(ahead).unlink()
    status = migrations.status(filled)
    assert (status.state, status.current, status.written_by) == ("AHEAD", ahead, "7.8.9")
    before = dump_schema(filled)
    for command, code in ((MIGRATE, 6), (ALEMBIC, 255)):
        result = checkout.run(*command, database=filled)
        assert result.returncode == code
        assert f"The database is at revision {ahead}, which this ragschema does not know." in (
            result.stdout + result.stderr
        )
    with pytest.raises(DatabaseAhead):
        migrations.upgrade(filled)
    assert dump_schema(filled) == before


# at head

AT_HEAD = """
import sys
from ragschema.cli import main
try:
    main()
except SystemExit as done:
    code = done.code
heavy = {'sqlalchemy', 'alembic', 'pgvector', 'numpy'} & set(sys.modules)
sys.exit(code or (f'imported {heavy}' if heavy else 0))
"""


@pytest.mark.parametrize("command", ["migrate", "migrate status", "migrate history", "migrate wait"])
def test_at_head_a_reader_is_enough_and_no_lock_no_write_no_alembic(
    database: Database, tmp_path: Path, command: str
) -> None:
    with (
        connect(database) as other,
        made_role(
            database,
            "GRANT SELECT ON rag_alembic_version, rag_migration_history TO _role_",
            "ALTER ROLE _role_ SET default_transaction_read_only = on",
        ) as reading,
    ):
        other.execute("SELECT pg_advisory_lock(%s)", (deployer_lock_key("public"),))
        arguments = [*command.split(), *(["--wait-lock", "0s"] if command == "migrate" else [])]
        result = subprocess.run(
            [sys.executable, "-c", AT_HEAD, *arguments],
            cwd=tmp_path,
            env=clean_environment() | {"DATABASE_URL": reading.libpq_url()},
            capture_output=True,
            text=True,
            check=False,
        )
    assert result.returncode == 0, result.stderr
    if command == "migrate":
        assert result.stdout == f"Nothing to do: the database is at {read_manifest().head}.\n"


def test_at_head_three_statements_are_enough(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """More of them, and more scans of the revisions, are what a service pays each time that it starts."""
    migrations.upgrade(database)  # what is read once a process
    statements, scans, scan = [], [], os.scandir

    def counted(path: Path) -> object:
        scans.append(path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", counted)
    with proxied(database) as proxy:

        def listen(data: bytes) -> bool:
            if data[:1] in (b"P", b"Q"):  # Parse, or a simple query
                statements.append(data)
            return True

        proxy._passes = listen  # type: ignore[method-assign]
        assert migrations.upgrade(proxy.database).applied == []
    assert len(statements) == 3, statements
    assert len(scans) == 1


def test_twenty_at_head_at_once_all_succeed(run: Command, database: Database) -> None:
    url = database.libpq_url()
    with ThreadPoolExecutor(20) as pool:
        results = list(pool.map(lambda _: run("rag", "migrate", DATABASE_URL=url), range(20)))
    assert [result.returncode for result in results] == [0] * 20, [result.stderr for result in results]


def test_a_wait_for_head_says_once_which_database(run: Command) -> None:
    result = run(
        "rag", "migrate", "wait", "--timeout", "1200ms", DATABASE_URL="postgresql://127.0.0.1:1/none"
    )
    assert result.returncode == 69
    assert result.stderr.count("Database: none on 127.0.0.1:1") == 1


def test_the_revisions_are_parsed_once_and_again_when_a_file_has_changed(checkout: Checkout) -> None:
    before = read_manifest()
    assert read_manifest() is before
    added = checkout.add(ADD_COLUMN)
    assert [each.revision for each in read_manifest().revisions] == [*before.checksums, added]
    checksum = read_manifest().checksums[added]
    checkout.file(added).write_text(checkout.file(added).read_text() + "# a remark\n")
    assert read_manifest().checksums[added] != checksum
    checkout.file(added).unlink()
    assert read_manifest() == before


# as a library


def test_eight_threads_migrate_eight_databases(database_at: DatabaseAt) -> None:
    """The newest sixteen revisions: each of eight threads has applied a few while the others do."""
    below, *newest = [each.revision for each in read_manifest().revisions[-17:]]
    databases = [database_at(below) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(partial(migrations.upgrade, replay=True), databases))
        assert {result.current for result in results} == {newest[-1]}
        assert {len(result.applied) for result in results} == {len(newest)}
        back = list(pool.map(lambda each: migrations.downgrade(each, "-1"), databases))
    assert {len(result.applied) for result in back} == {1}
    assert {migrations.status(each).state for each in databases} == {"PENDING"}


def test_a_service_asserts_its_revision_with_two_selects(engine: sa.Engine) -> None:
    head = read_manifest().head
    statements: list[str] = []
    with engine.connect() as connection:
        sa.event.listen(connection, "before_cursor_execute", lambda *told: statements.append(told[2]))
        assert migrations.assert_current(connection) == head
        assert len(statements) == 2  # the revision, and whether all that belongs to it is there
        connection.exec_driver_sql("UPDATE rag_alembic_version SET version_num = '20251225160000'")
        with pytest.raises(PendingRevisions, match=f"at 20251225160000; {head} is needed"):
            migrations.assert_current(connection)
        assert migrations.assert_current(connection, "20251225160000") == "20251225160000"
        connection.exec_driver_sql("UPDATE rag_alembic_version SET version_num = '29990101000000'")
        assert migrations.assert_current(connection) == "29990101000000"
        connection.exec_driver_sql("DROP TABLE rag_alembic_version")
        with pytest.raises(PendingRevisions, match="at no revision"):
            migrations.assert_current(connection)


def test_a_target_that_does_not_exist_is_refused_before_anything_changes(database: Database) -> None:
    before = dump_schema(database)
    for revision in ("nope", "+1", "29990101000000"):
        with pytest.raises(UsageError):
            migrations.upgrade(database, revision)
    assert dump_schema(database) == before
    assert migrations.status(database).last_failure is None
