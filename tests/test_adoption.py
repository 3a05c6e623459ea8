"""Moving in: databases made by hand or by create_all are taken over, with their rows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import sqlalchemy as sa

from checkouts import wait_until
from conftest import (
    ROOT,
    Command,
    DatabaseAt,
    connect,
    dump_schema,
    made_database,
    read_rows,
    run_psql,
)
from ragschema import Base, migrations
from ragschema.database.options import Options
from ragschema.database.settings import Database
from ragschema.errors import DatabaseAhead, DriftFound, LockNotObtained, UnmanagedDatabase, UsageError
from ragschema.migrations.preparation import prepare_database
from ragschema.migrations.repair import repair
from ragschema.revisions.manifest import read_manifest

ROWS = """
INSERT INTO rag_documents (article_id) VALUES ('a'), ('b');
INSERT INTO rag_document_versions (document_id, version_number, source_hash, chunker_version, embedder_version)
SELECT id, n, 'h', 'c', 'e' FROM rag_documents, generate_series(1, 2) n;
UPDATE rag_documents d SET current_version_id = v.id
FROM rag_document_versions v WHERE v.document_id = d.id AND v.version_number = 2;
INSERT INTO rag_chunks (version_id, ordinal, content, embedding)
SELECT id, n, 'text', array_fill(n, ARRAY[768])::vector FROM rag_document_versions, generate_series(1, 3) n;
INSERT INTO rag_chunk_events (version_id, chunk_id, ordinal, event_type)
SELECT version_id, id, ordinal, 'added' FROM rag_chunks;
INSERT INTO rag_jobs (job_type, payload) SELECT 'embed', '{}' FROM generate_series(1, 5);
"""


@pytest.fixture
def by_hand(server: Mapping[str, str], hand_made: str) -> Iterator[Database]:
    """A database made by the hand-written SQL, with rows, as Atlas left it."""
    with made_database(server, hand_made) as database:
        run_psql(database, ROWS)
        run_psql(
            database,
            "CREATE TABLE atlas_schema_revisions (version text PRIMARY KEY);"
            "INSERT INTO atlas_schema_revisions VALUES ('20251225170000')",
        )
        yield database


def content(database: Database) -> list[object]:
    """Return all rows, but for the columns that a hand-written schema does not have."""
    with connect(database) as connection:
        atlas = connection.execute("SELECT version FROM atlas_schema_revisions").fetchall()
    return [read_rows(database, "20251225170000"), atlas]


def test_a_hand_made_schema_is_adopted_and_ends_like_a_fresh_one(
    by_hand: Database, database: Database
) -> None:
    before = content(by_hand)
    adoption = migrations.adopt(by_hand)
    assert (adoption.revision, adoption.was_managed) == ("20251225170000", False)
    assert adoption.drift is not None
    assert len(adoption.drift.repaired_later) == 5
    migrations.upgrade(by_hand)
    assert content(by_hand) == before
    run_psql(by_hand, "DROP FUNCTION uuid_generate_v4(); DROP TABLE atlas_schema_revisions")
    assert dump_schema(by_hand) == dump_schema(database)
    assert migrations.verify(by_hand).differences == ()


def test_create_all_is_adopted_at_a_revision_that_fits(empty_database: Database) -> None:
    Base.metadata.create_all(sa.create_engine(empty_database.url(), poolclass=sa.NullPool))
    adoption = migrations.adopt(empty_database)
    assert adoption.drift is not None
    assert adoption.drift.is_clean
    migrations.upgrade(empty_database)
    assert migrations.verify(empty_database).differences == ()


def test_the_base_alone_is_adopted_as_the_base(database_at: DatabaseAt) -> None:
    database = database_at("20251225160000")
    run_psql(database, "DROP TABLE rag_alembic_version, rag_migration_history")
    assert migrations.adopt(database).revision == "20251225160000"


def test_a_baseline_is_verified(by_hand: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DriftFound, match="not those of the baseline, 20251225160000") as refused:
        migrations.adopt(by_hand, baseline="20251225160000")
    assert "rag_document_versions.title" in refused.value.evidence
    assert migrations.status(by_hand).state == "UNMANAGED"
    with pytest.raises(UsageError, match="There is no revision 1"):
        migrations.adopt(by_hand, baseline="1")
    monkeypatch.setenv("MIGRATE_BASELINE_VERSION", "20251225170000")
    assert migrations.adopt(by_hand).revision == "20251225170000"


def test_what_fits_nothing_is_shown_and_not_stamped(by_hand: Database, run: Command) -> None:
    run_psql(by_hand, "ALTER TABLE rag_jobs DROP COLUMN error_message; DROP INDEX rag_chunks_embedding_idx")
    result = run("rag", "migrate", "adopt", DATABASE_URL=by_hand.libpq_url())
    assert result.returncode == 4
    assert "rag_jobs.error_message is missing" in result.stderr
    assert "rag_chunks_embedding_idx" in result.stderr
    assert migrations.status(by_hand).state == "UNMANAGED"


def test_migrate_refuses_and_names_adopt(by_hand: Database, run: Command) -> None:
    for command in (("rag", "migrate"), ("alembic", "upgrade", "head")):
        result = run(*command, cwd=ROOT, DATABASE_URL=by_hand.libpq_url())
        assert result.returncode != 0
        assert "rag migrate adopt" in result.stdout + result.stderr
    with connect(by_hand) as connection:
        assert connection.execute("SELECT to_regclass('rag_alembic_version')").fetchone() == (None,)


def test_an_empty_database_and_a_managed_one_are_not_adopted(
    empty_database: Database, database: Database
) -> None:
    with pytest.raises(UnmanagedDatabase, match="none of our tables"):
        migrations.adopt(empty_database)
    assert migrations.adopt(database).was_managed


BACKWARDS, FORWARDS = "20251225170000", read_manifest().head


@pytest.mark.parametrize("at", ["head", "20251225170000", "nothing"])
@pytest.mark.parametrize("command", ["rag migrate stamp", "alembic stamp"])
def test_a_stamp_that_the_tables_are_not_is_refused(
    empty_database: Database, database_at: DatabaseAt, run: Command, at: str, command: str
) -> None:
    database = empty_database if at == "nothing" else database_at(FORWARDS if at == "head" else at)
    before = migrations.status(database).current
    wrong = BACKWARDS if at == "head" else FORWARDS
    result = run(*command.split(), wrong, cwd=ROOT, DATABASE_URL=database.libpq_url())
    shown = result.stdout + result.stderr
    assert result.returncode == (4 if command.startswith("rag") else 255), shown
    assert f"The tables are not those of revision {wrong}" in shown
    assert "Nothing was stamped" in shown
    assert "--force" in shown
    assert migrations.status(database).current == before
    if at != "nothing":
        to_base = run("rag", "migrate", "stamp", "base", DATABASE_URL=database.libpq_url())
        assert to_base.returncode == 4
        assert "has our tables, and at base there are none" in to_base.stderr


def test_a_stamp_that_fits_and_a_forced_one_are_made(database: Database, run: Command) -> None:
    url = database.libpq_url()
    assert run("rag", "migrate", "stamp", "head", DATABASE_URL=url).returncode == 0
    assert run("rag", "migrate", "stamp", BACKWARDS, "--force", DATABASE_URL=url).returncode == 0
    assert migrations.status(database).current == BACKWARDS
    forced = run("alembic", "-x", "force=yes", "stamp", "base", cwd=ROOT, DATABASE_URL=url)
    assert forced.returncode == 0, forced.stderr
    assert migrations.status(database).state == "UNMANAGED"


@pytest.mark.parametrize("wrong", [BACKWARDS, "20261121120500"])
def test_adopt_heals_a_wrong_stamp(database: Database, run: Command, wrong: str) -> None:
    migrations.stamp(database, wrong, force=True)
    healed = run("rag", "migrate", "adopt", DATABASE_URL=database.libpq_url())
    assert healed.returncode == 0, healed.stderr
    assert f"The database said {wrong}, and its tables are not that revision's." in healed.stdout
    status = migrations.status(database)
    assert (status.state, status.current) == ("OK", FORWARDS)
    assert migrations.adopt(database).was_managed


def test_adopt_does_not_stamp_over_what_it_cannot_know(database: Database, empty_database: Database) -> None:
    with connect(database) as connection:
        connection.execute("DROP INDEX rag_jobs_ready_idx")
        assert migrations.adopt(database).was_managed  # drift from the revision it is at
        connection.execute("UPDATE rag_alembic_version SET version_num = '29990101000000'")
        with pytest.raises(DatabaseAhead, match="does not know"):
            migrations.adopt(database)
    migrations.stamp(empty_database, "head", force=True)
    with pytest.raises(DriftFound, match="has none of our tables") as refused:
        migrations.adopt(empty_database)
    assert "rag migrate stamp base" in refused.value.remedy
    migrations.stamp(empty_database, "base")
    assert migrations.upgrade(empty_database).current == FORWARDS


def test_a_stamp_touches_our_row_only_and_is_recorded(database: Database, run: Command) -> None:
    run_psql(
        database,
        "CREATE TABLE alembic_version (version_num text); INSERT INTO alembic_version VALUES ('theirs')",
    )
    result = run(
        "rag", "migrate", "stamp", "20251225170000", "--force", "--json", DATABASE_URL=database.libpq_url()
    )
    assert json.loads(result.stdout)["current"] == "20251225170000"
    with connect(database) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [("theirs",)]
    assert migrations.history(database)[-1].attempts[-1].direction == "stamp"


def test_init_prepares_and_does_nothing_else(empty_database: Database, run: Command) -> None:
    url = empty_database.libpq_url()
    assert run("rag", "migrate", "init", DATABASE_URL=url).stdout == "Made: extension, version table.\n"
    assert run("rag", "migrate", "init", DATABASE_URL=url).stdout.startswith("Nothing to do")
    assert migrations.status(empty_database).state == "EMPTY"
    assert run("rag", "migrate", DATABASE_URL=url).returncode == 0


def test_an_init_that_meets_a_lock_is_tried_again(
    empty_database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """Another session is making the same schema."""
    options = Options(empty_database, schema="made", lock_timeout=0.1)
    with connect(empty_database) as other, ThreadPoolExecutor(1) as pool:
        with other.transaction(force_rollback=True), caplog.at_level("INFO", "ragschema"):
            other.execute("CREATE SCHEMA made")
            with pytest.raises(LockNotObtained):
                prepare_database(replace(options, retries=0))
            preparing = pool.submit(prepare_database, replace(options, retries=1000))
            wait_until(lambda: "trying again" in caplog.text, "the first attempt to give way")
        assert preparing.result().schema


def test_init_creates_the_database_and_the_schema(server: Mapping[str, str], run: Command) -> None:
    new = Database({**server, "dbname": "made by init"}, "the tests")
    arguments = ("migrate", "init", "--create-db", "--schema", "my rag")
    try:
        made = run("rag", *arguments, DATABASE_URL=new.libpq_url())
        assert made.stdout == "Made: database, schema, extension, version table.\n", made.stderr
        assert run("rag", *arguments, DATABASE_URL=new.libpq_url()).stdout.startswith("Nothing to do")
    finally:
        with connect(Database(server, "the tests")) as connection:
            connection.execute('DROP DATABASE IF EXISTS "made by init" WITH (FORCE)')


def test_repair_heals_an_invalid_index_and_an_unvalidated_constraint(
    database: Database, run: Command
) -> None:
    run_psql(
        database,
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'rag_jobs_status_job_type_idx'::regclass;"
        "ALTER TABLE rag_chunk_events DROP CONSTRAINT rag_chunk_events_chunk_id_fkey;"
        "ALTER TABLE rag_chunk_events ADD CONSTRAINT rag_chunk_events_chunk_id_fkey"
        " FOREIGN KEY (chunk_id) REFERENCES rag_chunks NOT VALID",
    )
    assert len(migrations.verify(database).differences) == 2
    result = run("rag", "migrate", "repair", DATABASE_URL=database.libpq_url())
    assert result.stdout.splitlines() == [
        "rebuilt rag_jobs_status_job_type_idx",
        "validated rag_chunk_events.rag_chunk_events_chunk_id_fkey",
    ]
    assert migrations.verify(database).differences == ()


def test_a_rollback_to_a_package_version_goes_to_its_head(database: Database, run: Command) -> None:
    head = migrations.status(database).head
    result = run(
        "rag", "migrate", "rollback", "--to-version", "0.1", "--yes", DATABASE_URL=database.libpq_url()
    )
    assert result.stdout == f"Nothing to do: the database is at {head}.\n"
    unknown = run(
        "rag", "migrate", "rollback", "--to-version", "9.9", "--yes", DATABASE_URL=database.libpq_url()
    )
    assert unknown.returncode == 2
    assert "There is no release 9.9" in unknown.stderr


def test_any_table_of_ours_makes_a_database_unmanaged(empty_database: Database) -> None:
    with connect(empty_database) as connection:
        connection.execute("CREATE TABLE rag_mine ()")
        assert migrations.status(empty_database).state == "EMPTY"
        connection.execute("CREATE TABLE rag_jobs ()")
    assert migrations.status(empty_database).state == "UNMANAGED"
    with pytest.raises(UnmanagedDatabase, match="our tables"):
        migrations.upgrade(empty_database)


def test_repair_builds_no_index_that_the_revision_does_not_have(database_at: DatabaseAt) -> None:
    before = database_at("20261121121400")  # is_current is there, its indexes are not
    assert repair(Options(before)).rebuilt == ()
