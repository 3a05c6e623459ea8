"""What the text of a statement tells: the same locks and rewrites that a server shows when it runs it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import psycopg
import pytest

from conftest import connect, made_database
from ragschema.planning.effects import MODES, rank, stronger
from ragschema.planning.table_sizes import Tables, read_tables
from ragschema.planning.text_effects import Analysis
from ragschema.sql.losses import Loss

NAMES = {f"{mode.title().replace(' ', '')}Lock": mode for mode in MODES}

OTHERS = """
CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TABLE plain (a text NOT NULL, b text);
ALTER TABLE plain ADD CHECK (b IS NOT NULL) NOT VALID;
CREATE TABLE checked (a text CONSTRAINT there CHECK (a IS NOT NULL), b uuid);
ALTER TABLE checked ADD CONSTRAINT loose FOREIGN KEY (b) REFERENCES rag_jobs (id) NOT VALID;
CREATE TABLE parted (a text NOT NULL, b text) PARTITION BY LIST (a);
CREATE TABLE part PARTITION OF parted FOR VALUES IN ('1');
CREATE TRIGGER tr BEFORE UPDATE ON plain FOR EACH ROW EXECUTE FUNCTION nothing();
CREATE POLICY po ON plain USING (true);
CREATE RULE ru AS ON DELETE TO plain DO INSTEAD NOTHING;
CREATE MATERIALIZED VIEW seen AS SELECT 1 AS a;
CREATE UNIQUE INDEX ready ON plain (a)
"""

STATEMENTS = [
    "ALTER TABLE rag_jobs ADD COLUMN a text",
    "ALTER TABLE rag_jobs ADD a int DEFAULT 3 NOT NULL, ADD COLUMN b timestamptz DEFAULT now()",
    "ALTER TABLE rag_jobs ADD COLUMN a uuid DEFAULT gen_random_uuid()",
    "ALTER TABLE rag_jobs ADD COLUMN a text DEFAULT 'random()'::varchar(10)",
    "ALTER TABLE rag_jobs ADD COLUMN a numeric DEFAULT round(random()::numeric(3,2), 1)",
    "ALTER TABLE rag_jobs ADD COLUMN a timestamptz DEFAULT clock_timestamp() NOT NULL",
    "ALTER TABLE rag_jobs ADD COLUMN a timestamptz DEFAULT CURRENT_TIMESTAMP(3) CHECK (a > '2000-01-01')",
    "ALTER TABLE rag_jobs ADD COLUMN a text GENERATED ALWAYS AS (job_type || 'x') STORED",
    "ALTER TABLE rag_jobs ADD COLUMN a bigserial",
    "ALTER TABLE rag_jobs ADD COLUMN a int GENERATED ALWAYS AS IDENTITY",
    "ALTER TABLE rag_jobs ADD COLUMN a uuid REFERENCES rag_documents (id)",
    "ALTER TABLE rag_jobs ADD COLUMN a uuid UNIQUE",
    '/* x */ ALTER TABLE IF EXISTS ONLY "public"."rag_jobs" -- y\n ADD COLUMN "A, b" numeric(10, 2) DEFAULT 1.5',
    "ALTER TABLE rag_chunks DROP COLUMN content",
    "ALTER TABLE rag_jobs ALTER COLUMN job_type SET DEFAULT 'a'",
    "ALTER TABLE rag_jobs ALTER COLUMN error_message SET NOT NULL",
    "ALTER TABLE rag_jobs ALTER job_type TYPE varchar(10)",
    "ALTER TABLE rag_jobs ALTER job_type SET STATISTICS 100",
    "ALTER TABLE rag_jobs ALTER job_type SET (n_distinct = 5)",
    "ALTER TABLE rag_jobs ALTER job_type SET STORAGE EXTERNAL",
    "ALTER TABLE rag_jobs SET (fillfactor = 80)",
    "ALTER TABLE rag_jobs RESET (fillfactor)",
    "ALTER TABLE plain SET UNLOGGED",
    "ALTER TABLE rag_jobs RENAME TO other",
    "ALTER TABLE rag_jobs RENAME COLUMN job_type TO other",
    "ALTER TABLE rag_jobs ADD CONSTRAINT c CHECK (job_type <> '') NOT VALID",
    "ALTER TABLE rag_jobs ADD CHECK (job_type <> '')",
    "ALTER TABLE rag_jobs ADD UNIQUE (job_type)",
    "ALTER TABLE plain ADD CONSTRAINT u UNIQUE USING INDEX ready",
    "ALTER TABLE rag_chunks ADD CONSTRAINT f FOREIGN KEY (id) REFERENCES rag_jobs (id) NOT VALID",
    "ALTER TABLE rag_chunks ADD FOREIGN KEY (id) REFERENCES rag_jobs (id)",
    "ALTER TABLE rag_chunks VALIDATE CONSTRAINT rag_chunks_version_id_fkey",
    "ALTER TABLE checked VALIDATE CONSTRAINT loose",
    "ALTER TABLE rag_chunks DROP CONSTRAINT rag_chunks_version_id_fkey",
    "ALTER TABLE rag_chunks DISABLE TRIGGER USER",
    "ALTER TABLE rag_chunks ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE rag_chunks CLUSTER ON rag_chunks_pkey",
    "ALTER TABLE rag_chunks REPLICA IDENTITY FULL",
    "ALTER TABLE rag_chunks ALTER CONSTRAINT rag_chunks_version_id_fkey DEFERRABLE",
    "ALTER TABLE parted ATTACH PARTITION plain FOR VALUES IN ('x')",
    "ALTER TABLE parted DETACH PARTITION part",
    "CREATE INDEX ON rag_jobs (job_type)",
    "CREATE UNIQUE INDEX i ON ONLY rag_jobs USING btree (job_type) WHERE job_type <> 'it''s ON rag_chunks'",
    "DROP INDEX rag_jobs_status_job_type_idx",
    "REINDEX TABLE rag_jobs",
    "REINDEX INDEX rag_jobs_status_job_type_idx",
    "ALTER INDEX rag_jobs_status_job_type_idx RENAME TO other",
    "CREATE TABLE t (a uuid REFERENCES rag_jobs (id), b uuid REFERENCES rag_chunks (id))",
    "CREATE TABLE t (LIKE rag_jobs INCLUDING ALL)",
    "CREATE TABLE t () INHERITS (plain)",
    "CREATE TABLE t PARTITION OF parted FOR VALUES IN ('q')",
    "DROP TABLE rag_chunk_events",
    "DROP TABLE IF EXISTS checked, rag_chunk_events",
    "DROP TABLE rag_chunks CASCADE",
    "LOCK TABLE rag_jobs IN SHARE ROW EXCLUSIVE MODE",
    "LOCK rag_jobs, rag_chunks",
    "CREATE TRIGGER g AFTER UPDATE ON rag_jobs FOR EACH ROW EXECUTE FUNCTION nothing()",
    "DROP TRIGGER tr ON plain",
    "ALTER TRIGGER tr ON plain RENAME TO other",
    "CREATE POLICY p ON rag_jobs USING (true)",
    "ALTER POLICY po ON plain USING (false)",
    "DROP POLICY po ON plain",
    "CREATE RULE r AS ON INSERT TO plain DO NOTHING",
    "DROP RULE ru ON plain",
    "COMMENT ON TABLE rag_jobs IS 'ALTER TABLE rag_chunks'",
    "COMMENT ON COLUMN rag_jobs.job_type IS 'x'",
    "ANALYZE rag_jobs",
    "CLUSTER rag_jobs USING rag_jobs_pkey",
    "CREATE STATISTICS st ON job_type, status FROM rag_jobs",
    "REFRESH MATERIALIZED VIEW seen",
    "INSERT INTO rag_jobs (job_type, payload) VALUES ('UPDATE rag_chunks SET x', '{}')",
    "UPDATE rag_jobs SET job_type = 'x' WHERE id IS NULL",
    "UPDATE ONLY rag_jobs AS j SET job_type = 'x'",
    "DELETE FROM rag_jobs",
    "MERGE INTO rag_jobs USING (SELECT 1) s ON true WHEN MATCHED THEN DELETE",
    "WITH gone AS (DELETE FROM rag_jobs RETURNING id) UPDATE checked SET a = 'x' WHERE false",
    "CREATE TYPE ty AS ENUM ('a')",
    "ALTER TYPE job_status ADD VALUE 'stuck'",
    "CREATE FUNCTION g() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN UPDATE rag_jobs SET x = 1; END $f$",
    "ALTER TABLE rag_jobs ADD COLUMN a int; CREATE INDEX i ON rag_chunks (ordinal)",
]

Connection = psycopg.Connection[psycopg.rows.TupleRow]


@pytest.fixture(scope="module")
def connection(server: Mapping[str, str], template: str) -> Iterator[Connection]:
    """A connection to a database at head and tables of others; each test's transaction is rolled back."""
    with made_database(server, template) as database, connect(database) as connection:
        connection.execute(OTHERS)
        connection.autocommit = False
        yield connection


@pytest.fixture
def tables(connection: Connection) -> Iterator[Tables]:
    yield read_tables(connection, "public")
    connection.rollback()


def look(connection: Connection, tables: Mapping[int, str]) -> tuple[dict[str, str], dict[int, int | None]]:
    """Return the strongest lock held by table, and the file of each."""
    locks: dict[str, str] = {}
    for oid, name in connection.execute(
        "SELECT relation::int8, mode FROM pg_locks WHERE pid = pg_backend_pid() AND relation = ANY (%s)",
        (list(tables),),
    ).fetchall():
        locks[tables[oid]] = stronger(NAMES[name], locks.get(tables[oid]))
    files = connection.execute(
        "SELECT oid::int8, pg_relation_filenode(oid)::int8 FROM pg_class WHERE oid = ANY (%s)",
        (list(tables),),
    )
    return locks, dict(files.fetchall())


@pytest.mark.parametrize("statement", STATEMENTS)
def test_the_text_tells_what_the_server_does(connection: Connection, tables: Tables, statement: str) -> None:
    connection.rollback()
    oids: dict[int, str] = dict(
        connection.execute(
            "SELECT oid::int8, relname::text FROM pg_class"
            " WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'm')"
        ).fetchall()
    )
    _, before = look(connection, oids)
    connection.execute(statement.encode())
    locks, after = look(connection, oids)
    effect = Analysis(tables).read(statement)
    assert effect.locks == locks
    assert effect.rewrites == {oids[oid] for oid in after if after[oid] != before[oid]}


@pytest.mark.parametrize(
    ("statement", "mode"),
    [
        ("CREATE INDEX CONCURRENTLY i ON rag_jobs (job_type)", "SHARE UPDATE EXCLUSIVE"),
        ("DROP INDEX CONCURRENTLY rag_jobs_status_job_type_idx", "SHARE UPDATE EXCLUSIVE"),
        ("REINDEX (VERBOSE) TABLE CONCURRENTLY rag_jobs", "SHARE UPDATE EXCLUSIVE"),
        ("REINDEX INDEX CONCURRENTLY rag_jobs_pkey", "SHARE UPDATE EXCLUSIVE"),
        ("VACUUM (ANALYZE) rag_jobs", "SHARE UPDATE EXCLUSIVE"),
        ("VACUUM FULL rag_jobs", "ACCESS EXCLUSIVE"),
        ("TRUNCATE TABLE rag_jobs", "ACCESS EXCLUSIVE"),
    ],
)
def test_what_runs_outside_a_transaction_has_its_known_lock(
    tables: Tables, statement: str, mode: str
) -> None:
    assert Analysis(tables).read(statement).locks == {"rag_jobs": mode}


def scans(tables: Tables, *statements: str) -> set[str]:
    """Return the tables that the last of some statements reads to check their rows."""
    analysis = Analysis(tables)
    return [analysis.read(statement).scans for statement in statements][-1]


def test_what_reads_every_row_is_told_from_what_does_not(tables: Tables) -> None:
    alter = "ALTER TABLE rag_jobs"
    assert scans(tables, f"{alter} ADD CONSTRAINT c CHECK (job_type <> '')") == {"rag_jobs"}
    assert scans(tables, f"{alter} ADD CONSTRAINT c CHECK (job_type <> '') NOT VALID") == set()
    assert scans(tables, "ALTER TABLE rag_chunks ADD FOREIGN KEY (id) REFERENCES rag_jobs") == {"rag_chunks"}
    assert scans(tables, f"{alter} ADD NOT NULL error_message NOT VALID") == set()
    assert scans(tables, f"{alter} ALTER error_message SET NOT NULL") == {"rag_jobs"}
    assert scans(tables, "ALTER TABLE checked VALIDATE CONSTRAINT loose") == {"checked"}
    assert scans(tables, "ALTER TABLE parted ATTACH PARTITION plain FOR VALUES IN ('x')") == {"plain"}


def test_set_not_null_reads_no_row_behind_a_valid_check(tables: Tables) -> None:
    assert scans(tables, "ALTER TABLE checked ALTER a SET NOT NULL") == set()
    assert scans(tables, "ALTER TABLE plain ALTER b SET NOT NULL") == {"plain"}  # its CHECK is NOT VALID
    add = 'ALTER TABLE rag_jobs ADD CONSTRAINT "there" CHECK (("error_message" IS NOT NULL)) NOT VALID'
    validate = "ALTER TABLE rag_jobs VALIDATE CONSTRAINT there"
    set_not_null = "ALTER TABLE rag_jobs ALTER COLUMN error_message SET NOT NULL"
    assert scans(tables, add, set_not_null) == {"rag_jobs"}
    assert scans(tables, add, validate, set_not_null) == set()


def test_what_is_destroyed_or_cannot_be_done_on_rows_is_told(tables: Tables) -> None:
    analysis = Analysis(tables)
    dropped = Loss("column", "rag_jobs", "error_message")
    assert analysis.read("ALTER TABLE rag_jobs DROP error_message").losses == [dropped]
    emptied = [Loss("all rows", "rag_jobs"), Loss("all rows", "plain")]
    assert analysis.read("TRUNCATE rag_jobs, plain, of_another_schema").losses == emptied
    assert set(analysis.read("ALTER TABLE rag_jobs ADD a int NOT NULL").refused) == {"rag_jobs"}
    assert analysis.read("ALTER TABLE rag_jobs ADD a int NOT NULL DEFAULT 1").refused == {}
    assert analysis.read("DO $$ BEGIN END $$").is_opaque


def test_sizes_are_those_of_the_server(connection: Connection) -> None:
    connection.execute("INSERT INTO parted SELECT '1', 'b' FROM generate_series(1, 700)")
    connection.execute("ANALYZE parted")
    connection.execute("INSERT INTO plain VALUES ('a', 'b')")
    found = read_tables(connection, "public").sizes
    connection.rollback()
    assert (found["parted"].rows, found["parted"].has_rows) == (700, True)
    assert found["parted"].bytes == found["part"].bytes > 0
    assert (found["plain"].rows, found["plain"].has_rows) == (None, True)  # never analysed
    assert (found["rag_chunks"].rows, found["rag_chunks"].has_rows) == (0, False)
    assert not {"rag_alembic_version", "rag_migration_history"} & found.keys()


def test_lock_modes_are_ordered(connection: Connection) -> None:
    assert [rank(mode) for mode in MODES] == list(range(8))
    assert (
        stronger("SHARE", "ROW SHARE") == stronger("ROW SHARE", "SHARE") == stronger("SHARE", None) == "SHARE"
    )
