"""One embedded server a run, one template database at head, a clone of it for each test that asks."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from ragschema import embedded, migrations
from ragschema.database.settings import Database
from ragschema.state.expected import expected
from schema_dump import dump_schema

__all__ = [
    "ROOT",
    "Command",
    "clean_environment",
    "connect",
    "copy_checkout",
    "dump_schema",
    "made_database",
    "make_by_hand",
    "make_engine",
    "read_rows",
    "run_psql",
]

ROOT = Path(__file__).resolve().parents[1]
CLEARED = ("DATABASE_URL", "DB_", "PG", "RAG_")

_numbers = count()


def clean_environment() -> dict[str, str]:
    """Return the environment without anything that says which database to use."""
    return {name: value for name, value in os.environ.items() if not name.startswith(CLEARED)}


@pytest.fixture(autouse=True)
def _no_database_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(CLEARED):
            monkeypatch.delenv(name)


# Not below pytest's own directory: as root, the start of any other run closes that to the server's user.
_DIRECTORY = "RAGSCHEMA_TESTS"


def pytest_configure() -> None:
    """Make the directory that all processes of this run share; those of pytest-xdist inherit its name."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        os.environ[_DIRECTORY] = tempfile.mkdtemp(prefix="ragschema-tests-")


def pytest_unconfigure() -> None:
    if "PYTEST_XDIST_WORKER" not in os.environ:
        shutil.rmtree(os.environ.pop(_DIRECTORY), ignore_errors=True)


@pytest.fixture(scope="session")
def server() -> Iterator[Mapping[str, str]]:
    """libpq keywords of the run's server, as its superuser."""
    with embedded.running(Path(os.environ[_DIRECTORY]) / "postgres") as parameters:
        with connect(Database(parameters, "the tests")) as connection:
            for setting in ("fsync = off", "synchronous_commit = off", "full_page_writes = off"):
                connection.execute(f"ALTER SYSTEM SET {setting}")
            connection.execute("SELECT pg_reload_conf()")
        yield parameters


def connect(database: Database) -> psycopg.Connection[psycopg.rows.TupleRow]:
    """Connect with psycopg, each statement a transaction of its own."""
    return psycopg.connect(database.libpq_url(), autocommit=True)


@contextmanager
def made_database(server: Mapping[str, str], template: str | None = None) -> Iterator[Database]:
    """Make a database, empty or a clone, and drop it afterwards."""
    name = f"test_{os.getpid()}_{next(_numbers)}"
    with connect(Database(server, "the tests")) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template or 'template1'}")
        try:
            yield Database({**server, "dbname": name}, "the tests")
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def empty_database(server: Mapping[str, str]) -> Iterator[Database]:
    with made_database(server) as database:
        yield database


@pytest.fixture(scope="session")
def template(server: Mapping[str, str]) -> str:
    """The name of a database at head: the first process of the run makes it."""
    name = "head"
    with (Path(os.environ[_DIRECTORY]) / "template.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with connect(Database(server, "the tests")) as connection:
            if not connection.execute("SELECT FROM pg_database WHERE datname = %s", (name,)).fetchall():
                connection.execute("CREATE DATABASE making_head")
                migrations.upgrade(Database({**server, "dbname": "making_head"}, "the tests"))
                connection.execute("ALTER DATABASE making_head RENAME TO head")
    return name


@pytest.fixture
def database(server: Mapping[str, str], template: str) -> Iterator[Database]:
    """A database at head."""
    with made_database(server, template) as database:
        yield database


def make_engine(database: Database) -> Iterator[sa.Engine]:
    """An engine on the module's database: the fixture ``engine``, of a test's time or of a module's."""
    engine = sa.create_engine(database.url())
    yield engine
    engine.dispose()


engine = pytest.fixture(make_engine)


@pytest.fixture
def session(engine: sa.Engine) -> Iterator[Session]:
    with Session(engine) as session:
        yield session


def read_rows(database: Database, revision: str) -> dict[str, list[dict[str, Any]]]:
    """Return all rows of our tables, but for the columns that a revision does not have."""
    columns: dict[str, set[str]] = {}
    for name in expected(revision):
        if name.startswith("column "):
            table, column = name.removeprefix("column ").split(".")
            columns.setdefault(table, set()).add(column)
    with connect(database) as connection:
        return {
            table: [
                {name: value for name, value in row.items() if name in columns[table]}
                for (row,) in connection.execute(f"SELECT to_jsonb(t) FROM {table} t ORDER BY id".encode())
            ]
            for table in columns
        }


def run_psql(database: Database, sql: str) -> str:
    """Run a script through psql, stopping at its first error; return what psql prints."""
    return subprocess.run(
        [embedded.program("psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", database.libpq_url()],
        input=sql,
        text=True,
        capture_output=True,
        check=True,
    ).stdout


def make_by_hand(database: Database) -> None:
    """Make the schema by its hand-written SQL; a function stands for uuid-ossp, whose files no wheel has."""
    run_psql(
        database,
        "CREATE FUNCTION public.uuid_generate_v4() RETURNS uuid LANGUAGE sql AS 'SELECT gen_random_uuid()'",
    )
    for file in sorted((ROOT / "tests" / "seed_schema").glob("*.sql")):
        run_psql(database, file.read_text().replace('CREATE EXTENSION IF NOT EXISTS "uuid-ossp";', ""))


def copy_checkout(directory: Path) -> Path:
    """Copy what runs from the checkout, to add revisions to; its ``src`` goes into PYTHONPATH."""
    copy = directory / "checkout"
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("src", "alembic"):
        shutil.copytree(ROOT / name, copy / name, ignore=ignored)
    shutil.copy(ROOT / "alembic.ini", copy)
    return copy


Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Command:
    """Run a command as a user would: its own process, an empty working directory, nothing in the environment.

    ``run("rag", "migrate", DATABASE_URL=...)`` runs the installed script; keywords are environment variables.
    """

    def run(*arguments: str, cwd: Path = tmp_path, **environment: str) -> subprocess.CompletedProcess[str]:
        program, *rest = arguments
        return subprocess.run(
            [str(Path(sys.executable).with_name(program)), *rest],
            cwd=cwd,
            env=clean_environment() | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    return run
