"""All tenants by one command: the failure of one stops no other, and an end in the middle leaves nothing half-done."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from psycopg import sql

from checkouts import Checkout, finish, in_the_way, made_role, rows, use_checkout, wait_until
from conftest import Command, clean_environment, connect
from ragschema import tenants
from ragschema.database.connections import opened
from ragschema.database.options import Options, find_options
from ragschema.database.server import VERSION_TABLE
from ragschema.database.settings import Database
from ragschema.errors import ConfigurationError, RagSchemaError, UsageError
from ragschema.migrations.deployer_lock import deployer_lock_key
from ragschema.migrations.request import Request
from ragschema.revisions.manifest import read_manifest
from ragschema.tenants.databases import Found, find_all, name_of, read_urls
from ragschema.tenants.lending import Lender
from ragschema.tenants.outcomes import Progress
from ragschema.tenants.tasks import Task
from ragschema.tenants.upgrading import Upgrading

HEAD = read_manifest().head
NAMES = ("Globex & Sons", "acme", "hooli", "initech", "umbrella")
SMALL = 'op.add_column("rag_documents", sa.Column("language_tag", sa.Text()))'
NOT_IN_HOOLI = f"""
{SMALL}
if op.get_bind().scalar(sa.text("SELECT current_schema()")) == "hooli":
    op.execute("SELECT 1 / 0")
"""
SLOW = f"""
{SMALL}
op.execute("SELECT pg_sleep(60)")
"""
MIGRATE = ("rag", "tenants", "migrate")
NOTHING_HEAVY = """
import sys
from ragschema.cli import main
try:
    main()
except SystemExit as done:
    code = done.code
heavy = {"alembic", "multiprocessing", "numpy", "pgvector", "pydantic", "rich", "sqlalchemy", "tenacity"}
heavy |= {"ragschema.cli.graph", "ragschema.migrations.commands", "ragschema.tenants.workers"}
heavy &= {*sys.modules}
sys.exit(code or (f"imported {heavy}" if heavy else 0))
"""


@pytest.fixture(scope="module")
def template(server: dict[str, str]) -> Iterator[str]:
    """The name of a database with five tenants at head."""
    name = f"fleet_{os.getpid()}"  # each process of the run its own
    with connect(Database({**server, "dbname": "postgres"}, "the tests")) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name}".encode())
        connection.execute(f"CREATE DATABASE {name}".encode())
        for tenant in NAMES:
            tenants.create_tenant(tenant, Database({**server, "dbname": name}, "the tests"))
        yield name
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkout:
    """A copy of the checkout to add revisions to."""
    return use_checkout(tmp_path, monkeypatch)


def revisions(database: Database) -> dict[str, str | None]:
    """Return the revision of each tenant."""
    return {each.schema: each.revision for each in tenants.list_tenants(database)}


def migrate(checkout: Checkout, database: Database, *arguments: str, code: int = 0) -> dict[str, Any]:
    """Run the command, and return what it prints as JSON."""
    result = checkout.run(*MIGRATE, "--json", *arguments, database=database)
    assert result.returncode == code, result.stderr + result.stdout
    document: dict[str, Any] = json.loads(result.stdout)
    return document


def fates(document: dict[str, Any]) -> dict[str, str]:
    return {each["schema"]: each["fate"] for each in document["tenants"]}


def execute(database: Database, schema: str, statement: str) -> None:
    with connect(database) as connection:
        connection.execute(sql.SQL("SET search_path = {}, public").format(sql.Identifier(schema)))
        connection.execute(statement.encode())


def lock_away(database: Database, schema: str) -> str:
    """Return the statement that keeps a tenant's documents from everybody else."""
    table = sql.Identifier(schema, "rag_documents").as_string()
    return f"LOCK TABLE {table} IN ACCESS SHARE MODE"


# migrated


def test_what_was_applied_before_a_failure_is_told(checkout: Checkout, database: Database) -> None:
    """As the database has it: in the first tenants, by their revisions, and in the others, by what those ran."""
    first, second = checkout.add(SMALL), checkout.add('op.execute("SELECT 1 / 0")')
    found = migrate(checkout, database, "--workers", "1", code=1)
    assert revisions(database) == dict.fromkeys(NAMES, first)
    assert [(each["revision"], each["applied"]) for each in found["tenants"]] == [(first, [first])] * 5
    assert second not in found["counts"]


def test_every_tenant_is_migrated_once_with_its_history(checkout: Checkout, database: Database) -> None:
    revision = checkout.add(SMALL)
    found = migrate(checkout, database)
    assert found["counts"] == {"migrated": 5}
    assert [each["applied"] for each in found["tenants"]] == [[revision]] * 5
    assert revisions(database) == dict.fromkeys(NAMES, revision)
    with connect(database) as connection:
        for name in NAMES:
            query = sql.SQL("SELECT direction FROM {} WHERE revision = {}").format(
                sql.Identifier(name, "rag_migration_history"), sql.Literal(revision)
            )
            assert rows(connection, query.as_string()) == ["upgrade"]
    again = migrate(checkout, database)
    assert again["counts"] == {"up to date": 5}
    said = checkout.run(*MIGRATE, database=database)
    assert f"Nothing to do: 5 tenants at {revision}" in said.stdout
    assert migrate(checkout, database, "--visit")["counts"] == {"up to date": 5}


def test_the_failure_of_one_stops_no_other_and_is_named_with_the_servers_words(
    checkout: Checkout, database: Database
) -> None:
    revision = checkout.add(NOT_IN_HOOLI)
    found = migrate(checkout, database, code=1)
    assert found["counts"] == {"failed": 1, "migrated": 4}
    (failed,) = (each for each in found["tenants"] if each["fate"] == "failed")
    assert failed["schema"] == "hooli"
    assert f"Revision {revision} failed and was rolled back" in failed["error"]
    assert "division by zero" in failed["evidence"]
    assert revisions(database) == {**dict.fromkeys(NAMES, revision), "hooli": HEAD}
    said = checkout.run(*MIGRATE, database=database)
    assert said.returncode == 1
    assert "failed: hooli in " in said.stdout
    assert "division by zero" in said.stdout


def test_a_tenant_that_is_locked_is_named_with_who_blocks_it(checkout: Checkout, database: Database) -> None:
    revision = checkout.add(SMALL)
    arguments = ("--lock-timeout", "300ms", "--retries", "1", "--wait-lock", "200ms")
    with in_the_way(database, lock_away(database, "acme")) as pid, connect(database) as deployer:
        deployer.execute("SELECT pg_advisory_lock(%s)", (deployer_lock_key("umbrella"),))
        result = checkout.run(*MIGRATE, *arguments, database=database)
        assert result.returncode == 75, result.stderr
        assert f"acme: Waiting for pid {pid} (a reader at lunch)" in result.stderr
        assert "acme: Gave way" in result.stderr
        assert "locked: acme in " in result.stdout
        assert "Another deployer has held the lock on schema umbrella" in result.stdout
        assert "2 locked, 3 migrated" in result.stdout
    assert migrate(checkout, database)["counts"] == {"migrated": 2, "up to date": 3}
    assert revisions(database) == dict.fromkeys(NAMES, revision)


def test_a_tenant_whose_revision_is_locked_away_is_tried_in_its_turn(
    checkout: Checkout, database: Database
) -> None:
    arguments = ("--lock-timeout", "300ms", "--retries", "1")
    with in_the_way(database, f"LOCK TABLE acme.{VERSION_TABLE}"):
        result = checkout.run(*MIGRATE, *arguments, database=database)
    assert result.returncode == 75, result.stderr
    assert "acme: Gave way" in result.stderr
    assert "Contract revisions" not in result.stderr
    assert "1 locked, 4 up to date" in result.stdout


def test_canaries_go_first_and_their_failure_keeps_the_rest(checkout: Checkout, database: Database) -> None:
    checkout.add(NOT_IN_HOOLI)
    found = migrate(checkout, database, "--canary", "3", code=1)
    assert fates(found) == {
        "Globex & Sons": "migrated",
        "acme": "migrated",
        "hooli": "failed",
        "initech": "not started",
        "umbrella": "not started",
    }
    assert migrate(checkout, database, "--canary", "1", code=1)["counts"] == {
        "failed": 1,
        "not started": 2,
        "up to date": 2,
    }


def test_after_so_many_failures_no_other_begins(checkout: Checkout, database: Database) -> None:
    checkout.add('op.execute("SELECT 1 / 0")')
    found = migrate(checkout, database, "--max-failures", "2", "--workers", "1", code=1)
    assert found["counts"] == {"failed": 2, "not started": 3}


def test_the_smallest_goes_first_where_size_decides(checkout: Checkout, database: Database) -> None:
    for name in NAMES[1:]:
        text = "x" * 10
        execute(
            database,
            name,
            f"INSERT INTO rag_documents (article_id) SELECT '{text}' || n FROM generate_series(1, 3000) n",
        )
    checkout.add(SMALL)
    found = migrate(
        checkout, database, "--order", "size", "--canary", "1", "--max-failures", "1", "--workers", "1"
    )
    assert found["counts"] == {"migrated": 5}
    with connect(database) as connection:
        newest = " UNION ALL ".join(
            sql.SQL("SELECT {}, max(started_at) FROM {}")
            .format(sql.Literal(name), sql.Identifier(name, "rag_migration_history"))
            .as_string()
            for name in NAMES
        )
        assert rows(connection, f"SELECT name FROM ({newest}) found (name, at) ORDER BY at LIMIT 1") == [
            NAMES[0]
        ]


def test_no_row_is_dropped_unless_that_is_allowed(checkout: Checkout, database: Database) -> None:
    execute(database, "acme", "INSERT INTO rag_documents (article_id, deleted_at) VALUES ('a', now())")
    checkout.add('op.drop_column("rag_documents", "deleted_at")')
    found = migrate(checkout, database, code=1)
    assert fates(found)["acme"] == "failed"
    (failed,) = (each for each in found["tenants"] if each["schema"] == "acme")
    assert "1 value of rag_documents.deleted_at" in failed["evidence"]


def test_contract_revisions_are_held_back_and_run_later(checkout: Checkout, database: Database) -> None:
    contract = checkout.add('op.create_table("rag_old", sa.Column("id", sa.Integer()))', deploy="contract")
    assert [each["owed"] for each in migrate(checkout, database, "--expand-only")["tenants"]] == [
        [contract]
    ] * 5
    found = migrate(checkout, database)
    assert [each["applied"] for each in found["tenants"]] == [[contract]] * 5
    assert migrate(checkout, database)["counts"] == {"up to date": 5}


def test_a_tenant_that_is_ahead_or_not_whole_is_named(checkout: Checkout, database: Database) -> None:
    checkout.add(SMALL)
    execute(database, "acme", "UPDATE rag_alembic_version SET version_num = '30000101000000'")
    execute(database, "hooli", "DROP TABLE rag_chat_feedback")
    found = migrate(checkout, database, "--check-drift", "fail", code=1)
    assert fates(found) == {**dict.fromkeys(NAMES, "migrated"), "acme": "failed", "hooli": "failed"}
    errors = {each["schema"]: each["error"] for each in found["tenants"]}
    assert errors["acme"] == "The database is at revision 30000101000000, which this ragschema does not know."
    assert "1 object differs" in errors["hooli"] or "not those of" in errors["hooli"]


def test_what_one_tenant_leaves_in_the_session_is_not_the_nexts(
    checkout: Checkout, database: Database
) -> None:
    checkout.add(
        """
        setting = op.get_bind().scalar(sa.text("SELECT current_setting('rag.kept', true)"))
        assert not setting, setting
        op.execute("SET rag.kept = 'here'")
        op.execute("CREATE TEMPORARY TABLE left_behind (n int)")
        """
    )
    assert migrate(checkout, database, "--workers", "1")["counts"] == {"migrated": 5}


def test_a_connection_that_was_ended_between_two_tenants_is_made_anew(database: Database) -> None:
    """As by an idle_session_timeout, a firewall, or a server that was started again."""
    lender = Lender(find_options(database))
    with opened(lender.options_of("acme")) as at:
        pid = at.connection.info.backend_pid
    with opened(lender.options_of("hooli")) as at:
        assert at.connection.info.backend_pid == pid
    with connect(database) as other:
        assert rows(other, "SELECT pg_terminate_backend(%s, 10000)", pid) == [True]
    with opened(lender.options_of("initech")) as at:
        assert at.connection.info.backend_pid != pid
    lender.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_it_is_read_where_the_failed_stand_loses_no_outcome(
    database: Database, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    execute(database, "hooli", "UPDATE rag_alembic_version SET version_num = '29990101000009'")
    asked = []

    def find(options: list[Options], **_: bool) -> list[Found]:
        asked.append(options)
        if len(asked) > 1:
            signal.raise_signal(number)
        return find_all(options)

    monkeypatch.setattr("ragschema.tenants.migrating.find_all", find)
    result = tenants.migrate_tenants([database])
    assert result.interrupted_by == number.name
    assert result.counts == {"failed": 1, "up to date": 4}
    assert [each.revision for each in result.of("failed")] == [None]


@pytest.mark.parametrize("at", [HEAD, None])
def test_a_tenant_that_is_dropped_meanwhile_is_not_made_again(database: Database, at: str | None) -> None:
    options = find_options(database)
    behind = {} if at == HEAD else {Task(0, "hooli"): at}
    upgrading = Upgrading(HEAD, None, behind, True, False, False, "warn")
    lender = Lender(options)
    tenants.drop_tenant("hooli", database)
    outcome = upgrading(lender, Task(0, "hooli"))
    assert (outcome.fate, outcome.error) == (
        "dropped",
        "The tenant hooli is there no more: somebody has dropped it.",
    )
    assert upgrading(lender, Task(0, "acme")).fate == "up to date"
    lender.close()
    assert [*revisions(database)] == [each for each in NAMES if each != "hooli"]


def test_a_visit_names_what_is_not_whole_and_reads_no_imprint(
    database: Database, run: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute(database, "acme", "DROP TABLE rag_chat_citations")
    execute(database, "hooli", "DELETE FROM rag_alembic_version")
    result = run(*MIGRATE, "--visit", DATABASE_URL=database.libpq_url())
    assert result.returncode == 1
    assert "failed: acme in " in result.stdout
    assert "table rag_chat_citations: missing" in result.stdout
    assert "failed: hooli in " in result.stdout
    assert "Run `rag migrate adopt`" in result.stdout  # what to do
    assert "2 failed, 3 up to date" in result.stdout
    monkeypatch.setattr("ragschema.tenants.upgrading.survey", None)
    monkeypatch.setattr("ragschema.tenants.upgrading.look", None)
    lender = Lender(find_options(database))
    upgrading = Upgrading(HEAD, None, {}, True, False, False, "warn")
    assert upgrading(lender, Task(0, "initech")).fate == "up to date"
    lender.close()


@pytest.mark.parametrize("command", ["list", "status", "migrate", "migrate --json"])
def test_nothing_heavy_is_imported_where_nothing_is_to_be_done(database: Database, command: str) -> None:
    result = subprocess.run(
        [sys.executable, "-c", NOTHING_HEAVY, "tenants", *command.split()],
        env=clean_environment() | {"DATABASE_URL": database.libpq_url()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr


# ended in the middle


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_those_at_work_and_the_summary_is_printed(
    checkout: Checkout, database: Database, number: signal.Signals, code: int
) -> None:
    revision = checkout.add(SLOW)
    with connect(database) as connection:
        process = checkout.start(*MIGRATE, "--json", "--workers", "2", database=database)
        try:
            wait_until(lambda: len(_sleeping(connection)) == 2, "two tenants at work")
            process.send_signal(number)
            result = finish(process)
        finally:
            process.kill()
        assert result.returncode == code, result.stderr
        assert json.loads(result.stdout)["counts"] == {"interrupted": 2, "not started": 3}
        assert json.loads(result.stdout)["interrupted_by"] == number.name
        assert result.stderr.count("the running statement was cancelled") == 2
        wait_until(lambda: not _sleeping(connection), "the end of both statements")
        assert revisions(database) == dict.fromkeys(NAMES, HEAD)
    checkout.file(revision).write_text(checkout.file(revision).read_text().replace("pg_sleep(60)", "1"))
    assert migrate(checkout, database)["counts"] == {"migrated": 5}


def _sleeping(connection: psycopg.Connection[Any]) -> list[object]:
    return rows(
        connection,
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'",
    )


@pytest.mark.parametrize("victim", ["parent", "worker", "all"])
def test_after_kill_9_the_next_run_brings_every_tenant_to_head(
    checkout: Checkout, database: Database, victim: str
) -> None:
    revision = checkout.add(SLOW.replace("pg_sleep(60)", "pg_sleep(1)"))
    with connect(database) as connection:
        process = checkout.start(*MIGRATE, "--workers", "2", database=database)
        try:
            wait_until(lambda: len(_sleeping(connection)) == 2, "two tenants at work")
            workers = psutil.Process(process.pid).children()
            assert len(workers) == 2
            if victim != "parent":
                workers[0].kill()
            if victim == "all":
                workers[1].kill()
            if victim != "worker":
                process.kill()
            result = finish(process)
        finally:
            process.kill()
        if victim == "worker":
            assert result.returncode == 1
            assert "Its worker has died" in result.stdout
            assert "1 failed, 4 migrated" in result.stdout
        for worker in workers:  # orphans end with what they were at
            wait_until(lambda worker=worker: not worker.is_running(), "the end of the workers")  # type: ignore[misc]
    migrate(checkout, database)
    assert revisions(database) == dict.fromkeys(NAMES, revision)


# many databases


@pytest.fixture
def urls(tmp_path: Path, server: dict[str, str], template: str) -> Iterator[tuple[Path, list[Database]]]:
    """A file of the URLs of two databases with five tenants each, and of a server that is not there."""
    from conftest import made_database

    with ExitStack() as stack:
        found = [stack.enter_context(made_database(server, template)) for _ in range(2)]
        path = tmp_path / "urls"
        lines = [
            "# ours",
            "",
            *(each.libpq_url() for each in found),
            "postgresql://rag:s3cret@127.0.0.1:9/gone",
        ]
        path.write_text("\n".join(lines))
        yield path, found


def test_a_dead_server_stops_no_other(
    checkout: Checkout, database: Database, urls: tuple[Path, list[Database]]
) -> None:
    revision = checkout.add(SMALL)
    path, found = urls
    result = checkout.run(*MIGRATE, "--urls", str(path), "--json", database=database)
    assert result.returncode == 1
    document = json.loads(result.stdout)
    assert document["counts"] == {"migrated": 10}
    (gone,) = document["databases"]
    assert gone["database"] == "gone on 127.0.0.1:9 as rag"
    assert "s3cret" not in result.stdout + result.stderr
    for each in found:
        assert revisions(each) == dict.fromkeys(NAMES, revision)
    status = checkout.run("rag", "tenants", "status", "--urls", str(path), database=database)
    assert status.returncode == 1
    assert f"{revision}\tat head\t10" in status.stdout
    assert "not looked at: gone on 127.0.0.1:9 as rag" in status.stdout
    assert "s3cret" not in status.stdout + status.stderr


def test_urls_that_cannot_be_used_are_refused(tmp_path: Path, run: Command, database: Database) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_urls(tmp_path / "none")
    empty = tmp_path / "empty"
    empty.write_text("# nothing\n")
    with pytest.raises(ConfigurationError, match="has no URL"):
        read_urls(empty)
    empty.write_text("postgresql://u:p4ss@h/a\nmysql://u:p4ss@h/b\n")
    with pytest.raises(ConfigurationError, match=r"line 2 of .* is not a PostgreSQL URL") as refused:
        read_urls(empty)
    assert "p4ss" not in str(refused.value)
    result = run("rag", "tenants", "status", "--urls", str(empty), "--database-url", database.libpq_url())
    assert result.returncode == UsageError.exit_code
    assert "--urls names the databases" in result.stderr


def test_a_mark_at_the_beginning_and_a_database_named_twice_are_no_matter(
    tmp_path: Path, database: Database
) -> None:
    """As some editors write files, and as two lists put together have it."""
    urls = tmp_path / "urls"
    url = database.libpq_url()
    urls.write_bytes(b"\xef\xbb\xbf" + f"{url}\r\n\r\n# the same\n  {url}  \n{url}".encode())
    assert [str(each).rpartition(" (")[2] for each in read_urls(urls)] == [f"from line 1 of {urls})"]
    urls.write_text(
        "postgresql://me@db/app\npostgresql://me:secret@db:5432/app?application_name=x\npostgresql://you@db/app"
    )
    assert [each.source[:6] for each in read_urls(urls)] == ["line 1", "line 3"]


def test_the_password_comes_from_the_usual_places(
    tmp_path: Path, run: Command, database: Database, template: str
) -> None:
    with made_role(database) as role:
        assert "password" not in name_of(role)
    database_file = tmp_path / "urls"
    database_file.write_text(database.libpq_url())
    passwords = tmp_path / "pgpass"
    passwords.write_text("*:*:*:*:never shown\n")
    passwords.chmod(0o600)
    result = run("rag", "tenants", "status", "--urls", str(database_file), PGPASSFILE=str(passwords))
    assert result.returncode == 0, result.stderr
    assert f"{HEAD}\tat head\t5" in result.stdout
    assert "never shown" not in result.stdout + result.stderr


# looked at


def test_a_table_that_is_locked_away_hides_no_size_but_its_tenants(database: Database) -> None:
    with in_the_way(database, "LOCK TABLE acme.rag_chunks IN ACCESS EXCLUSIVE MODE"):
        options = find_options(database, lock_timeout=0.05)
        found = {each.schema: each.bytes for each in tenants.list_tenants(options, with_sizes=True)}
        assert [name for name in NAMES if not found[name]] == ["acme"]


def test_tenants_that_differ_alike_are_told_together(run: Command, database: Database) -> None:
    for name in ("acme", "hooli"):
        execute(database, name, "DROP INDEX rag_chunks_current_embedding_idx")
    execute(database, "umbrella", "ALTER TABLE rag_jobs ADD CONSTRAINT ours CHECK (attempts < 100)")
    result = run("rag", "tenants", "verify", "--json", DATABASE_URL=database.libpq_url())
    assert result.returncode == 4, result.stderr
    document = json.loads(result.stdout)
    assert document["revisions"] == {HEAD: 5}
    groups = [(each["count"], each["differences"]) for each in document["groups"]]
    assert [count for count, _ in groups] == [2, 2, 1]
    assert {"Globex & Sons", "initech"} in [
        {name.partition(" in ")[0] for name in each["tenants"]} for each in document["groups"]
    ]
    said = run("rag", "tenants", "verify", DATABASE_URL=database.libpq_url())
    assert "2 tenants with the same drift: acme in " in said.stdout
    assert "index rag_chunks.rag_chunks_current_embedding_idx is missing" in said.stdout


def test_tenants_of_services_and_of_addresses_are_told_apart(
    tmp_path: Path, run: Command, urls: tuple[Path, list[Database]]
) -> None:
    """Where libpq is what finds the server, two databases are alike in all else."""
    _, (one, other) = urls
    execute(one, "acme", "DROP INDEX rag_chunks_current_embedding_idx")
    services, path = tmp_path / "services", tmp_path / "of services"
    services.write_text(
        "".join(
            f"[{name}]\n" + "".join(f"{key}={value}\n" for key, value in each.parameters.items())
            for name, each in (("eu1", one), ("eu2", other))
        )
    )
    path.write_text("postgresql:///?service=eu1\npostgresql:///?service=eu2\n")
    result = run("rag", "tenants", "verify", "--json", "--urls", str(path), PGSERVICEFILE=str(services))
    assert result.returncode == 4, result.stderr
    same, drifted = json.loads(result.stdout)["groups"]
    assert same["count"] == 9
    assert drifted["tenants"] == ["acme in the default database on the service eu1"]
    places: tuple[dict[str, str], ...] = (
        {"hostaddr": "10.0.0.1"},
        {"hostaddr": "10.0.0.2"},
        {"service": "a"},
        {},
    )
    known = {"host": "db", "port": "5432", "dbname": "app", "user": "u"}
    names = [name_of(Database({**known, **each}, "the tests")) for each in places]
    assert names == [
        "app on db:5432 (10.0.0.1) as u",
        "app on db:5432 (10.0.0.2) as u",
        "app on db:5432 of the service a as u",
        "app on db:5432 as u",
    ]


def test_a_tenant_that_is_dropped_meanwhile_is_left_out_of_what_is_compared(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find_and_drop(*args: Any, **others: Any) -> list[Found]:
        found = find_all(*args, **others)
        tenants.drop_tenant("hooli", database)
        execute(database, "public", "ALTER SCHEMA acme RENAME TO acme_inc")
        return found

    monkeypatch.setattr("ragschema.tenants.verifying.find_all", find_and_drop)
    found = tenants.verify_tenants([database])
    assert (found.unverified, found.revisions) == ((), {HEAD: 3})
    assert [each.count for each in found.groups] == [3]


def test_what_a_database_owes_stops_no_other_where_it_cannot_be_seen(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_options: Options) -> None:
        raise RagSchemaError("There is no place for another connection.", "Try again.")

    monkeypatch.setattr("ragschema.tenants.owing.opened_database", refuse)
    result = tenants.migrate_tenants([database.libpq_url()])
    assert result.counts == {"up to date": 5}


@pytest.mark.parametrize("given", [None, 5, "postgresql:///x", [], [None], [5], {"a": "b"}, b"x"])
@pytest.mark.parametrize("ask", [tenants.migrate_tenants, tenants.verify_tenants, tenants.read_standings])
def test_databases_that_are_none_are_refused(ask: Callable[[Any], object], given: object) -> None:
    with pytest.raises(UsageError, match="databases"):
        ask(given)


@pytest.mark.parametrize(
    "wrong",
    [
        {"workers": 0},
        {"workers": "2"},
        {"canary": -1},
        {"canary": None},
        {"max_failures": 0},
        {"max_failures": 1.5},
        {"order": "age"},
        {"check_drift": "no"},
    ],
)
def test_a_rollout_that_cannot_be_is_refused(database: Database, wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(UsageError, match=f"{name} is "):
        tenants.Rollout(**wrong)
    with pytest.raises(UsageError, match="There is no revision"):
        tenants.migrate_tenants([database], ["head"])  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="check_drift is 'no'"):
        Request(check_drift="no")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="workers is -1"):
        tenants.verify_tenants([database], workers=-1)
    with pytest.raises(ConfigurationError, match="is int, not str"):
        tenants.create_tenant(5, database)  # type: ignore[arg-type]


def test_status_counts_the_tenants_at_each_revision(checkout: Checkout, database: Database) -> None:
    revision = checkout.add(SMALL)
    migrate(checkout, database, "--canary", "2", "--max-failures", "1", "--to", revision)
    execute(database, "acme", f"UPDATE rag_alembic_version SET version_num = '{HEAD}'")
    result = checkout.run("rag", "tenants", "status", "--exit-code", database=database)
    assert result.returncode == 3
    assert result.stdout.splitlines() == [
        f"{revision}\tat head\t4",
        f"{HEAD}\tbehind\t1",
        f"5 tenants; head is {revision}.",
    ]


def test_a_program_migrates_tenants_and_is_told_of_each(checkout: Checkout, database: Database) -> None:
    revision = checkout.add(SMALL)
    seen: list[Progress] = []
    result = tenants.migrate_tenants([find_options(database)], show=seen.append)
    assert result.counts == {"migrated": 5}
    assert [each.done for each in seen] == [1, 2, 3, 4, 5]
    assert not result.has_failed
    with pytest.raises(UsageError, match="There is no revision 1"):
        tenants.migrate_tenants([find_options(database)], "1")
    assert tenants.read_standings([find_options(database)]).total == 5
    with pytest.raises(RagSchemaError, match=r"The expected catalogue|not known"):
        raise RagSchemaError(tenants.verify_tenants([find_options(database)]).unverified[0].error)
    assert revisions(database) == dict.fromkeys(NAMES, revision)
