"""The database that was named is the one that is used: other programs' settings, files above, directories made."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from psycopg.pq import Conninfo

import ragschema
from conftest import Command
from ragschema import embedded
from ragschema.database.options import find_options
from ragschema.database.settings import Database, embedded_directory, find_database
from ragschema.errors import ConfigurationError

LOOKS = [
    "migrate status", "migrate history", "migrate wait --timeout 1s", "migrate verify", "migrate health",
    "migrate plan", "migrate adopt", "migrate repair", "migrate init", "migrate stamp head",
    "migrate rollback -1 --yes", "jobs list", "jobs stats", "jobs prune --older-than 1d", "db psql -c SELECT",
]  # fmt: skip


def refusal(directory: Path, **environ: str) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as refused:
        find_database(environ=environ, directory=directory)
    assert refused.value.exit_code == 78
    return refused.value


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("PGHOST", "prod.example", "DATABASE_URL=postgresql:///"),
        ("PGHOSTADDR", "192.0.2.1", "DATABASE_URL=postgresql:///"),
        ("PGDATABASE", "rag", "DATABASE_URL=postgresql:///"),
        ("PGSERVICE", "rag", "DATABASE_URL=postgresql:///"),
        ("PGUSER", "rag", "DATABASE_URL=postgresql:///"),
        ("PGPASSWORD", "s3cret", "DATABASE_URL=postgresql:///"),
        ("PGPASSFILE", "/run/secrets/pgpass", "DATABASE_URL=postgresql:///"),
        ("PGSERVICEFILE", "/etc/pg_service.conf", "DATABASE_URL=postgresql:///"),
        ("PGSSLMODE", "verify-full", "DATABASE_URL=postgresql:///"),
        ("PGSSLROOTCERT", "system", "DATABASE_URL=postgresql:///"),
        ("PGREQUIRESSL", "1", "DATABASE_URL=postgresql:///"),
        ("PGTARGETSESSIONATTRS", "read-write", "DATABASE_URL=postgresql:///"),
        ("POSTGRES_DB", "rag", "Write POSTGRES_HOST too"),
        ("POSTGRES_PASSWORD", "s3cret", "Write POSTGRES_HOST too"),
        ("POSTGRES_URL", "postgres://u:s3cret@h/d", "Write DATABASE_URL with the value of POSTGRES_URL,"),
        ("DATABSE_URL", "postgresql://u:s3cret@h/d", "Write DATABASE_URL,"),
        ("DATABASE_ULR", "postgresql://u:s3cret@h/d", "Write DATABASE_URL,"),
        ("DATABASEURL", "postgresql://u:s3cret@h/d", "Write DATABASE_URL,"),
        ("database_url", "postgresql://u:s3cret@h/d", "Write DATABASE_URL,"),
        ("DB_HSOT", "h", "Write DB_HOST,"),
        ("DBHOST", "h", "Write DB_HOST,"),
        ("POSTGERS_HOST", "h", "Write POSTGRES_HOST,"),
        ("RAG_MIGRATIONS_DATABASE_URL", "postgresql://h/d", "Write RAG_MIGRATION_DATABASE_URL,"),
        ("DB_URL", "postgresql://u:s3cret@h/d", "Write DATABASE_URL with the value of DB_URL,"),
        ("DATABASE_HOST", "h", "Write DATABASE_URL="),
        ("SQLALCHEMY_DATABASE_URI", "x", "Write DATABASE_URL="),
        ("NEON_MAIN", "postgresql+asyncpg://u:s3cret@h/d", "Write DATABASE_URL with the value of"),
    ],
)
def test_a_database_named_to_others_or_misspelt_is_refused(
    tmp_path: Path, name: str, value: str, remedy: str
) -> None:
    refused = refusal(tmp_path, **{name: value})
    assert refused.message == f"{name} is set, and no setting that ragschema reads."
    assert remedy in refused.remedy
    assert "RAG_EMBEDDED_DIR=.ragschema/postgres" in refused.remedy
    assert "s3cret" not in str(refused)
    assert find_database(environ={name: "", "LANG": "C"}, directory=tmp_path).embedded
    assert find_database(environ={name: value, "RAG_EMBEDDED_DIR": "x"}, directory=tmp_path).embedded
    assert find_database(environ={name: value, "DATABASE_URL": "postgresql://h"}, directory=tmp_path)
    (tmp_path / ".env").write_text(f"{name}={value}\n")
    assert refusal(tmp_path).message.startswith(f"{name} in {tmp_path / '.env'} is set")


def test_of_libpq_s_variables_only_those_that_say_nothing_of_a_server_pass(tmp_path: Path) -> None:
    """A new variable of a newer libpq is refused until somebody has decided that it is harmless."""
    known = {option.envvar.decode() for option in Conninfo.get_defaults() if option.envvar}
    harmless = {"PGAPPNAME", "PGCLIENTENCODING", "PGCONNECT_TIMEOUT", "PGGSSENCMODE", "PGGSSLIB", "PGOPTIONS"}
    for name in known - harmless:
        assert refusal(tmp_path, **{name: "1"}).message.startswith(f"{name} is set")
    passing = dict.fromkeys([*harmless, "PGTZ", "PGDATESTYLE", "PGSYSCONFDIR", "PGDATA"], "1")
    assert find_database(environ=passing, directory=tmp_path).embedded


def test_what_libpq_is_told_is_used_as_the_refusal_says(
    run: Command, tmp_path: Path, empty_database: Database
) -> None:
    names = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "dbname": "PGDATABASE"}
    environ = {names[name]: value for name, value in empty_database.parameters.items()}
    refused = run("rag", "migrate", cwd=tmp_path, **environ)
    assert (refused.returncode, refused.stdout) == (78, "")
    assert list(tmp_path.iterdir()) == []
    done = run("rag", "migrate", "status", cwd=tmp_path, DATABASE_URL="postgresql:///", **environ)
    assert f"Database: {empty_database.parameters['dbname']} on " in done.stderr
    assert done.stdout.startswith("state\tEMPTY")


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"DB_HOST": "h", "DB_NMAE": "d"}, "DB_NMAE is set, and DB_NAME is not."),
        ({"DB_HOST": "h", "DB_DATABASE": "d"}, "DB_DATABASE is set, and DB_NAME is not."),
        ({"DB_HOST": "h", "DB_USERNAME": "u"}, "DB_USERNAME is set, and DB_USER is not."),
        ({"DB_HOST": "h", "DB_PASS": "s3cret"}, "DB_PASS is set, and DB_PASSWORD is not."),
        (
            {"POSTGRES_HOST": "h", "POSTGRES_DATABASE": "d"},
            "POSTGRES_DATABASE is set, and POSTGRES_DB is not.",
        ),
        ({"POSTGRES_HOST": "h", "POSTGRES_NAME": "d"}, "POSTGRES_NAME is set, and POSTGRES_DB is not."),
        ({"POSTGRES_HOST": "h", "DB_NAME": "d"}, "DB_NAME is set, but DB_HOST is not."),
    ],
)
def test_a_misspelt_part_is_not_passed_over_for_a_default(
    tmp_path: Path, environ: dict[str, str], message: str
) -> None:
    assert refusal(tmp_path, **environ).message == message


@pytest.mark.parametrize("name", ["RAG_SCHEME", "RAG_SHCEMA", "rag_schema"])
def test_a_misspelt_schema_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "tenant")
    with pytest.raises(ConfigurationError, match=f"{name} is set, and RAG_SCHEMA is not") as refused:
        find_options("postgresql://h/d")
    assert refused.value.remedy == f"Write RAG_SCHEMA, or unset {name}."
    assert find_options("postgresql://h/d", schema="own").schema == "own"


def test_the_names_of_the_postgres_image_are_settings_after_ours(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("of-the-file\n")

    def parameters(**environ: str) -> dict[str, str]:
        return dict(find_database(environ=environ, directory=tmp_path).parameters)

    assert parameters(POSTGRES_HOST="h") == {
        "host": "h", "port": "5432", "user": "postgres", "dbname": "postgres",
    }  # fmt: skip
    named = {
        "POSTGRES_HOST": "h", "POSTGRES_PORT": "5433", "POSTGRES_USER": "u", "POSTGRES_PASSWORD": "p",
        "POSTGRES_DB": "d", "POSTGRES_SSLMODE": "disable",
    }  # fmt: skip
    assert parameters(**named) == {
        "host": "h", "port": "5433", "user": "u", "password": "p", "dbname": "d", "sslmode": "disable",
    }  # fmt: skip
    assert parameters(POSTGRES_HOST="h", POSTGRES_USER="u")["dbname"] == "u"  # as the image makes it
    secret = str(tmp_path / "secret")
    assert parameters(**named, POSTGRES_PASSWORD_FILE=secret)["password"] == "of-the-file"
    assert parameters(**named, DB_HOST="ours")["host"] == "ours"
    assert parameters(**named, DATABASE_URL="postgresql://url")["host"] == "url"
    (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in named.items()))
    found = find_database(environ={}, directory=tmp_path)
    assert found.source == f"POSTGRES_HOST in {tmp_path / '.env'}"


def test_the_file_is_looked_for_up_to_the_root_of_the_repository(tmp_path: Path) -> None:
    repository, inner = tmp_path / "repository", tmp_path / "repository" / "docs" / "pages"
    inner.mkdir(parents=True)
    (tmp_path / ".env").write_text("DATABASE_URL=postgresql://outside\n")
    assert find_database(environ={}, directory=inner).embedded  # no repository, not at home: nobody's project
    (repository / ".git").mkdir()
    assert find_database(environ={}, directory=inner).embedded
    (repository / ".env").write_text("DATABASE_URL=postgresql://root\nRAG_EMBEDDED_DIR=data\n")
    found = find_database(environ={}, directory=inner)
    assert (found.parameters["host"], found.source) == ("root", f"DATABASE_URL in {repository / '.env'}")
    assert embedded_directory(environ={}, directory=inner) == repository / "data"
    (inner / ".env").write_text("OTHER=1\n")
    assert find_database(environ={}, directory=inner).parameters["host"] == "root"
    (inner / ".env").write_text("DB_HOST=near\n")
    assert find_database(environ={}, directory=inner).parameters["host"] == "near"


def test_the_file_is_looked_for_up_to_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, inner = tmp_path / "home", tmp_path / "home" / "work" / "here"
    inner.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    (tmp_path / ".env").write_text("DATABASE_URL=postgresql://outside\n")
    assert find_database(environ={}, directory=inner).embedded
    (home / ".env").write_text("DATABASE_URL=postgresql://at-home\n")
    assert find_database(environ={}, directory=inner).parameters["host"] == "at-home"


@pytest.mark.skipif(os.getuid() != 0, reason="gives a file to another user")
def test_another_users_file_above_is_refused(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    (tmp_path / ".git").mkdir()
    (tmp_path / ".env").write_text("DATABASE_URL=postgresql://theirs\n")
    os.chown(tmp_path / ".env", 12345, 12345)
    assert "belongs to another user" in refusal(inner).message
    assert find_database(environ={}, directory=tmp_path).parameters["host"] == "theirs"


@pytest.mark.parametrize("command", LOOKS)
def test_a_command_that_looks_makes_no_server(run: Command, tmp_path: Path, command: str) -> None:
    result = run("rag", *command.split(), cwd=tmp_path)
    assert (result.returncode, result.stdout) == (78, ""), result.stderr
    error = result.stderr.splitlines()
    assert error[0].startswith("Error: There is no embedded server in ")
    assert error[1] == ("Make one there with `rag migrate`, or set DATABASE_URL to the server that is meant.")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "call",
    [
        ragschema.session_factory,
        ragschema.create_engine,
        ragschema.create_async_engine,
        ragschema.migrations.status,
        ragschema.migrations.upgrade,
    ],
)
def test_the_library_makes_no_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Callable[[], object]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match="There is no embedded server in"):
        call()
    assert list(tmp_path.iterdir()) == []


def test_the_server_above_is_used_with_one_line_that_says_so(run: Command, tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (inner := tmp_path / "docs").mkdir()
    data = tmp_path / ".ragschema" / "postgres"
    made = run("rag", "migrate", "--to", "20251225160000", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    shown = f"Database: the embedded PostgreSQL in {data}"
    why = "(from the default, as no setting names a database)"

    def said(done: subprocess.CompletedProcess[str]) -> list[str]:
        return [line for line in done.stderr.splitlines() if "passable" not in line]  # as root

    assert said(made) == [f"{shown} {why}, made now"]
    status = run("rag", "migrate", "status", cwd=inner)
    assert (status.returncode, said(status)) == (0, [f"{shown} {why}"])
    assert "20251225160000" in status.stdout
    assert list(inner.iterdir()) == []
    failed = run("rag", "migrate", "--to", "nope", cwd=inner)
    assert said(failed)[0] == f"{shown} {why}"
    assert said(failed)[1].startswith("Error: ")
    assert not embedded.is_running(data)
    embedded.destroy(data)


def test_a_host_on_the_command_line_takes_nothing_of_another_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ragschema.cli.arguments import Target

    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("DB_HOST=prod\nDB_NAME=prod\nDB_USER=admin\nDB_PORT=6543\n")
    assert Target(host="h").options().database.parameters == {
        "host": "h", "port": "5432", "user": "postgres", "dbname": "postgres",
    }  # fmt: skip
