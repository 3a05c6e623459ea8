"""The creation of all tables at once: when it is done, when the revisions are walked, and what becomes of it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

from checkouts import finish, made_role, wait_until
from conftest import ROOT, Command, clean_environment, connect, start_rag
from ragschema import migrations
from ragschema.database.options import Options
from ragschema.database.settings import Database
from ragschema.errors import ConfigurationError, LockNotObtained, PlanStale, RagSchemaError, UnmanagedDatabase
from ragschema.migrations.deployer_lock import deployer_lock_key
from ragschema.migrations.request import Applied
from ragschema.revisions.head_script import read_head_script
from ragschema.revisions.manifest import read_manifest

MANIFEST = read_manifest()
HEAD = MANIFEST.head
COUNT = len(MANIFEST.revisions)


def execute(database: Database, *statements: str) -> None:
    with connect(database) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def directions(database: Database, schema: str = "public") -> list[tuple[str, str, bool]]:
    with connect(database) as connection:
        return connection.execute(
            f'SELECT revision, direction, succeeded FROM "{schema}".rag_migration_history ORDER BY id'.encode()
        ).fetchall()


def test_rag_migrate_says_how_the_tables_were_made(run: Command, empty_database: Database) -> None:
    result = run("rag", "migrate", DATABASE_URL=empty_database.libpq_url())
    first, last = result.stdout.splitlines()
    assert first.startswith(f"create {HEAD}  Every table at once, by the head script  (")
    assert last == f"Done: the database is at {HEAD}."
    assert directions(empty_database) == [(HEAD, "create", True)]
    (entry,) = [each for each in migrations.history(empty_database) if each.attempts]
    script = read_head_script(MANIFEST)
    assert script is not None
    assert (entry.attempts[0].checksum, entry.attempts[0].error) == (script.checksum, None)
    assert all(each.is_applied for each in migrations.history(empty_database))
    status = migrations.status(empty_database)
    assert (status.state, status.edited, status.owed) == ("OK", (), ())
    again = run("rag", "migrate", DATABASE_URL=empty_database.libpq_url())
    assert again.stdout == f"Nothing to do: the database is at {HEAD}.\n"


def test_json_says_it_too(run: Command, empty_database: Database) -> None:
    result = run("rag", "migrate", "--json", DATABASE_URL=empty_database.libpq_url())
    (applied,) = json.loads(result.stdout)["applied"]
    assert (applied["revision"], applied["direction"]) == (HEAD, "create")


def test_bare_alembic_walks_the_revisions(run: Command, empty_database: Database) -> None:
    result = run("alembic", "upgrade", "head", cwd=ROOT, DATABASE_URL=empty_database.libpq_url())
    assert result.returncode == 0, result.stderr
    assert directions(empty_database) == [(each.revision, "upgrade", True) for each in MANIFEST.revisions]


@pytest.mark.parametrize(
    "upgrade",
    [
        lambda database: migrations.upgrade(database, replay=True),
        lambda database: migrations.upgrade(database, HEAD),
        lambda database: migrations.upgrade(database, f"+{COUNT}"),
    ],
    ids=["replay", "id", "steps"],
)
def test_whoever_asks_for_revisions_gets_them(
    upgrade: Callable[[Database], migrations.Result], empty_database: Database
) -> None:
    assert len(upgrade(empty_database).applied) == COUNT


def test_expand_only_holds_back_what_it_always_did(empty_database: Database) -> None:
    result = migrations.upgrade(empty_database, expand_only=True)
    contracts = [each.revision for each in MANIFEST.revisions if each.deploy == "contract"]
    assert list(result.owed) == contracts
    done = migrations.upgrade(empty_database)
    assert [each.revision for each in done.applied] == contracts


@pytest.mark.parametrize(
    ("made", "error"),
    [
        ("CREATE TABLE rag_documents (id int)", UnmanagedDatabase),
        ("CREATE VIEW rag_jobs AS SELECT 1 AS id", RagSchemaError),
        ("CREATE TYPE job_status AS ENUM ('theirs')", RagSchemaError),
    ],
)
def test_what_has_our_names_is_left_to_the_revisions(
    empty_database: Database, made: str, error: type[RagSchemaError]
) -> None:
    execute(empty_database, made)
    with pytest.raises(error):
        migrations.upgrade(empty_database)
    with connect(empty_database) as connection:
        tables = connection.execute(
            "SELECT relname FROM pg_class WHERE relkind IN ('r', 'v') AND relnamespace = 'public'::regnamespace"
        ).fetchall()
    assert {name for (name,) in tables} <= {"rag_documents", "rag_jobs", "rag_migration_history"}


def test_what_is_not_ours_stays_beside_it(empty_database: Database) -> None:
    execute(empty_database, "CREATE TABLE theirs (id int)", "INSERT INTO theirs VALUES (1)")
    assert migrations.upgrade(empty_database).applied[0].direction == "create"
    with connect(empty_database) as connection:
        assert connection.execute("SELECT id FROM theirs").fetchall() == [(1,)]


def test_the_version_table_of_an_init_is_used(empty_database: Database, run: Command) -> None:
    assert run("rag", "migrate", "init", DATABASE_URL=empty_database.libpq_url()).returncode == 0
    assert migrations.upgrade(empty_database).applied[0].direction == "create"


def test_a_rollback_works_as_after_a_replay_and_so_does_the_way_back(empty_database: Database) -> None:
    migrations.upgrade(empty_database)
    target = MANIFEST.revisions[-8].revision
    result = migrations.downgrade(empty_database, target)
    assert (len(result.applied), result.current) == (7, target)
    assert migrations.verify(empty_database).is_clean
    assert len(migrations.upgrade(empty_database).applied) == 7
    assert migrations.verify(empty_database).is_clean
    down = migrations.downgrade(empty_database, "base")
    assert down.current is None
    assert migrations.upgrade(empty_database).applied[0].direction == "create"
    assert migrations.verify(empty_database).is_clean
    assert len([each for each in directions(empty_database) if each[1] == "create"]) == 2


def test_a_history_that_holds_a_revision_back_is_left_to_the_revisions(empty_database: Database) -> None:
    """Somebody has dropped the tables by hand: by its history, head would owe what was never run."""
    migrations.upgrade(empty_database, expand_only=True)
    with connect(empty_database) as connection:
        tables = connection.execute(
            "SELECT string_agg(oid::regclass::text, ', ') FROM pg_class WHERE relnamespace = 'public'::regnamespace"
            " AND relkind IN ('r', 'p') AND relname <> 'rag_migration_history'"
        ).fetchone()
        assert tables is not None
        connection.execute(f"DROP TABLE {tables[0]} CASCADE".encode())
        functions = connection.execute(
            "SELECT string_agg(oid::regprocedure::text, ', ') FROM pg_proc WHERE proname LIKE 'rag%%'"
        ).fetchone()
        assert functions is not None
        connection.execute(f"DROP FUNCTION IF EXISTS {functions[0]}".encode())
        connection.execute("DROP TYPE job_status, chunk_event_type")
    result = migrations.upgrade(empty_database)
    assert (len(result.applied), result.owed) == (COUNT, ())
    assert migrations.verify(empty_database).is_clean


def test_a_second_set_is_refused_unless_it_is_named(empty_database: Database) -> None:
    migrations.upgrade(empty_database, schema="tenant")
    with pytest.raises(ConfigurationError, match="another schema of this database has"):
        migrations.upgrade(empty_database)


def test_a_plan_shows_the_script_and_is_carried_out(
    run: Command, empty_database: Database, tmp_path: Path
) -> None:
    told = {"DATABASE_URL": empty_database.libpq_url()}
    file = str(tmp_path / "plan.json")
    planned = run("rag", "migrate", "plan", "--out", file, **told)
    assert planned.returncode == 0, planned.stderr
    assert planned.stdout.startswith(f"All tables at once, by the head script in place of {COUNT} revisions;")
    assert "CREATE TABLE rag_documents" in planned.stdout
    assert directions_or_none(empty_database) is None
    refused = run("rag", "migrate", "--plan", file, "--replay", **told)
    assert (refused.returncode, "how" in refused.stderr) == (2, True)
    done = run("rag", "migrate", "--plan", file, **told)
    assert (done.returncode, done.stdout.splitlines()[0].partition(" ")[0]) == (0, "create"), done.stderr
    assert run("rag", "migrate", "--plan", file, **told).returncode == 1


def directions_or_none(database: Database) -> list[tuple[str, str, bool]] | None:
    try:
        return directions(database)
    except psycopg.errors.UndefinedTable:
        return None


def test_a_plan_of_revisions_walks_them(empty_database: Database) -> None:
    plan = migrations.plan(empty_database, replay=True)
    assert (len(plan.revisions), plan.is_creation) == (COUNT, False)


def test_a_plan_is_stale_where_something_has_come(
    run: Command, empty_database: Database, tmp_path: Path
) -> None:
    told = {"DATABASE_URL": empty_database.libpq_url()}
    file = tmp_path / "plan.json"
    run("rag", "migrate", "plan", "--out", str(file), **told)
    document = json.loads(file.read_text())
    document["revisions"][0]["checksum"] = "0" * 64
    file.write_text(json.dumps(document))
    result = run("rag", "migrate", "--plan", str(file), **told)
    assert (result.returncode, directions_or_none(empty_database)) == (PlanStale.exit_code, None)
    assert "does not fit any more" in result.stderr


def test_a_check_may_refuse_it(empty_database: Database) -> None:
    seen = []

    def refuse(connection: sa.Connection, schema: str) -> None:
        seen.append((connection.scalar(sa.text("SELECT 1")), schema))
        raise RagSchemaError("not today")

    with pytest.raises(RagSchemaError, match="not today"):
        migrations.upgrade(empty_database, check=refuse)
    assert seen == [(1, "public")]
    assert migrations.status(empty_database).state == "EMPTY"


def test_a_connection_that_was_lent_is_as_it_was(empty_database: Database) -> None:
    engine = sa.create_engine(empty_database.url())
    reports: list[Applied] = []
    with engine.connect() as connection:
        path = connection.scalar(sa.text("SHOW search_path"))
        connection.rollback()
        migrations.upgrade(connection, report=reports.append)
        assert connection.scalar(sa.text("SHOW search_path")) == path
        assert connection.scalar(sa.text("SHOW check_function_bodies")) == "on"
        held = (
            "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database"
            " WHERE l.locktype = 'advisory' AND d.datname = current_database()"
        )
        assert connection.scalar(sa.text(held)) == 0
    engine.dispose()
    assert [each.direction for each in reports] == ["create"]


def test_a_failure_leaves_nothing_but_a_line_of_the_history(empty_database: Database) -> None:
    execute(
        empty_database,
        "CREATE FUNCTION public.no_tables() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF EXISTS (SELECT FROM pg_event_trigger_ddl_commands() WHERE object_identity = 'public.rag_jobs') THEN"
        " RAISE EXCEPTION 'no jobs here'; END IF; END $$",
        "CREATE EVENT TRIGGER no_tables ON ddl_command_end EXECUTE FUNCTION public.no_tables()",
    )
    with pytest.raises(RagSchemaError, match="The head script failed and was rolled back") as failed:
        migrations.upgrade(empty_database)
    assert "no jobs here" in failed.value.evidence
    assert f"not committed: {HEAD}" in failed.value.message
    assert directions(empty_database) == [(HEAD, "create", False)]
    status = migrations.status(empty_database)
    assert status.state == "EMPTY"
    assert status.last_failure is not None
    assert "no jobs here" in str(status.last_failure.error)
    execute(empty_database, "DROP EVENT TRIGGER no_tables")
    assert migrations.upgrade(empty_database).applied[0].direction == "create"
    assert migrations.status(empty_database).last_failure is None


def test_it_is_tried_again_behind_a_lock_and_says_who_has_it(empty_database: Database) -> None:
    execute(empty_database, "CREATE EXTENSION vector")
    options = Options(empty_database, lock_timeout=0.3, retries=0)
    with connect(empty_database) as other, other.transaction():
        other.execute("SET LOCAL application_name = 'the one in the way'")
        other.execute(
            "CREATE TABLE rag_migration_history (id int)"
        )  # uncommitted: the same name waits for it
        with pytest.raises(LockNotObtained) as refused:
            migrations.upgrade(options)
        assert "the one in the way" in refused.value.evidence
        raise psycopg.Rollback
    assert migrations.upgrade(options).applied[0].direction == "create"


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_it_and_the_next_run_makes_it(
    empty_database: Database, tmp_path: Path, sent: signal.Signals, code: int
) -> None:
    execute(empty_database, "CREATE EXTENSION vector")
    with connect(empty_database) as other, connect(empty_database) as looking, other.transaction():
        other.execute("CREATE TABLE rag_migration_history (id int)")
        process = start_rag(
            "migrate", "--lock-timeout", "1m", cwd=tmp_path, DATABASE_URL=empty_database.libpq_url()
        )
        waiting = (
            "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        wait_until(lambda: looking.execute(waiting).fetchall(), "the creation to wait")
        process.send_signal(sent)
        result = finish(process)
        assert result.returncode == code
        assert f"not committed: {HEAD}" in result.stderr
        raise psycopg.Rollback
    assert migrations.status(empty_database).state == "EMPTY"
    assert migrations.upgrade(empty_database).applied[0].direction == "create"


def test_of_many_deployers_one_makes_it(run: Command, empty_database: Database) -> None:
    url = empty_database.libpq_url()
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: run("rag", "migrate", DATABASE_URL=url), range(4)))
    assert [each.returncode for each in results] == [0] * 4, [each.stderr for each in results]
    assert sum(each.stdout.startswith("create ") for each in results) == 1
    assert directions(empty_database) == [(HEAD, "create", True)]


def test_the_deployer_lock_is_waited_for(empty_database: Database) -> None:
    with connect(empty_database) as holder:
        holder.execute("SELECT pg_advisory_lock(%s)", (deployer_lock_key("public"),))
        with pytest.raises(LockNotObtained, match="Another deployer has held the lock"):
            migrations.upgrade(Options(empty_database, lock_wait=0.2))
    assert migrations.status(empty_database).state == "EMPTY"


def test_a_role_without_rights_is_told_which(empty_database: Database) -> None:
    execute(empty_database, "CREATE EXTENSION vector")
    with (
        made_role(empty_database) as role,
        pytest.raises(ConfigurationError, match="lacks rights on the schema"),
    ):
        migrations.upgrade(role)
    assert migrations.status(empty_database).state == "EMPTY"


def test_nothing_heavy_is_imported_for_it(empty_database: Database) -> None:
    script = (
        "import sys; from ragschema import migrations; print(migrations.upgrade().applied[0].direction);"
        " print(sorted({'alembic', 'sqlalchemy', 'pydantic'} & {*sys.modules}))"
    )
    result = subprocess.run(
        [sys.executable, "-c", script],
        env=clean_environment() | {"DATABASE_URL": empty_database.libpq_url()},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout == "create\n[]\n"
