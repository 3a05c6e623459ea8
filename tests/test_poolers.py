"""Poolers: one that hands each transaction to any server connection is refused, the others work."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from checkouts import ADD_COLUMN, in_the_way, rows, use_checkout, wait_until
from conftest import ROOT, Command, connect
from ragschema import migrations
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
            wait_until((directory / ".s.PGSQL.6432").exists, "pgbouncer's socket", seconds=20)
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
