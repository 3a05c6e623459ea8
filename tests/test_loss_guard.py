"""The guard of rows: whatever a revision runs, no row and no value goes without --allow-data-loss."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa

from added_revisions import Revisions, copy_revisions
from checkouts import ALEMBIC, MIGRATE, Checkout, wait_until
from conftest import connect, dump_schema, made_database
from ragschema.database.settings import Database
from ragschema.errors import ConfigurationError, DataLossRefused, RagSchemaError, RevisionRefused
from ragschema.migrations.loss_guard import LossGuard
from ragschema.planning.losses import StepLoss
from ragschema.sql.losses import find_losses

TABLES = """
CREATE TABLE things (id int PRIMARY KEY, a text, b varchar(20), n numeric(10, 2), at timestamptz, d int DEFAULT 7,
    touched bool);
INSERT INTO things SELECT i, 'thing ' || i, 'b' || i, i + 0.25, '2026-01-01 00:00:00.5+00'
    FROM generate_series(1, 100) i;
CREATE TABLE parts (id int PRIMARY KEY, thing int REFERENCES things ON DELETE CASCADE, note text);
INSERT INTO parts SELECT i, i FROM generate_series(1, 50) i;
CREATE TABLE empty (id int, a text, gone text);
CREATE TABLE parted (k int, v text) PARTITION BY LIST (k);
CREATE TABLE part PARTITION OF parted FOR VALUES IN (1);
CREATE TABLE other_part PARTITION OF parted FOR VALUES IN (2);
INSERT INTO parted VALUES (1, 'x'), (1, 'y');
CREATE TYPE mood AS ENUM ('good');
CREATE TABLE moods (id int, mood mood);
INSERT INTO moods VALUES (1, 'good');
CREATE SCHEMA others;
CREATE TABLE others.theirs (id int PRIMARY KEY, mood mood, thing int REFERENCES things ON DELETE CASCADE);
INSERT INTO others.theirs VALUES (1, 'good', 1);
CREATE FUNCTION purge() RETURNS void LANGUAGE sql AS 'DELETE FROM parts WHERE id <= 3';
CREATE FUNCTION on_update() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN DELETE FROM parts WHERE thing = NEW.id; RETURN NEW; END $$;
CREATE TRIGGER on_update AFTER UPDATE OF touched ON things FOR EACH ROW EXECUTE FUNCTION on_update();
CREATE VIEW seen AS SELECT 1 AS a;
"""


def do(sql: str) -> str:
    """Return a statement whose text does not tell what it does."""
    return f"DO $do$ BEGIN EXECUTE $sql$ {sql} $sql$; END $do$"


REVISION = "20990101000001"


@pytest.fixture(scope="module")
def connection(server: Mapping[str, str]) -> Iterator[sa.Connection]:
    """A connection to tables to lose; each test's transaction is rolled back."""
    with made_database(server) as database:
        with connect(database) as filling:
            filling.execute(TABLES)
        engine = sa.create_engine(database.url())
        with engine.connect() as connection:
            yield connection
        engine.dispose()


def run_guarded(
    connection: sa.Connection, statements: Sequence[str], *, told: bool, derived: Sequence[str] = ()
) -> int:
    """Run statements as a revision's; return how often. Told, the guard knows what their text tells."""
    losses = [
        StepLoss(REVISION, loss, sql, False)
        for sql in statements
        for loss in find_losses(sql)
        if f"{loss.name}.{loss.column}" not in derived
    ]
    script: Any = SimpleNamespace(revision=REVISION, module=SimpleNamespace(__doc__="", DERIVED=derived))
    runs = 0

    def migrate() -> None:
        nonlocal runs
        runs += 1
        for statement in statements:
            connection.execute(sa.text(statement))

    connection.rollback()
    LossGuard(connection, script, "public", losses if told else []).keep(migrate)
    return runs


LOSSES = {
    "drop a table": (["DROP TABLE parts"], "50 rows of parts (dropped"),
    "drop two tables": (["DROP TABLE empty, parts"], "50 rows of parts (dropped"),
    "drop by DO": ([do("DROP TABLE parts")], "50 rows of parts (dropped"),
    "drop a column by DO": ([do("ALTER TABLE things DROP a")], "100 values of things.a (dropped"),
    "drop two columns": (["ALTER TABLE things DROP d, DROP b"], "100 values of things.b (dropped"),
    "drop behind a rename": (["ALTER TABLE parts RENAME TO p", "DROP TABLE p"], "50 rows of parts (dropped"),
    "drop a type": (["DROP TYPE mood CASCADE"], "1 value of moods.mood (dropped"),
    "drop the schema": (
        ["DROP SCHEMA public CASCADE", "CREATE SCHEMA public"],
        "100 rows of things (dropped",
    ),
    "drop the schema by DO": (
        [do("DROP SCHEMA public CASCADE"), "CREATE SCHEMA public"],
        "100 rows of things",
    ),
    "drop another schema": (["DROP SCHEMA others CASCADE"], "1 row of others.theirs (dropped"),
    "drop another schema by DO": ([do("DROP SCHEMA others CASCADE")], "1 row of others.theirs (dropped"),
    "drop a column elsewhere": ([do("ALTER TABLE others.theirs DROP mood")], "1 value of others.theirs.mood"),
    "truncate": (["TRUNCATE parts"], "50 rows of parts (truncated"),
    "truncate by DO": ([do("TRUNCATE parts")], "50 rows of parts (truncated"),
    "truncate by cascade": (["TRUNCATE empty, things CASCADE"], "100 rows of things (truncated"),
    "truncate by cascade in DO": ([do("TRUNCATE things CASCADE")], "1 row of others.theirs (truncated"),
    "truncate and fill": (
        [do("TRUNCATE parts"), "INSERT INTO parts SELECT i FROM generate_series(901, 950) i"],
        "50 values of parts.id (cut",
    ),
    "delete": (["DELETE FROM parts WHERE id <= 3"], "3 rows of parts (deleted"),
    "delete by DO": ([do("DELETE FROM parts WHERE id <= 3")], "3 rows of parts (deleted"),
    "delete and put others": (
        ["DELETE FROM parts WHERE id <= 3", "INSERT INTO parts VALUES (901), (902), (903)"],
        "3 rows of parts (deleted",
    ),
    "delete by a function": (["SELECT purge()"], "3 rows of parts (deleted"),
    "delete by a new function": (
        ["CREATE FUNCTION f() RETURNS void LANGUAGE sql AS 'DELETE FROM parts WHERE id < 3'", "SELECT f()"],
        "2 rows of parts (deleted",
    ),
    "delete by a foreign key": (["DELETE FROM things WHERE id = 1"], "1 row of parts (deleted"),
    "delete elsewhere by a foreign key": (
        [do("DELETE FROM things WHERE id = 1")],
        "1 row of others.theirs (deleted",
    ),
    "delete by a trigger": (["UPDATE things SET touched = true WHERE id <= 4"], "4 rows of parts (deleted"),
    "delete by a CTE": (
        ["WITH gone AS (DELETE FROM parts WHERE id = 9 RETURNING id) SELECT count(*) FROM gone"],
        "1 row of parts (deleted",
    ),
    "delete by MERGE": (
        ["MERGE INTO parts USING things t ON t.id = parts.id AND t.id < 6 WHEN MATCHED THEN DELETE"],
        "5 rows of parts (deleted",
    ),
    "delete by PREPARE": (
        ["PREPARE p AS DELETE FROM parts WHERE id = 1", "EXECUTE p", "DEALLOCATE p"],
        "1 row of parts (deleted",
    ),
    "drop a partition": (
        ["ALTER TABLE parted DETACH PARTITION part", "DROP TABLE part"],
        "2 rows of part (dropped",
    ),
    "truncate the partitioned": ([do("TRUNCATE parted")], "2 rows of part (truncated"),
    "cut by a type": (
        ["ALTER TABLE things ALTER a TYPE varchar(8) USING left(a, 7)"],
        "91 values of things.a (cut",
    ),
    "cut by the same type": (
        [do("ALTER TABLE things ALTER a TYPE text USING left(a, 8)")],
        "1 value of things.a (cut",
    ),
    "cut by a scale": (["ALTER TABLE things ALTER n TYPE numeric(10, 1)"], "100 values of things.n (cut"),
    "cut by a precision": (
        [do("ALTER TABLE things ALTER at TYPE timestamptz(0)")],
        "100 values of things.at (cut",
    ),
    "cut by no way back": (
        [do("ALTER TABLE things ALTER a TYPE int USING length(a)")],
        "100 values of things.a (cut",
    ),
    "cut elsewhere": (
        [do("ALTER TABLE others.theirs ALTER mood TYPE int USING 1")],
        "1 value of others.theirs.mood (cut",
    ),
}

KEPT = {
    "drop what is empty": ["DROP TABLE empty"],
    "drop what is empty by DO": [do("DROP TABLE empty")],
    "drop an empty column by DO": [do("ALTER TABLE empty DROP gone"), do("ALTER TABLE things DROP d")],
    "drop an index": ["CREATE INDEX i ON things (a)", "DROP INDEX i", do("DROP VIEW seen")],
    "make and drop": [
        "CREATE TABLE t AS SELECT 1 AS a",
        "DROP TABLE t",
        do("CREATE TABLE u (a int)"),
        do("DROP TABLE u"),
    ],
    "make and delete": ["CREATE TABLE t AS SELECT 1 AS a", "DELETE FROM t"],
    "temporary": ["CREATE TEMPORARY TABLE t AS SELECT 1 AS a", "DELETE FROM t", "DROP TABLE t"],
    "elsewhere": [
        "CREATE SCHEMA third",
        "CREATE TABLE third.t (a int)",
        "CREATE INDEX ON others.theirs (thing)",
    ],
    "truncate what is empty": ["TRUNCATE empty", do("TRUNCATE empty")],
    "delete nothing": ["DELETE FROM parts WHERE id = 1000"],
    "update": ["UPDATE things SET a = NULL, d = 8", "UPDATE parts SET thing = NULL"],
    "rename": ["ALTER TABLE parts RENAME TO bits", "ALTER TABLE bits RENAME note TO remark"],
    "move": ["ALTER TABLE parts SET SCHEMA others"],
    "detach": ["ALTER TABLE parted DETACH PARTITION part"],
    "a wider type": ["ALTER TABLE things ALTER b TYPE varchar(40)", "ALTER TABLE things ALTER b TYPE text"],
    "another type": [
        "ALTER TABLE things ALTER n TYPE numeric(12, 4)",
        do("ALTER TABLE things ALTER id TYPE bigint"),
        do("ALTER TABLE things ALTER at TYPE timestamp USING at AT TIME ZONE 'UTC'"),
        "ALTER TABLE moods ALTER mood TYPE text",
    ],
    "a rewrite": [
        "ALTER TABLE things ADD COLUMN u uuid DEFAULT gen_random_uuid()",
        "ALTER TABLE parts SET UNLOGGED",
    ],
}


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("name", LOSSES)
def test_what_destroys_is_rolled_back_and_counted(connection: sa.Connection, name: str, told: bool) -> None:
    statements, evidence = LOSSES[name]
    with pytest.raises(DataLossRefused) as raised:
        run_guarded(connection, ["CREATE TABLE before_it (a int)", *statements], told=told)
    assert evidence in raised.value.evidence
    assert f"by revision {REVISION})" in raised.value.evidence
    connection.commit()  # what was refused is gone already: nobody can commit it
    assert connection.scalar(sa.text("SELECT to_regclass('before_it')")) is None
    assert connection.scalar(sa.text("SELECT count(*) FROM things")) == 100
    assert connection.scalar(sa.text("SELECT count(*) FROM parts")) == 50


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("name", KEPT)
def test_what_destroys_nothing_runs(connection: sa.Connection, name: str, told: bool) -> None:
    run_guarded(connection, KEPT[name], told=told)
    left = "SELECT count(*) FROM pg_class WHERE starts_with(relname, 'ragschema_guard')"
    assert connection.scalar(sa.text(left)) == 0
    connection.rollback()


def test_several_losses_are_all_named(connection: sa.Connection) -> None:
    statements = [
        do("DELETE FROM parts WHERE id = 1"),
        do("ALTER TABLE things DROP a"),
        do("TRUNCATE parted"),
    ]
    with pytest.raises(DataLossRefused) as raised:
        run_guarded(connection, statements, told=False)
    assert raised.value.evidence.splitlines() == [
        f"1 row of parts (deleted by revision {REVISION})",
        f"100 values of things.a (dropped by revision {REVISION})",
    ]
    with pytest.raises(DataLossRefused) as raised:
        run_guarded(connection, [statements[0], statements[2]], told=False)
    assert raised.value.evidence.splitlines() == [
        f"1 row of parts (deleted by revision {REVISION})",
        f"2 rows of part (truncated by revision {REVISION})",
    ]


def test_what_a_revision_derives_may_go(connection: sa.Connection) -> None:
    drop = "ALTER TABLE things DROP a"
    for statements in ([drop], [do(drop)]):
        for told in (True, False):
            run_guarded(connection, statements, told=told, derived=["things.a"])
            connection.rollback()


def test_a_revision_runs_twice_only_where_it_must(connection: sa.Connection) -> None:
    drop = "ALTER TABLE empty DROP gone"
    runs = [
        (["UPDATE things SET a = ''", "CREATE INDEX i ON things (a)", "DROP VIEW seen"], False),
        (["CREATE TABLE t (a int)", "DROP INDEX things_b_idx"], False),
        ([drop], True),
        ([do(drop)], False),
        (["ALTER TABLE things ALTER n TYPE numeric(12, 4)"], True),
    ]
    connection.execute(sa.text("CREATE INDEX things_b_idx ON things (b)"))
    connection.commit()
    assert [run_guarded(connection, statements, told=told) for statements, told in runs] == [1, 1, 1, 2, 1]
    connection.rollback()


def test_rows_that_come_while_it_runs_are_not_lost(connection: sa.Connection) -> None:
    """Seen empty at first, by its text or by a run that was rolled back, a table is locked before it is dropped."""
    for told, statement in ((True, "DROP TABLE empty"), (False, do("DROP TABLE empty"))):
        writer = connection.engine.connect()
        writer.execute(sa.text("INSERT INTO empty (id) VALUES (1)"))
        with ThreadPoolExecutor() as pool:
            dropping = pool.submit(run_guarded, connection, [statement], told=told)
            wait_until(partial(is_waiting, writer), "the revision waits for the writer")
            writer.commit()
            with pytest.raises(DataLossRefused, match="1 row of empty"):
                dropping.result(60)
        assert writer.scalar(sa.text("SELECT count(*) FROM empty")) == 1
        writer.execute(sa.text("DELETE FROM empty"))
        writer.commit()
        writer.close()


def is_waiting(connection: sa.Connection) -> bool:
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'empty'::regclass"
    return bool(connection.scalar(sa.text(waiting)))


def test_a_server_that_does_not_count_deletions_is_made_to(connection: sa.Connection) -> None:
    connection.rollback()
    connection.execute(sa.text("SET track_counts = off"))
    connection.commit()
    try:
        with pytest.raises(DataLossRefused, match="1 row of parts"):
            run_guarded(connection, [do("DELETE FROM parts WHERE id = 1")], told=False)
        connection.rollback()
        connection.execute(sa.text("CREATE ROLE small; GRANT ALL ON ALL TABLES IN SCHEMA public TO small"))
        connection.execute(sa.text("SET ROLE small"))
        connection.commit()
        with pytest.raises(ConfigurationError, match="track_counts"):
            run_guarded(connection, [do("DELETE FROM parts WHERE id = 1")], told=False)
    finally:
        connection.rollback()
        connection.execute(sa.text("RESET ROLE; RESET track_counts; DROP OWNED BY small; DROP ROLE small"))
        connection.commit()


# Whole runs.

JOBS = "INSERT INTO rag_jobs (job_type, payload) VALUES ('a', '{}'), ('b', '{}')"
DELETE = do("DELETE FROM rag_jobs WHERE job_type = 'a'")


@pytest.fixture
def revisions(tmp_path: Path, database: Database) -> Revisions:
    with connect(database) as connection:
        connection.execute(JOBS)
    return Revisions(copy_revisions(tmp_path), database)


def in_autocommit(*statements: str) -> str:
    body = "\n".join(f"    op.execute({statement!r})" for statement in statements)
    return f"with op.get_context().autocommit_block():\n{body}"


def execute(*statements: str) -> str:
    return "\n".join(f"op.execute({statement!r})" for statement in statements)


def refused(
    revisions: Revisions, *bodies: str, error: type[RagSchemaError] = DataLossRefused
) -> RagSchemaError:
    """Run a revision that is refused; return the error."""
    head = revisions.current()
    revisions.add("\n".join(bodies))
    with pytest.raises(error) as raised:
        revisions.upgrade()
    assert revisions.current() == head
    return raised.value


def test_a_refused_revision_leaves_the_database_as_it_was(revisions: Revisions) -> None:
    before = dump_schema(revisions.database)
    error = refused(revisions, execute("CREATE TABLE t (a int)", DELETE, "COMMENT ON TABLE rag_jobs IS 'x'"))
    assert error.evidence == f"1 row of rag_jobs (deleted by revision {revisions.head()})"
    assert "so it was rolled back" in error.message
    assert dump_schema(revisions.database) == before
    assert revisions.ask("SELECT count(*) FROM rag_jobs") == 2
    failed = "SELECT error FROM rag_migration_history ORDER BY id DESC LIMIT 1"
    assert "1 row of rag_jobs" in str(revisions.ask(failed))


def test_a_downgrade_is_guarded_too(revisions: Revisions) -> None:
    for downgrade in (
        DELETE,
        do("ALTER TABLE rag_jobs DROP COLUMN job_type"),
        do("DROP TABLE rag_jobs CASCADE"),
    ):
        revision = revisions.add(execute("SELECT 1"), execute(downgrade))
        revisions.upgrade()
        with pytest.raises(DataLossRefused, match="rag_jobs"):
            revisions.downgrade()
        assert revisions.current() == revision
    assert revisions.ask("SELECT count(*) FROM rag_jobs") == 2


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM rag_jobs",
        "TRUNCATE rag_jobs",
        "DROP TABLE rag_chunk_events",
        "ALTER TABLE rag_jobs DROP error_message",
        "ALTER TABLE rag_jobs ALTER error_message TYPE varchar(3)",
        "WITH d AS (DELETE FROM rag_jobs RETURNING id) SELECT id FROM d",
        DELETE,
        "SELECT purge_jobs()",
        "DROP SCHEMA public CASCADE",
        "DROP EXTENSION vector CASCADE",
    ],
)
def test_an_autocommit_block_may_destroy_nothing(revisions: Revisions, statement: str) -> None:
    revisions.ask("CREATE FUNCTION purge_jobs() RETURNS void LANGUAGE sql AS 'DELETE FROM rag_jobs'")
    before = dump_schema(revisions.database)
    error = refused(
        revisions, execute("CREATE TABLE t (a int)"), in_autocommit("ANALYZE rag_jobs", statement)
    )
    assert "nothing was changed" in error.message
    assert "in an autocommit block of revision" in error.evidence
    assert dump_schema(revisions.database) == before
    assert revisions.ask("SELECT count(*) FROM rag_jobs") == 2


def test_an_autocommit_block_that_text_does_not_show_is_stopped(revisions: Revisions) -> None:
    code = "if not op.get_context().as_sql:\n"
    error = refused(revisions, code + textwrap.indent(in_autocommit("DELETE FROM rag_jobs"), "    "))
    assert "was stopped before it destroys data in an autocommit block" in error.message
    assert "up to 2 rows of rag_jobs, by DELETE FROM rag_jobs" in error.evidence
    assert revisions.ask("SELECT count(*) FROM rag_jobs") == 2


def test_the_transaction_before_an_autocommit_block_is_guarded(revisions: Revisions) -> None:
    error = refused(
        revisions,
        execute("CREATE TABLE t (a int)", DELETE),
        in_autocommit("ANALYZE rag_jobs", "ANALYZE rag_jobs"),
    )
    assert error.evidence.startswith("1 row of rag_jobs (deleted")
    assert revisions.ask("SELECT to_regclass('t')") is None
    assert revisions.ask("SELECT count(*) FROM rag_jobs") == 2


def test_the_transaction_after_an_autocommit_block_is_guarded(revisions: Revisions) -> None:
    error = refused(
        revisions, execute("CREATE TABLE t (a int)"), in_autocommit("ANALYZE rag_jobs"), execute(DELETE)
    )
    assert "what it did before an autocommit block stays" in error.message
    assert error.evidence.startswith("1 row of rag_jobs (deleted")
    assert revisions.ask("SELECT count(*) FROM rag_jobs") == 2


def test_what_is_dropped_unseen_beside_an_autocommit_block_is_refused_even_if_empty(
    revisions: Revisions,
) -> None:
    error = refused(
        revisions,
        execute(do("ALTER TABLE rag_jobs DROP error_message")),
        in_autocommit("ANALYZE rag_jobs"),
        error=RevisionRefused,
    )
    assert "cannot be known" in error.message
    assert error.evidence == "dropped or written anew: rag_jobs"


def test_what_is_told_beside_an_autocommit_block_is_counted_beforehand(revisions: Revisions) -> None:
    revision = revisions.add(
        "\n".join([execute("ALTER TABLE rag_jobs DROP error_message"), in_autocommit("ANALYZE rag_jobs")])
    )
    revisions.upgrade()
    assert revisions.current() == revision


def test_both_commands_refuse_and_are_allowed(tmp_path: Path, database: Database) -> None:
    """And the refusal says what the revision declares."""
    with connect(database) as connection:
        connection.execute(JOBS)
    checkout = Checkout(tmp_path)
    checkout.add(
        execute(DELETE), execute(do("DROP TABLE rag_jobs CASCADE")), data="deletes the jobs of a test"
    )
    for command in (MIGRATE, ALEMBIC):
        ran = checkout.run(*command, database=database)
        assert ran.returncode != 0
        shown = ran.stdout + ran.stderr
        assert f"1 row of rag_jobs (deleted by revision {checkout.head})" in shown
        assert f"revision {checkout.head} says: deletes the jobs of a test." in shown
        assert "--allow-data-loss" in shown
    assert checkout.run(*MIGRATE, "--allow-data-loss", database=database).returncode == 0
    back = ("rag", "migrate", "rollback", "-1", "--yes")
    for steps in (back, ("alembic", "downgrade", "-1")):
        ran = checkout.run(*steps, database=database)
        assert ran.returncode != 0
        assert f"1 row of rag_jobs (dropped by revision {checkout.head})" in ran.stdout + ran.stderr
    with connect(database) as connection:
        assert connection.execute("SELECT job_type FROM rag_jobs").fetchall() == [("b",)]
        allowed = checkout.run("alembic", "-x", "allow-data-loss=yes", "downgrade", "-1", database=database)
        assert allowed.returncode == 0, allowed.stderr
        assert connection.execute("SELECT to_regclass('rag_jobs')").fetchone() == (None,)


def test_a_revision_may_not_commit_by_itself(revisions: Revisions) -> None:
    error = refused(revisions, execute(DELETE, "COMMIT"), error=RevisionRefused)
    assert "ends its transaction by itself" in error.message
    assert revisions.ask("SELECT count(*) FROM rag_jobs") == 2
