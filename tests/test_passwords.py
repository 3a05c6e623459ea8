"""A password appears nowhere: not in output, errors, tracebacks, files, the database, or the process list."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from checkouts import ADD_COLUMN, Checkout, in_the_way, rows, wait_until
from conftest import clean_environment, connect, passable_directory, shared_forks
from ragschema import embedded, migrations
from ragschema.database.settings import Database

CANARY = "zq7sesame"
PASSWORD = f"{CANARY}/%@: '1"
WRONG = f"not-{CANARY}"


@dataclass
class Server:
    """A server that asks for a password over its socket.

    Attributes:
        administrator: As a superuser, whom it trusts.
        log: What it has written.
        seen: Command lines of any process in which the password stood.
    """

    administrator: Database
    log: Path
    seen: list[str] = field(default_factory=list)

    def user(self, dbname: str, password: str = PASSWORD) -> Database:
        parameters = {**self.administrator.parameters, "dbname": dbname}
        return Database({**parameters, "user": "canary", "password": password}, "the tests")

    def text(self) -> str:
        return self.log.read_text(errors="replace")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server with scram-sha-256 for everybody but its superuser, which logs every statement."""
    with (
        passable_directory() as directory,
        embedded.running(directory / "postgres") as parameters,
    ):
        server = Server(Database(parameters, "the tests"), directory / "postgres" / "log")
        with connect(server.administrator) as connection:
            connection.execute(
                f"CREATE ROLE canary SUPERUSER LOGIN PASSWORD '{PASSWORD.replace(chr(39), chr(39) * 2)}'".encode()
            )
            for setting in ("fsync = off", "log_statement = 'all'", "log_connections = on"):
                connection.execute(f"ALTER SYSTEM SET {setting}".encode())
            access = directory / "postgres" / "pg_hba.conf"
            access.write_text("local all postgres trust\nlocal all all scram-sha-256\n")
            connection.execute("SELECT pg_reload_conf()")
            connection.execute("CREATE DATABASE empty_one")
            connection.execute("CREATE DATABASE migrated")
        migrations.upgrade(server.user("migrated"))
        with connect(server.administrator) as connection:
            connection.execute("CREATE DATABASE failing TEMPLATE migrated")
        stopped = threading.Event()
        looking = threading.Thread(target=look_at_processes, args=(server.seen, stopped))
        looking.start()
        try:
            yield server
        finally:
            stopped.set()
            looking.join()


def look_at_processes(seen: list[str], stopped: threading.Event) -> None:
    while not stopped.wait(0.02):
        for process in filter(str.isdigit, os.listdir("/proc")):  # noqa: PTH208  # pathlib takes six times as long
            try:
                with open(f"/proc/{process}/cmdline", "rb") as file:  # noqa: PTH123
                    command = file.read()
            except OSError:
                continue
            if CANARY.encode() in command:
                seen.append(command.decode(errors="replace"))


WAYS = ("DATABASE_URL", "DB_PASSWORD", "DB_PASSWORD_FILE")


def settings(way: str, database: Database, directory: Path) -> dict[str, str]:
    """Return the environment that says where a database is, in one of three ways."""
    parameters = database.parameters
    if way == "DATABASE_URL":
        return {way: database.libpq_url()}
    told = {"DB_HOST": parameters["host"], "DB_USER": "canary", "DB_NAME": parameters["dbname"]}
    if way == "DB_PASSWORD":
        return told | {way: parameters["password"]}
    file = directory / "password"
    file.write_text(parameters["password"] + "\n")
    return told | {way: str(file)}


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def told(checkout: Checkout, environment: dict[str, str]) -> dict[str, str]:
    return clean_environment() | {"PYTHONPATH": str(checkout.path / "src")} | environment


def said(checkout: Checkout, environment: dict[str, str], *command: str, code: int) -> str:
    """Run a command; return all it said, in which the password must not stand."""
    program, *arguments = command
    if program == "alembic":
        arguments = ["-c", str(checkout.path / "alembic.ini"), *arguments]
    result = shared_forks().run(program, arguments, checkout.path.parent, told(checkout, environment))
    output = result.stdout + result.stderr
    assert result.returncode == code, output
    assert CANARY not in output
    return output


def assert_nowhere(server: Server, *dbnames: str) -> None:
    """Assert that neither the server's log nor its sessions, nor our tables, nor any process has shown it."""
    # pg_hba and roles are the administrator's; the log has the statement that made the role
    log = "\n".join(line for line in server.text().splitlines() if "CREATE ROLE canary" not in line)
    assert "rag_alembic_version" in log
    assert CANARY not in log
    assert server.seen == []
    for dbname in dbnames:
        with connect(
            Database({**server.administrator.parameters, "dbname": dbname}, "the tests")
        ) as connection:
            shown = rows(connection, "SELECT a::text FROM pg_stat_activity a WHERE pid <> pg_backend_pid()")
            shown += rows(connection, "SELECT h::text FROM rag_migration_history h")
        assert CANARY not in str(shown)


def test_nowhere_in_what_succeeds(server: Server, checkout: Checkout, tmp_path: Path) -> None:
    environment = settings("DB_PASSWORD_FILE", server.user("migrated"), tmp_path)
    for verb in ("status", "history", "verify", "health"):
        said(checkout, environment, "rag", "migrate", verb, "--json", code=0)
    checkout.add(ADD_COLUMN)
    plan = tmp_path / "plan.json"
    said(checkout, environment, "rag", "migrate", "plan", "--out", str(plan), "--json", code=0)
    assert CANARY not in plan.read_text()
    output = said(checkout, environment, "rag", "migrate", "--debug", code=0)
    assert f"upgrade {checkout.head}" in output
    assert_nowhere(server, "migrated")


@pytest.mark.parametrize("way", WAYS)
def test_nowhere_when_it_is_wrong(server: Server, checkout: Checkout, tmp_path: Path, way: str) -> None:
    environment = settings(way, server.user("empty_one", WRONG), tmp_path)
    output = said(checkout, environment, "rag", "migrate", code=78)
    assert 'password authentication failed for user "canary"' in output
    assert "Traceback" in said(checkout, environment, "rag", "migrate", "--debug", code=1)
    assert "Traceback" in said(checkout, environment, "alembic", "--raiseerr", "upgrade", "head", code=1)
    assert_nowhere(server)


def test_nowhere_when_a_setting_is(server: Server, checkout: Checkout) -> None:
    url = server.user("empty_one").libpq_url()
    for environment, code in (
        ({"DATABASE_URL": url.replace("port=5432", "port=5433")}, 69),
        ({"DATABASE_URL": url.replace("port=5432", "port=x")}, 78),
        ({"DATABASE_URL": url.replace("port=5432", "prot=5432")}, 78),
        ({"DATABASE_URL": url.replace("postgresql://", "mysql://")}, 78),
        ({"DATABASE_URL": url, "RAG_SCHEMA": ""}, 78),
        ({"DB_PASSWORD": PASSWORD}, 78),
    ):
        said(checkout, environment, "rag", "migrate", "status", code=code)
    said(checkout, {"DATABASE_URL": url}, "rag", "migrate", "--role", "nobody", "--debug", code=1)
    assert_nowhere(server)


def test_nowhere_when_a_migration_fails(server: Server, checkout: Checkout, tmp_path: Path) -> None:
    """It meets a lock, raises, loses its connection, and is stopped."""
    administrator = Database({**server.administrator.parameters, "dbname": "failing"}, "the tests")
    environment = settings("DB_PASSWORD", server.user("failing"), tmp_path)
    debug = ("rag", "migrate", "--debug")

    revision = checkout.add(ADD_COLUMN)
    with in_the_way(administrator):
        options = ("--lock-timeout", "100ms", "--retries", "0")
        assert "LockNotObtained" in said(checkout, environment, *debug, *options, code=1)
    for statement in ("SELECT 1 / 0", "SELECT pg_terminate_backend(pg_backend_pid())"):
        replace_upgrade(checkout, revision, statement)
        assert "Traceback" in said(checkout, environment, *debug, code=1)
        assert "Traceback" in said(checkout, environment, "alembic", "--raiseerr", "upgrade", "head", code=1)

    replace_upgrade(checkout, revision, "SELECT pg_sleep(600)")
    program, *arguments = debug
    process = shared_forks().start(program, arguments, checkout.path.parent, told(checkout, environment))
    with connect(administrator) as connection:
        sleeping = "SELECT FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600)' AND state = 'active'"
        wait_until(lambda: rows(connection, sleeping), "the revision to run")
    process.terminate()
    printed, errors = process.communicate()
    assert process.returncode == 143
    assert CANARY not in printed + errors
    assert_nowhere(server, "failing")


def replace_upgrade(checkout: Checkout, revision: str, statement: str) -> None:
    """Let the upgrade of a revision be one statement."""
    file = checkout.file(revision)
    before, _, rest = file.read_text().partition("def upgrade()")
    after = rest.partition("def downgrade()")[2]
    file.write_text(
        f'{before}def upgrade() -> None:\n    op.execute("{statement}")\n\n\ndef downgrade(){after}'
    )
