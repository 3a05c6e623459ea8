"""What a statement destroys: one table, and the same answer from the guard's text, from lint and from the plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest
from alembic.script import Script

from added_revisions import Revisions, copy_revisions
from conftest import connect, made_database
from ragschema.authoring.lint.subject import find_removals, read_subject
from ragschema.database.settings import Database
from ragschema.planning.losses import read_losses_of
from ragschema.planning.table_sizes import Tables, read_tables
from ragschema.planning.text_effects import Analysis
from ragschema.sql.losses import Loss, ends_transaction, find_losses

J, C, E, D = "rag_jobs", "rag_chunks", "rag_chunk_events", "rag_documents"
UNKNOWN = Loss("unknown")


def table(name: str, schema: str | None = None) -> Loss:
    return Loss("table", name, None, schema)


def column(name: str, column: str, schema: str | None = None) -> Loss:
    return Loss("column", name, column, schema)


def values(name: str, column: str) -> Loss:
    return Loss("values", name, column)


def rows(name: str, schema: str | None = None) -> Loss:
    return Loss("rows", name, None, schema)


def all_rows(name: str, schema: str | None = None) -> Loss:
    return Loss("all rows", name, None, schema)


STATEMENTS: dict[str, list[Loss]] = {
    # DROP TABLE
    "DROP TABLE rag_jobs": [table(J)],
    "DROP TABLE IF EXISTS rag_jobs, rag_chunks CASCADE": [table(J), table(C)],
    "drop table public.rag_jobs restrict": [table(J, "public")],
    'DROP TABLE "public"."rag_jobs", public . rag_chunks': [table(J, "public"), table(C, "public")],
    'DROP TABLE "Odd, ""name""; --"': [table('Odd, "name"; --')],
    'DROP TABLE Rag_Jobs, "Rag_Jobs"': [table(J), table("Rag_Jobs")],
    "/* all /* of */ it */ DROP -- now\n TABLE /* not rag_chunks */ rag_jobs -- , rag_documents": [table(J)],
    # DROP COLUMN
    "ALTER TABLE rag_document_versions DROP url": [column("rag_document_versions", "url")],
    "ALTER TABLE IF EXISTS ONLY public.rag_jobs * DROP COLUMN IF EXISTS payload CASCADE": [
        column(J, "payload", "public")
    ],
    "ALTER TABLE rag_jobs DROP payload, DROP COLUMN status": [column(J, "payload"), column(J, "status")],
    "ALTER TABLE rag_jobs ADD COLUMN a numeric(10, 2) DEFAULT 1, DROP payload, ADD b text": [
        column(J, "payload")
    ],
    "ALTER TABLE rag_jobs ADD CHECK (status IN ('a', 'DROP b', 'c')), DROP CONSTRAINT c, DROP payload": [
        column(J, "payload")
    ],
    'ALTER TABLE rag_jobs DROP "Odd, column"': [column(J, "Odd, column")],
    "ALTER TABLE rag_jobs /* DROP status, */ DROP /* COLUMN */ payload": [column(J, "payload")],
    "ALTER TABLE rag_jobs ALTER status DROP DEFAULT, ALTER status DROP NOT NULL, DROP CONSTRAINT IF EXISTS c": [],
    "ALTER TABLE rag_jobs ALTER a DROP EXPRESSION, ALTER b DROP IDENTITY IF EXISTS": [],
    # a column's type
    "ALTER TABLE rag_jobs ALTER error_message TYPE varchar(10)": [values(J, "error_message")],
    "ALTER TABLE rag_jobs ALTER COLUMN error_message SET DATA TYPE text USING left(error_message, 3)": [
        values(J, "error_message")
    ],
    "ALTER TABLE rag_jobs ALTER a SET DEFAULT 'TYPE', ALTER error_message TYPE text, DROP payload": [
        values(J, "error_message"),
        column(J, "payload"),
    ],
    "ALTER TABLE rag_jobs ALTER status SET STATISTICS 10, ALTER status SET STORAGE PLAIN": [],
    # TRUNCATE
    "TRUNCATE rag_jobs": [all_rows(J)],
    "TRUNCATE TABLE ONLY rag_jobs, public.rag_chunks * RESTART IDENTITY": [
        all_rows(J),
        all_rows(C, "public"),
    ],
    "TRUNCATE rag_documents CASCADE": [all_rows(D), UNKNOWN],
    # rows
    "DELETE FROM rag_jobs": [rows(J)],
    "DELETE FROM ONLY public.rag_jobs AS j USING rag_chunks WHERE true RETURNING j.id": [rows(J, "public")],
    "WITH gone AS (DELETE FROM rag_jobs RETURNING id), more AS (DELETE FROM rag_chunks) SELECT 1 FROM gone": [
        rows(J),
        rows(C),
    ],
    "WITH old AS (SELECT id FROM rag_chunks) DELETE FROM rag_jobs WHERE id IN (SELECT id FROM old)": [
        rows(J)
    ],
    "MERGE INTO rag_jobs j USING rag_chunks c ON c.id = j.id WHEN MATCHED AND true THEN DELETE": [rows(J)],
    "MERGE INTO rag_jobs j USING rag_chunks c ON c.id = j.id WHEN MATCHED THEN UPDATE SET status = 'new'": [],
    "EXPLAIN ANALYZE DELETE FROM rag_jobs": [rows(J)],
    "COPY (DELETE FROM rag_jobs RETURNING *) TO STDOUT": [rows(J)],
    "INSERT INTO rag_chunks SELECT 'DELETE FROM rag_jobs' -- DELETE FROM rag_jobs": [],
    "UPDATE rag_jobs SET payload = NULL": [],
    "INSERT INTO rag_jobs VALUES (1) ON CONFLICT DO UPDATE SET status = 'new'": [],
    # whatever hangs on it
    "DROP SCHEMA public CASCADE": [Loss("schema", "public")],
    'DROP SCHEMA IF EXISTS others, "Third" CASCADE': [Loss("schema", "others"), Loss("schema", "Third")],
    "DROP SCHEMA others": [],
    "DROP TYPE job_status CASCADE": [UNKNOWN],
    "DROP DOMAIN IF EXISTS d CASCADE": [UNKNOWN],
    "DROP EXTENSION vector CASCADE": [UNKNOWN],
    "DROP FUNCTION f(int) CASCADE": [UNKNOWN],
    "DROP TYPE job_status": [],
    "DROP VIEW v CASCADE": [],
    "DROP MATERIALIZED VIEW v CASCADE": [],
    "DROP INDEX CONCURRENTLY i": [],
    "DROP TRIGGER t ON rag_jobs CASCADE": [],
    "DROP OWNED BY somebody": [UNKNOWN],
    "ALTER TYPE pair DROP ATTRIBUTE a CASCADE": [UNKNOWN],
    "ALTER TYPE job_status ADD VALUE 'drop'": [],
    # what is nowhere destroyed
    "ALTER TABLE rag_jobs RENAME TO jobs": [],
    "ALTER TABLE rag_jobs RENAME COLUMN payload TO drop_it": [],
    "ALTER TABLE rag_jobs DETACH PARTITION p": [],
    "ALTER TABLE rag_jobs NO INHERIT rag_chunks": [],
    "ALTER TABLE rag_jobs SET SCHEMA others": [],
    "CREATE TABLE t (a text DEFAULT 'DROP TABLE rag_jobs')": [],
    "COMMENT ON TABLE rag_jobs IS 'x; DROP TABLE rag_jobs; --'": [],
    "CREATE RULE r AS ON INSERT TO rag_jobs DO ALSO DELETE FROM rag_chunks": [],
    "PREPARE p AS DELETE FROM rag_jobs": [],
    # what a text does not tell
    "DO $$ BEGIN EXECUTE 'DROP TABLE rag_jobs'; END $$": [UNKNOWN],
    "DO LANGUAGE plpgsql 'BEGIN DELETE FROM rag_jobs; END'": [UNKNOWN],
    "CALL purge_jobs()": [UNKNOWN],
    "EXECUTE p": [UNKNOWN],
    "CREATE FUNCTION f() RETURNS void LANGUAGE sql AS $f$ DELETE FROM rag_jobs; DROP TABLE rag_jobs $f$": [],
    "CREATE FUNCTION g() RETURNS void LANGUAGE sql BEGIN ATOMIC DELETE FROM rag_jobs; SELECT CASE 1 WHEN 1 THEN 2 END;"
    " END": [],
    "SELECT purge()": [Loss("call", "purge")],
    "SELECT count(*) FROM public.purge() AS x (a) WHERE steady(a)": [Loss("call", "purge")],
    "SELECT set_config('a.b', 'DELETE FROM rag_jobs', false), pg_sleep(0)": [],
    # several
    "DROP TABLE rag_jobs; DELETE FROM rag_chunks; DO 'x'": [table(J), rows(C), UNKNOWN],
}


EXPECTED = [loss for losses in STATEMENTS.values() for loss in losses]


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Script:
    """A revision that runs all of them."""
    revisions = Revisions(copy_revisions(tmp_path_factory.mktemp("losses")), Database({}, "none"))
    revisions.add("\n".join(f"op.execute({sql!r})" for sql in STATEMENTS))
    return revisions.last()


@pytest.fixture(scope="module")
def tables(server: Mapping[str, str], template: str) -> Iterator[Tables]:
    with made_database(server, template) as database, connect(database) as connection:
        connection.execute('CREATE TABLE "Odd, ""name""; --" (a int); CREATE TABLE "Rag_Jobs" (a int)')
        connection.execute("CREATE FUNCTION purge() RETURNS int LANGUAGE sql AS 'SELECT 1'")
        yield read_tables(connection, "public")


@pytest.mark.parametrize("sql", STATEMENTS)
def test_the_reader_and_the_plan_say_what_a_statement_destroys(tables: Tables, sql: str) -> None:
    assert list(find_losses(sql)) == STATEMENTS[sql]
    effect = Analysis(tables).read(sql)
    assert effect.losses == STATEMENTS[sql]
    assert effect.is_opaque == any(loss.kind in ("unknown", "call") for loss in STATEMENTS[sql])


def test_the_guard_says_the_same(script: Script) -> None:
    assert [each.loss for each in read_losses_of(script, "upgrade")] == EXPECTED


def test_lint_says_the_same(script: Script) -> None:
    subject = read_subject(script)
    assert [loss for _, loss in subject.losses("upgrade")] == EXPECTED
    removed = [
        (thing.kind, thing.name) for _, thing in find_removals(subject) if thing.kind in ("table", "column")
    ]
    assert removed == [
        (loss.kind, loss.column or loss.name) for loss in EXPECTED if loss.kind in ("table", "column")
    ]


def test_the_plan_leaves_out_what_is_not_there(tables: Tables) -> None:
    sql = "DROP TABLE others.rag_jobs, gone; DELETE FROM gone; SELECT steady()"
    assert len(find_losses(sql)) == 4
    assert Analysis(tables).read(sql).losses == []


@pytest.mark.parametrize(
    "sql", ["COMMIT", "DROP TABLE a; end", "ROLLBACK", "PREPARE TRANSACTION 'a'", "abort work"]
)
def test_a_statement_that_ends_the_transaction_is_known(sql: str) -> None:
    assert ends_transaction(sql)


@pytest.mark.parametrize(
    "sql", ["ROLLBACK TO SAVEPOINT a", "SELECT 'COMMIT'", "DO 'COMMIT'", "RELEASE a", "-- COMMIT"]
)
def test_a_statement_that_does_not_end_the_transaction_is_known(sql: str) -> None:
    assert not ends_transaction(sql)
