"""The command line: what it prints where, its exit codes, and that it starts fast."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from conftest import ROOT, Command, clean_environment, connect, copy_checkout
from ragschema import migrations
from ragschema.database.settings import Database
from ragschema.revisions.manifest import read_manifest

TITLE = "20251225170000"
HEAD = read_manifest().head
COMMANDS = [
    "",
    "migrate",
    "migrate status",
    "migrate history",
    "migrate rollback",
    "migrate create",
    "db",
    "db start",
    "db url",
    "db psql",
    "db stop",
    "db destroy",
    "jobs",
    "jobs stats",
    "jobs list",
    "jobs retry",
    "jobs cancel",
    "jobs prune",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_needs_neither_sqlalchemy_nor_alembic(command: str) -> None:
    script = (
        "import sys; from ragschema.cli import main\n"
        "try: main()\n"
        "except SystemExit as done: code = done.code\n"
        "heavy = {'sqlalchemy', 'alembic', 'psycopg', 'pydantic', 'rich', 'numpy'} & set(sys.modules)\n"
        "sys.exit(code or (f'imported {heavy}' if heavy else 0))"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, *command.split(), "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "Usage: " in result.stdout


def test_help_names_the_exit_codes(run: Command) -> None:
    assert "78 a setting is missing" in run("rag", "--help").stdout.replace("\n  ", " ")


def test_migrate_applies_each_revision_then_finds_nothing_to_do(
    run: Command, empty_database: Database
) -> None:
    url = empty_database.libpq_url()
    first = run("rag", "migrate", "--replay", DATABASE_URL=url)
    second = run("rag", "migrate", DATABASE_URL=url)
    assert first.returncode == second.returncode == 0
    lines = first.stdout.splitlines()
    assert lines[0].startswith("upgrade 20251225160000  Initial RAG schema  (")
    assert lines[1].startswith(f"upgrade {TITLE}  Add title and url to document versions  (")
    assert lines[-1] == f"Done: the database is at {HEAD}."
    assert second.stdout == f"Nothing to do: the database is at {HEAD}.\n"
    assert "(from DATABASE_URL)" in second.stderr


def test_python_m_ragschema_is_rag(run: Command, database: Database) -> None:
    result = run("python", "-m", "ragschema", "migrate", "status", DATABASE_URL=database.libpq_url())
    assert (result.returncode, result.stdout.split()[:2]) == (0, ["state", "OK"])


def test_json_is_all_there_is_on_standard_output(run: Command, empty_database: Database) -> None:
    url = empty_database.libpq_url()

    def document(*arguments: str) -> object:
        result = run("rag", "migrate", *arguments, "--json", DATABASE_URL=url)
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)

    assert document("status") == {
        "state": "EMPTY",
        "current": None,
        "head": HEAD,
        "pending": [asdict(revision) for revision in read_manifest().revisions],
        "written_by": None,
        "invalid_indexes": [],
        "edited": [],
        "last_failure": None,
        "backup": None,
        "elsewhere": [],
        "importable": [],
        "soundness": None,
        "owed": [],
    }
    migrated = document("--replay")
    assert isinstance(migrated, dict)
    assert migrated["current"] == HEAD
    assert [each["revision"] for each in migrated["applied"]] == [
        revision.revision for revision in read_manifest().revisions
    ]
    entries = document("history")
    assert isinstance(entries, list)
    assert all(entry["is_applied"] and entry["attempts"][0]["succeeded"] for entry in entries)
    rolled_back = document("rollback", TITLE, "--yes")
    assert isinstance(rolled_back, dict)
    assert rolled_back["current"] == TITLE


def test_a_stop_before_head_is_pending(run: Command, empty_database: Database) -> None:
    url = empty_database.libpq_url()
    assert run("rag", "migrate", "--to", "20251225160000", "--database-url", url).returncode == 0
    status = run("rag", "migrate", "status", "--database-url", url).stdout.splitlines()
    assert status[0].split() == ["state", "PENDING"]
    runs = [line.split("\t") for line in status if line.startswith("pending\t")]
    assert runs[0][1].startswith("20251225170000 to "), "many follow each other: a range says it"
    assert {deploy for _, _, deploy in runs} == {"expand", "contract"}
    assert len(runs) < len(read_manifest().revisions) / 2
    assert (
        run("rag", "migrate", "--to", read_manifest().revisions[-2].revision, DATABASE_URL=url).returncode
        == 0
    )
    status = run("rag", "migrate", "status", DATABASE_URL=url).stdout.splitlines()
    last = read_manifest().revisions[-1]
    assert f"pending\t{last.revision}\t{last.deploy}: {last.summary}" in status


@pytest.mark.parametrize("word", ["reset", "clean", "fresh", "drop", "wipe"])
def test_a_word_that_means_a_rollback_to_base_is_answered_with_what_it_destroys(
    run: Command, word: str
) -> None:
    said = run("rag", "migrate", word).stderr
    assert "Run `rag migrate rollback base`. It drops every table of ours, and their rows" in said
    assert "backup" in said


def test_verify_names_its_database_once(run: Command, database: Database) -> None:
    verified = run("rag", "migrate", "verify", "--data", DATABASE_URL=database.libpq_url())
    assert (verified.returncode, verified.stderr.count("Database: ")) == (0, 1)


def test_sql_is_printed_and_no_database_is_spoken_to(run: Command) -> None:
    result = run("rag", "migrate", "--sql", DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")
    assert result.returncode == 0
    assert "CREATE TABLE rag_documents" in result.stdout
    pending = run("rag", "migrate", "--sql", "--from", "20251225160000").stdout
    assert "ADD COLUMN title" in pending
    assert "CREATE TABLE rag_documents" not in pending


def test_a_rollback_asks_on_a_terminal_and_needs_yes_elsewhere(run: Command, database: Database) -> None:
    url = database.libpq_url()
    refused = run("rag", "migrate", "rollback", "-1", DATABASE_URL=url)
    assert refused.returncode == 2
    assert "Add --yes." in refused.stderr
    code, shown = _on_a_terminal(["migrate", "rollback", TITLE], b"n\n", url)
    assert code == 1
    assert f"Reverse every revision after {TITLE}?" in shown
    assert migrations.status(database).state == "OK"
    code, _ = _on_a_terminal(["migrate", "rollback", TITLE], b"y\n", url)
    assert code == 0
    assert migrations.status(database).current == TITLE


def test_a_rollback_that_would_destroy_rows_refuses_and_counts_them(run: Command, database: Database) -> None:
    url = database.libpq_url()
    with connect(database) as connection:
        connection.execute("INSERT INTO rag_jobs (job_type, payload) VALUES ('a', '{}'), ('b', '{}')")
        for refused in (
            run("rag", "migrate", "rollback", "base", "--yes", DATABASE_URL=url),
            run("alembic", "downgrade", "base", cwd=ROOT, DATABASE_URL=url),
        ):
            assert refused.returncode != 0
            assert "2 rows of rag_jobs" in refused.stdout + refused.stderr
        assert connection.execute("SELECT count(*) FROM rag_jobs").fetchone() == (2,)
    told = run("rag", "migrate", "rollback", "base", "--yes", "--allow-data-loss", DATABASE_URL=url)
    assert told.returncode == 0
    destroyed = told.stderr.partition("This destroys:\n")[2]
    assert "\n2 rows of rag_jobs" in destroyed
    assert migrations.status(database).state == "EMPTY"


def test_a_rollback_counts_the_values_of_a_column(run: Command, database: Database) -> None:
    with connect(database) as connection:
        connection.execute("INSERT INTO rag_documents (article_id) VALUES ('a')")
        connection.execute(
            "INSERT INTO rag_document_versions"
            " (document_id, version_number, source_hash, chunker_version, embedder_version, title)"
            " SELECT id, n, 'h', 'c', 'e', CASE n WHEN 1 THEN 'Kept' END"
            " FROM rag_documents, generate_series(1, 2) n"
        )
    refused = run("rag", "migrate", "rollback", "20251225160000", "--yes", DATABASE_URL=database.libpq_url())
    assert refused.returncode == 1
    assert "1 value of rag_document_versions.title" in refused.stderr
    assert "rag_document_versions.url" not in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["migrate", "--to", "nope"], 2, "Can't locate revision identified by 'nope'."),
        (["migrate", "--from", "base", "--to"], 2, "--to"),
        (["migrate", "--json", "status"], 2, "belong to the upgrade"),
        (["migrate", "--from", HEAD], 2, "--from goes with --sql"),
        (["nonsense"], 2, "nonsense"),
    ],
)
def test_wrong_usage_is_said_and_exits_2(
    run: Command, database: Database, arguments: list[str], code: int, message: str
) -> None:
    result = run("rag", *arguments, DATABASE_URL=database.libpq_url())
    assert result.returncode == code
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_an_unreachable_database_exits_69_and_debug_shows_the_traceback(run: Command) -> None:
    url = "postgresql://someone:sesame@127.0.0.1:1/none"
    plain = run("rag", "migrate", "status", DATABASE_URL=url)
    assert plain.returncode == 69
    assert plain.stderr.splitlines()[1].startswith(
        "Error: The database none on 127.0.0.1:1 as someone (from DAT"
    )
    assert "Traceback" not in plain.stderr
    debug = run("rag", "migrate", "status", "--debug", DATABASE_URL=url)
    assert debug.returncode == 1
    assert "Traceback" in debug.stderr
    assert "sesame" not in plain.stdout + plain.stderr + debug.stdout + debug.stderr


def test_a_database_ahead_of_the_package_is_refused(run: Command, database: Database) -> None:
    with connect(database) as connection:
        connection.execute("UPDATE rag_alembic_version SET version_num = '29990101000000'")
    result = run("rag", "migrate", DATABASE_URL=database.libpq_url())
    assert result.returncode == 6
    assert "29990101000000, which this ragschema does not know" in result.stderr
    status = run("rag", "migrate", "status", DATABASE_URL=database.libpq_url())
    assert status.stdout.split()[:2] == ["state", "AHEAD"]


def test_tables_without_a_version_row_are_refused(run: Command, database: Database) -> None:
    with connect(database) as connection:
        connection.execute("DROP TABLE rag_alembic_version")
    result = run("rag", "migrate", DATABASE_URL=database.libpq_url())
    assert result.returncode == 78
    assert "Nothing was changed" in result.stderr
    assert migrations.status(database).state == "UNMANAGED"


def test_a_failed_revision_is_rolled_back_and_named(run: Command, empty_database: Database) -> None:
    with connect(empty_database) as connection:
        connection.execute("CREATE TYPE job_status AS ENUM ('theirs')")
    result = run("rag", "migrate", DATABASE_URL=empty_database.libpq_url())
    assert result.returncode == 1
    assert "Revision 20251225160000 failed and was rolled back" in result.stderr
    assert 'type "job_status" already exists' in result.stderr
    assert migrations.status(empty_database).state == "EMPTY"


def test_a_revision_is_written_by_both_commands_and_needs_no_database(tmp_path: Path) -> None:
    copy = copy_checkout(tmp_path)
    environment = clean_environment() | {
        "PYTHONPATH": str(copy / "src"),
        "DATABASE_URL": "postgresql://127.0.0.1:1/none",
    }
    for command in (
        ["ragschema", "migrate", "create", "Keep a note"],
        ["alembic", "revision", "-m", "keep a note"],
    ):
        result = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=copy,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        (written,) = (copy / "alembic" / "versions").glob("*_keep_a_note.py")
        revision = written.name.split("_")[0]
        assert len(revision) == 14
        text = written.read_text()
        assert f'revision = "{revision}"' in text
        assert f'down_revision = "{HEAD}"' in text
        assert (
            "import" not in text.partition("revision = ")[0].rpartition('"""')[2]
        )  # nothing that is not used
        written.unlink()


def test_autogenerate_writes_nothing_without_a_difference(tmp_path: Path, database: Database) -> None:
    copy = copy_checkout(tmp_path)
    environment = clean_environment() | {
        "PYTHONPATH": str(copy / "src"),
        "DATABASE_URL": database.libpq_url(),
    }

    def create() -> str:
        return subprocess.run(
            [sys.executable, "-m", "ragschema", "migrate", "create", "Draft", "--autogenerate"],
            cwd=copy,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    assert create() == "Nothing to do: the models and the database do not differ.\n"
    with connect(database) as connection:
        connection.execute("ALTER TABLE rag_chunks DROP COLUMN embedding")
    drafted = Path(create().strip()).read_text()
    assert 'op.add_column("rag_chunks", sa.Column("embedding", VECTOR(768), nullable=True))' in drafted


def _on_a_terminal(arguments: list[str], typed: bytes, url: str) -> tuple[int, str]:
    """Run rag on a pseudo-terminal; return its exit code and what it showed."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [str(Path(sys.executable).with_name("rag")), *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=clean_environment() | {"DATABASE_URL": url},
    )
    os.close(theirs)
    os.write(ours, typed)
    shown = b""
    while True:
        try:
            read = os.read(ours, 4096)
        except OSError:  # the terminal is gone with its process
            break
        if not read:
            break
        shown += read
    os.close(ours)
    return process.wait(), shown.decode()


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("tenants retry", "Run `rag jobs retry`"),
        ("jobs verify", "Run `rag "),
        ("tenants upgrade", "Run `rag migrate`"),
    ],
)
def test_a_word_of_another_group_is_explained_though_its_group_was_not_loaded(
    command: str, said: str, run: Command
) -> None:
    result = run("rag", *command.split())
    assert result.returncode == 2
    assert said in result.stderr
