"""A hot standby: what looks works there, what would change it says that it is one."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from conftest import ROOT, Command, connect, made_database, make_template
from ragschema import migrations
from ragschema.database.options import Options
from ragschema.database.settings import Database
from ragschema.embedded.places import server_user
from ragschema.embedded.programs import run_program
from ragschema.errors import ConfigurationError
from ragschema.migrations.health import check_health
from ragschema.migrations.repair import repair
from test_inheritance import looks_work

BEFORE_HEAD = "20261121150000"


@contextmanager
def standby_of(server: Mapping[str, str]) -> Iterator[Mapping[str, str]]:
    """Run a hot standby of a server while the block runs; it has the databases of the moment."""
    with tempfile.TemporaryDirectory(prefix="ragschema-standby-") as name:
        sockets, data = Path(name), Path(name) / "data"
        if user := server_user(Path(server["host"])):
            shutil.chown(sockets, *user)
        source = ("-h", server["host"], "-p", server["port"], "-U", server["user"])
        for program, *arguments in (
            ("pg_basebackup", *source, "-R", "-X", "stream", "--checkpoint=fast", "--no-sync"),
            ("pg_ctl", "-w", "-l", str(sockets / "log"), "-o", f"-h '' -p 5432 -k {sockets}", "start"),
        ):
            result = run_program(program, data, *arguments)
            assert result.returncode == 0, result.stdout
        try:
            yield {**server, "host": str(sockets), "port": "5432"}
        finally:
            run_program("pg_ctl", data, "-w", "-m", "immediate", "stop")


@pytest.fixture(scope="module")
def standby(server: Mapping[str, str], template: str) -> Iterator[tuple[Database, Database]]:
    """On a hot standby, a database at head and one before it."""
    with (
        made_database(server, template) as at_head,
        made_database(server, make_template(server, BEFORE_HEAD)) as before,
        standby_of(server) as parameters,
    ):
        yield (
            Database({**parameters, "dbname": at_head.parameters["dbname"]}, "the tests"),
            Database({**parameters, "dbname": before.parameters["dbname"]}, "the tests"),
        )


def test_a_migration_says_in_words_that_it_is_a_standby(
    standby: tuple[Database, Database], run: Command
) -> None:
    _, before = standby
    with connect(before) as connection:
        assert connection.execute("SELECT pg_is_in_recovery()").fetchone() == (True,)
    for command in (("rag", "migrate"), ("alembic", "upgrade", "head"), ("rag", "migrate", "stamp", "head")):
        result = run(*command, cwd=ROOT, DATABASE_URL=before.libpq_url())
        said = result.stdout + result.stderr
        assert result.returncode in (78, 255), said
        assert "The server is a hot standby" in said
        assert "target_session_attrs=read-write" in said
        assert "25006" not in said
        assert "not committed" not in said
    for act in (lambda: repair(Options(before)), lambda: migrations.downgrade(before, "-1")):
        with pytest.raises(ConfigurationError, match="hot standby"):
            act()


def test_health_says_that_it_is_a_standby(standby: tuple[Database, Database]) -> None:
    for database in standby:
        found = {check.name: check for check in check_health(Options(database))}
        assert found["writing"].verdict == "refused"
        assert "hot standby" in found["writing"].finding


def test_what_looks_works_on_a_standby(standby: tuple[Database, Database], run: Command) -> None:
    at_head, before = standby
    looks_work(before, run)
    for command in ("status", "verify", "verify --data", "wait", "plan", "history"):
        result = run("rag", "migrate", *command.split(), DATABASE_URL=at_head.libpq_url())
        assert result.returncode == 0, (command, result.stderr)


def test_at_head_a_migration_has_nothing_to_do_on_a_standby(
    standby: tuple[Database, Database], run: Command
) -> None:
    at_head, _ = standby
    for command in (("rag", "migrate"), ("alembic", "upgrade", "head")):
        result = run(*command, cwd=ROOT, DATABASE_URL=at_head.libpq_url())
        assert result.returncode == 0, result.stderr
