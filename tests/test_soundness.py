"""Functions that work on another schema than their own, and a database that was restored by half."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import sqlalchemy as sa

from checkouts import in_the_way, wait_until
from conftest import ROOT, Command, connect, made_database, run_psql
from ragschema import embedded, migrations
from ragschema.database.options import Options
from ragschema.database.settings import Database
from ragschema.errors import DriftFound, LockNotObtained
from ragschema.migrations.health import check_health
from ragschema.migrations.inspection import assert_current
from ragschema.migrations.repair import repair
from ragschema.revisions.manifest import read_manifest
from ragschema.state.expected import expected
from ragschema.state.soundness import Astray, find_soundness, question

HEAD = read_manifest().head
FUNCTIONS = sum(name.startswith("function ") for name in expected(HEAD))


def dump(database: Database, *arguments: str) -> str:
    command = [str(embedded.program("pg_dump")), *arguments, database.libpq_url()]
    return str(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def in_schema(database: Database, schema: str) -> Database:
    return Database({**database.parameters, "options": f"-csearch_path={schema},public"}, "the tests")


@pytest.fixture
def renamed(empty_database: Database) -> Database:
    """A database at head in schema ``after``, which was ``before``; both are there now, both are migrated."""
    with connect(empty_database) as connection:
        connection.execute("CREATE EXTENSION vector")
    migrations.upgrade(empty_database, schema="before")
    with connect(empty_database) as connection:
        connection.execute("ALTER SCHEMA before RENAME TO after")
    return empty_database


CLONE = re.compile(
    r"(?<=^CREATE )(SCHEMA )production|\bproduction(?=\.rag_|\.job_status|\.chunk_event_type)", re.M
)


@pytest.fixture
def cloned(empty_database: Database) -> Database:
    """Schema ``staging``, made of ``production`` by a dump whose names were edited, but for SET search_path."""
    with connect(empty_database) as connection:
        connection.execute("CREATE EXTENSION vector")
    migrations.upgrade(empty_database, schema="production")
    text = dump(empty_database, "--schema=production")
    run_psql(empty_database, CLONE.sub(lambda match: f"{match[1] or ''}staging", text))
    return empty_database


def test_a_clone_whose_functions_work_on_production_is_refused_and_healed(
    cloned: Database, run: Command
) -> None:
    url = cloned.libpq_url()
    with connect(cloned) as connection:
        before = find_soundness(connection, "staging", HEAD)
    assert before.missing == ()
    assert {each.place for each in before.astray} == {"schema production"}
    assert len(before.astray) == FUNCTIONS
    for arguments, code in (((), 4), (("status",), 4), (("wait", "--timeout", "30s"), 4), (("verify",), 4)):
        result = run("rag", "migrate", *arguments, "--schema", "staging", DATABASE_URL=url)
        said = result.stdout + result.stderr
        assert result.returncode == code, said
        assert "production" in said
        assert f"{FUNCTIONS} functions" in said
        assert "rag migrate repair" in said
        assert "BEGIN" not in said, "no body is printed"
        assert run("rag", "migrate", *arguments, "--schema", "production", DATABASE_URL=url).returncode == 0

    healed = run("rag", "migrate", "repair", "--schema", "staging", "--json", DATABASE_URL=url)
    assert len(json.loads(healed.stdout)["moved"]) == FUNCTIONS
    assert migrations.verify(cloned, schema="staging").is_clean
    assert migrations.status(cloned, schema="staging").state == "OK"
    with connect(cloned) as connection:
        for schema in ("production", "staging"):
            connection.execute(
                f"SELECT {schema}.rag_jobs_enqueue('embed', '{{}}', dedupe_key => 'same')".encode()
            )
        ids = connection.execute("SELECT id FROM staging.rag_jobs").fetchall()
        connection.execute("SELECT staging.rag_jobs_cancel(%s)", ids[0])
        states = "SELECT (SELECT status FROM staging.rag_jobs)::text, (SELECT status FROM production.rag_jobs)::text"
        assert connection.execute(states.encode()).fetchall() == [("failed", "new")]
    assert repair(Options(cloned, schema="staging")).moved == ()


def test_in_a_renamed_schema_everything_refuses_until_it_is_repaired(renamed: Database, run: Command) -> None:
    url = in_schema(renamed, "after").libpq_url()
    for command in (
        ("rag", "migrate"),
        ("rag", "migrate", "rollback", "-1", "--yes"),
        ("alembic", "downgrade", "-1"),
    ):
        refused = run(*command, cwd=ROOT, DATABASE_URL=url)
        said = refused.stdout + refused.stderr
        assert refused.returncode in (4, 255), said
        assert f"{FUNCTIONS} functions (rag_chunk_deleted" in said
        assert "in schema after work on schema before" in said
    found = migrations.status(renamed, schema="after")
    assert (found.state, found.current) == ("BROKEN", HEAD)
    with pytest.raises(DriftFound, match="work on schema before"):
        migrations.wait(renamed, timeout=60, schema="after")
    health = {check.name: check for check in check_health(Options(renamed, schema="after"))}
    assert health["functions"].verdict == "refused"
    assert "work on schema before" in health["functions"].finding
    engine = sa.create_engine(in_schema(renamed, "after").url())
    with engine.connect() as service, pytest.raises(DriftFound, match="work on schema before"):
        assert_current(service)

    [line] = migrations.verify(renamed, schema="after").lines()
    assert line.startswith(f"{FUNCTIONS} functions were made for another schema: the search_path")
    assert "the search_path is before, $extension, pg_temp, and should be $schema" in line
    assert len(repair(Options(renamed, schema="after")).moved) == FUNCTIONS
    assert migrations.verify(renamed, schema="after").is_clean
    with engine.connect() as service:
        assert assert_current(service) == HEAD
    engine.dispose()


def test_before_head_too_a_function_of_another_schema_is_not_let_near_an_upgrade(renamed: Database) -> None:
    repair(Options(renamed, schema="after"))
    migrations.downgrade(renamed, "-2", schema="after")
    with connect(renamed) as connection:
        connection.execute("ALTER FUNCTION after.rag_set_current_chunks SET search_path = elsewhere, public")
    assert migrations.status(renamed, schema="after").state == "BROKEN"
    for act in (migrations.upgrade, migrations.plan):
        with pytest.raises(
            DriftFound, match=r"1 function .rag_set_current_chunks. .* works on schema elsewhere"
        ):
            act(renamed, schema="after")


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ("ALTER FUNCTION rag_jobs_cancel RESET search_path", "the caller's search_path"),
        (
            "CREATE SCHEMA types; ALTER EXTENSION vector SET SCHEMA types",
            "a search_path without pgvector's schema types",
        ),
        ("ALTER FUNCTION rag_jobs_cancel SET search_path = pg_temp, public", "schema pg_temp"),
    ],
)
def test_a_path_that_lacks_what_the_function_needs_is_found_and_healed(
    database: Database, change: str, place: str
) -> None:
    with connect(database) as connection:
        connection.execute(change.encode())
        assert {each.place for each in find_soundness(connection, "public", HEAD).astray} == {place}
        repair(Options(database))
        assert find_soundness(connection, "public", HEAD).is_sound
    assert migrations.verify(database).is_clean


def test_a_repair_that_meets_a_lock_is_tried_again(
    renamed: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """A trigger is made anew under a lock on its table, which a writer holds up."""
    repair(Options(renamed, schema="after"))
    with connect(renamed) as connection:
        (definition,) = connection.execute(
            "SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgname = 'rag_chunks_deleted'"
        ).fetchone() or ("",)
        connection.execute("CREATE SCHEMA other")
        connection.execute(
            "CREATE FUNCTION other.rag_touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"
        )
        name = definition.rpartition("FUNCTION after.")[2]
        function = name.partition("(")[0]
        connection.execute(f"ALTER FUNCTION other.rag_touch RENAME TO {function}".encode())
        connection.execute("DROP TRIGGER rag_chunks_deleted ON after.rag_chunks")
        connection.execute(definition.replace("FUNCTION after.", "FUNCTION other.").encode())
    options = Options(renamed, schema="after", lock_timeout=0.1)
    with ThreadPoolExecutor(1) as pool:
        with (
            in_the_way(renamed, "LOCK TABLE after.rag_chunks IN ROW EXCLUSIVE MODE"),
            caplog.at_level("INFO", "ragschema"),
        ):
            with pytest.raises(LockNotObtained):
                repair(replace(options, retries=0))
            healing = pool.submit(repair, replace(options, retries=1000))
            wait_until(lambda: "trying again" in caplog.text, "the first attempt to give way")
        assert healing.result().moved == ("rag_chunks.rag_chunks_deleted",)


def test_triggers_and_foreign_keys_of_another_schema_are_found_too(renamed: Database) -> None:
    repair(Options(renamed, schema="after"))
    migrations.upgrade(renamed, schema="other")
    with connect(renamed) as connection:
        (definition,) = connection.execute(
            "SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgname = 'rag_chunks_deleted'"
            " AND tgrelid = 'after.rag_chunks'::regclass"
        ).fetchone() or ("",)
        connection.execute("DROP TRIGGER rag_chunks_deleted ON after.rag_chunks")
        connection.execute(definition.replace("FUNCTION after.", "FUNCTION other.").encode())
        connection.execute(
            "ALTER TABLE after.rag_chunks ADD CONSTRAINT mine FOREIGN KEY (version_id)"
            " REFERENCES other.rag_document_versions (id)"
        )
        assert find_soundness(connection, "after", HEAD).astray == (
            Astray("constraint rag_chunks.mine", "schema other"),
            Astray("trigger rag_chunks.rag_chunks_deleted", "schema other"),
        )
        assert repair(Options(renamed, schema="after")).moved == ("rag_chunks.rag_chunks_deleted",)
        left = find_soundness(connection, "after", HEAD)
        assert left.astray == (Astray("constraint rag_chunks.mine", "schema other"),)
        assert "Drop the foreign keys" in left.remedy()
        connection.execute("ALTER TABLE after.rag_chunks DROP CONSTRAINT mine")
    assert migrations.verify(renamed, schema="after").is_clean


@pytest.fixture
def half_restored(database: Database, server: dict[str, str]) -> Iterator[Database]:
    """A restore that ended early: of half the tables, and without the keys."""
    with made_database(server) as other:
        with connect(other) as connection:
            connection.execute("CREATE EXTENSION vector")
        tables = ("rag_alembic_version", "rag_documents", "rag_document_versions")
        text = dump(
            database, "--section=pre-data", "--section=data", *(f"--table={table}" for table in tables)
        )
        run_psql(other, text)
        yield other


def test_a_database_restored_by_half_is_found_by_the_same_question(
    half_restored: Database, run: Command
) -> None:
    url = half_restored.libpq_url()
    for arguments in ((), ("status",), ("wait", "--timeout", "30s")):
        result = run("rag", "migrate", *arguments, DATABASE_URL=url)
        said = result.stdout + result.stderr
        assert result.returncode == 4, said
        assert re.search(
            r"missing in schema public: \d+ constraints and \d+ functions and \d+ tables \(", said
        )
        assert "restore again, into an empty database" in said
    with connect(half_restored) as connection:
        missing = find_soundness(connection, "public", HEAD).missing
    assert {"table rag_jobs", "function rag_jobs_claim", "constraint rag_documents.rag_documents_pkey"} <= {
        *missing
    }
    assert "table rag_documents" not in missing


@pytest.mark.parametrize(
    "moved", ["FUNCTION rag_chunk_deleted()", "FUNCTION rag_jobs_stats()", "TABLE rag_jobs"]
)
def test_what_was_moved_away_is_no_success_of_a_repair(database: Database, moved: str) -> None:
    with connect(database) as connection:
        connection.execute("CREATE SCHEMA elsewhere")
        connection.execute(f"ALTER {moved} SET SCHEMA elsewhere".encode())
        with pytest.raises(DriftFound, match="missing in schema public") as refused:
            repair(Options(database))
        assert "goes back with ALTER ... SET SCHEMA" in refused.value.remedy
        assert "rag migrate repair" not in refused.value.remedy
        back = moved.replace(" ", " elsewhere.", 1)
        connection.execute(f"ALTER {back} SET SCHEMA public".encode())
    assert migrations.verify(database).is_clean


def test_what_is_asked_takes_no_lock_on_our_tables_and_one_statement(database: Database) -> None:
    with connect(database) as blocking, connect(database) as connection:
        with blocking.transaction():
            blocking.execute(
                "LOCK TABLE rag_documents, rag_alembic_version, rag_jobs IN ACCESS EXCLUSIVE MODE"
            )
            connection.execute("SET lock_timeout = '1s'")
            assert find_soundness(connection, "public", HEAD).is_sound
        with connection.transaction():
            connection.execute(question(), {"schema": "public"})
            locked = connection.execute(
                "SELECT DISTINCT relation::regclass::text FROM pg_locks WHERE pid = pg_backend_pid()"
                " AND locktype = 'relation' AND relation::regclass::text LIKE 'rag%'"
            ).fetchall()
    assert locked == []


def test_every_function_that_carries_a_path_is_asked_about(database: Database) -> None:
    with connect(database) as connection:
        names = connection.execute(
            "SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND proname LIKE 'rag%'"
        ).fetchall()
        for (name,) in names:
            connection.execute(f"ALTER FUNCTION {name} SET search_path = elsewhere, public".encode())
        astray = find_soundness(connection, "public", HEAD).astray
    assert [each.object for each in astray] == sorted(f"function {name}" for (name,) in names)
    assert len(names) == FUNCTIONS
