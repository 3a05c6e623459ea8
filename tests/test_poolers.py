"""Poolers: one that hands each transaction to any server connection is refused, the others work."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy.exc import OperationalError, ProgrammingError

from checkouts import ADD_COLUMN, in_the_way, rows, use_checkout, wait_until
from conftest import ROOT, Command, connect
from ragschema import create_async_engine, create_engine, hybrid_search, jobs, migrations
from ragschema.database import poolers
from ragschema.database.connections import opened
from ragschema.database.options import Options
from ragschema.database.settings import Database
from ragschema.embedded.places import server_user
from ragschema.revisions.manifest import read_manifest

PGBOUNCER = shutil.which("pgbouncer") or shutil.which("/usr/sbin/pgbouncer")
pytestmark = pytest.mark.skipif(
    PGBOUNCER is None, reason="pgbouncer is not installed (apt-get install pgbouncer)"
)

HEAD = read_manifest().head
ADVISORY_LOCKS = (
    "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)


@contextmanager
def pgbouncer(server: Mapping[str, str], mode: str, size: int) -> Iterator[Mapping[str, str]]:
    """Run pgbouncer before the server; yield libpq keywords to reach it.

    It runs as the server's user: it refuses to be root, and the server's socket is private.
    """
    user = server_user(Path(server["host"]))
    with tempfile.TemporaryDirectory(prefix="ragschema-pgbouncer-") as name:
        directory = Path(name)
        (directory / "ini").write_text(
            "[databases]\n"
            f"* = host={server['host']} port={server['port']} user={server['user']}\n"
            "[pgbouncer]\n"
            f"pool_mode = {mode}\ndefault_pool_size = {size}\n"
            f"auth_type = any\nlisten_addr =\nunix_socket_dir = {directory}\nlisten_port = 6432\n"
        )
        if user:
            os.chown(directory, *user)
        process = subprocess.Popen(
            [str(PGBOUNCER), str(directory / "ini")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            **({"user": user[0], "group": user[1], "extra_groups": []} if user else {}),  # type: ignore[call-overload]
        )
        try:
            wait_until((directory / ".s.PGSQL.6432").exists, "pgbouncer's socket")
            yield {**server, "host": str(directory), "port": "6432"}
        finally:
            process.terminate()
            process.wait()


@pytest.fixture(scope="module")
def transaction_pooler(server: Mapping[str, str]) -> Iterator[Mapping[str, str]]:
    with pgbouncer(server, "transaction", 5) as parameters:
        yield parameters


@pytest.fixture(scope="module")
def session_pooler(server: Mapping[str, str]) -> Iterator[Mapping[str, str]]:
    with pgbouncer(server, "session", 5) as parameters:
        yield parameters


@pytest.fixture
def _short_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poolers, "_PROBE_TIMEOUT", 0.5)


def behind(pooler: Mapping[str, str], database: Database) -> Database:
    return Database({**pooler, "dbname": database.parameters["dbname"]}, "the tests")


@pytest.mark.parametrize(
    "command", [("rag", "migrate"), ("alembic", "upgrade", "head")], ids=["rag", "alembic"]
)
def test_a_transaction_pooler_is_refused_and_the_setting_for_it_works(
    run: Command, transaction_pooler: Mapping[str, str], empty_database: Database, command: tuple[str, ...]
) -> None:
    pooled = behind(transaction_pooler, empty_database).libpq_url()
    refused = run(*command, cwd=ROOT, DATABASE_URL=pooled)
    assert refused.returncode == (78 if command[0] == "rag" else 255)
    said = refused.stdout + refused.stderr
    assert "The database is behind a transaction pooler" in said
    assert "Set RAG_MIGRATION_DATABASE_URL to the server itself or a session pooler" in said
    assert migrations.status(empty_database).state == "EMPTY"

    direct = empty_database.libpq_url()
    accepted = run(*command, cwd=ROOT, DATABASE_URL=pooled, RAG_MIGRATION_DATABASE_URL=direct)
    assert accepted.returncode == 0, accepted.stderr
    assert "(from RAG_MIGRATION_DATABASE_URL)" in accepted.stderr
    assert migrations.status(empty_database).state == "OK"


@pytest.mark.usefixtures("_short_probe")
def test_a_transaction_pooler_of_one_connection_is_refused_and_nothing_leaks_through_it(
    server: Mapping[str, str], empty_database: Database
) -> None:
    with pgbouncer(server, "transaction", 1) as pooler:
        pooled = behind(pooler, empty_database)
        for _ in range(2):
            with pytest.raises(Exception, match="behind a transaction pooler"):
                migrations.upgrade(pooled)
        with psycopg.connect(pooled.libpq_url(), autocommit=True) as client:
            settings = "SELECT current_setting('search_path'), current_setting('lock_timeout')"
            assert rows(client, settings) == [('"$user", public', "0")]
            assert rows(client, ADVISORY_LOCKS) == [0]


def test_a_session_pooler_is_accepted_and_migrates(
    run: Command, session_pooler: Mapping[str, str], empty_database: Database
) -> None:
    pooled = behind(session_pooler, empty_database)
    with opened(Options(pooled)) as at, at.connection:
        assert at.access == "session pooler"
    with opened(Options(empty_database)) as at, at.connection:
        assert at.access == "direct"
    for command in (("rag", "migrate"), ("alembic", "upgrade", "head")):
        result = run(*command, cwd=ROOT, DATABASE_URL=pooled.libpq_url())
        assert result.returncode == 0, result.stderr
    assert migrations.status(pooled).state == "OK"
    with connect(empty_database) as connection:  # the next client of that server connection finds it clean
        assert rows(connection, ADVISORY_LOCKS) == [0]


@pytest.mark.usefixtures("_short_probe")
def test_a_session_pooler_of_one_connection_is_accepted_and_migrates(
    server: Mapping[str, str], empty_database: Database
) -> None:
    with pgbouncer(server, "session", 1) as pooler:
        pooled = behind(pooler, empty_database)
        assert migrations.upgrade(pooled).current == HEAD
        assert migrations.status(pooled).state == "OK"


def test_behind_a_session_pooler_the_blocker_is_named(
    session_pooler: Mapping[str, str],
    database: Database,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    checkout = use_checkout(tmp_path, monkeypatch)
    checkout.add(ADD_COLUMN)
    caplog.set_level("INFO", "ragschema")
    with in_the_way(database) as pid:
        upgrading = threading.Thread(target=migrations.upgrade, args=(behind(session_pooler, database),))
        upgrading.start()
        wait_until(lambda: f"Waiting for pid {pid} (a reader at lunch)" in caplog.text, "the blocker's name")
    upgrading.join()
    assert migrations.status(database).state == "OK"


def enqueue_and_search(pooled: Database, times: int, **options: Any) -> None:
    """Do in a service's way, over and over, what a pooler may tear: enqueue, claim, search, publish."""
    engine = create_engine(pooled.libpq_url(), **options)
    for number in range(times):
        with engine.begin() as first, engine.begin() as second:  # two, so that the pooler hands out others
            for name, each in (("first", first), ("second", second)):
                jobs.enqueue(each, "embed", {"number": number}, dedupe_key=f"{name} {number}")
                each.execute(hybrid_search(None, "words", limit=1)).all()
        with engine.begin() as claiming:
            [job] = jobs.claim(claiming, "worker", ["embed"])
            assert jobs.complete(claiming, job)
    engine.dispose()


async def enqueue_in_asyncio(pooled: Database, times: int, **options: Any) -> None:
    engine = create_async_engine(pooled.libpq_url(), **options)
    try:
        for number in range(times):
            async with engine.begin() as connection, engine.begin() as other:
                await connection.run_sync(jobs.enqueue, "asyncio", {"number": number})
                await other.run_sync(jobs.enqueue, "asyncio", {"number": number})
    finally:
        await engine.dispose()


@pytest.mark.parametrize("options", [{}, {"pooler": True}], ids=["found out", "said"])
def test_a_service_enqueues_and_searches_behind_a_transaction_pooler(
    transaction_pooler: Mapping[str, str], database: Database, options: dict[str, Any]
) -> None:
    pooled = behind(transaction_pooler, database)
    for _ in range(2):  # another service finds server connections that the first has used
        enqueue_and_search(pooled, 8, **options)
        asyncio.run(enqueue_in_asyncio(pooled, 8, **options))
    with connect(database) as connection:
        assert rows(connection, "SELECT count(*) FROM rag_jobs WHERE job_type = 'asyncio'") == [32]
        assert rows(connection, "SELECT count(*) FROM rag_jobs WHERE status = 'completed'") == [16]


async def enqueue_until_it_fails(pooled: Database) -> None:
    for _ in range(4):
        await enqueue_in_asyncio(pooled, 12, pooler=False)


def test_without_it_a_transaction_pooler_tears_prepared_statements_apart(
    transaction_pooler: Mapping[str, str], database: Database
) -> None:
    """What `pooler` is for: if this no longer fails, it can go."""
    pooled = behind(transaction_pooler, database)
    enqueue_and_search(pooled, 12)
    with pytest.raises((OperationalError, ProgrammingError), match="prepared statement"):
        asyncio.run(enqueue_until_it_fails(pooled))


def test_workers_behind_a_transaction_pooler_find_jobs_by_looking(
    transaction_pooler: Mapping[str, str], database: Database
) -> None:
    engine = create_engine(behind(transaction_pooler, database).libpq_url())
    done: list[object] = []
    stopping = threading.Event()
    working = threading.Thread(
        target=jobs.work,
        args=(engine, {"embed": lambda job: done.append(job.payload)}),
        kwargs={"poll": timedelta(seconds=0.1), "stopping": stopping},
    )
    working.start()
    with engine.begin() as connection:
        for number in range(12):
            jobs.enqueue(connection, "embed", number)  # type: ignore[arg-type]  # any JSON
    wait_until(lambda: len(done) == 12, "the jobs")
    stopping.set()
    working.join()
    engine.dispose()
    assert sorted(done) == list(range(12))  # type: ignore[type-var]


@pytest.mark.usefixtures("_short_probe")
def test_health_says_what_services_need_behind_a_pooler(
    transaction_pooler: Mapping[str, str],
    session_pooler: Mapping[str, str],
    database: Database,
    run: Command,
) -> None:
    for pooler, code in ((transaction_pooler, 78), (session_pooler, 0)):
        result = run("rag", "migrate", "health", DATABASE_URL=behind(pooler, database).libpq_url())
        assert result.returncode == code, result.stdout
        assert "prepare_threshold=None" in result.stdout
        assert "create_engine(pooler=True)" in result.stdout
    assert (
        "prepare_threshold" not in run("rag", "migrate", "health", DATABASE_URL=database.libpq_url()).stdout
    )


def test_health_looks_at_the_pooler_of_services_beside_the_server_of_migrations(
    transaction_pooler: Mapping[str, str], database: Database, run: Command
) -> None:
    result = run(
        "rag",
        "migrate",
        "health",
        DATABASE_URL=behind(transaction_pooler, database).libpq_url(),
        RAG_MIGRATION_DATABASE_URL=database.libpq_url(),
    )
    assert result.returncode == 0, result.stdout
    assert "connection\tdirect" in result.stdout
    assert "prepare_threshold=None" in result.stdout
