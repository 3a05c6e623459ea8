"""The head script: what it makes is what all revisions make, whatever the schemas are called."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

import servers
from checkouts import use_checkout
from conftest import connect, dump_schema, made_database
from ragschema import migrations
from ragschema.database.settings import Database
from ragschema.revisions.head_script import head_script_path, head_script_text, read_head_script
from ragschema.revisions.manifest import read_manifest
from ragschema.sql.splitting import split_sql
from ragschema.state.catalogue import read_catalogue
from ragschema.state.expected import expected

HEAD = read_manifest().head
NAMES = ["public", "tenant", "Tenant-1", 'it\'s a "tenant"', "select", "%s $1 \\ ;--", "Ж" * 31]


@contextmanager
def pair(server: Mapping[str, str], extension: str | None) -> Iterator[tuple[Database, Database]]:
    """Make two databases with pgvector in a schema; None: it is not there yet."""
    with made_database(server) as one, made_database(server) as other:
        for database in (one, other):
            if extension is not None:
                with connect(database) as connection:
                    connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{extension}"'.encode())
                    connection.execute(f'CREATE EXTENSION vector WITH SCHEMA "{extension}"'.encode())
        yield one, other


@pytest.mark.parametrize(
    ("schema", "extension"),
    [*((name, None) for name in NAMES[:4]), ("tenant", "Their extensions"), ("Tenant-1", "Tenant-1")],
)
def test_its_tables_are_those_of_all_revisions_by_dump_and_by_fingerprint(
    server: Mapping[str, str], schema: str, extension: str | None
) -> None:
    with pair(server, extension) as (at_once, one_by_one):
        created = migrations.upgrade(at_once, schema=schema)
        assert [each.direction for each in created.applied] == ["create"]
        walked = migrations.upgrade(one_by_one, schema=schema, replay=True)
        assert len(walked.applied) == len(read_manifest().revisions)
        assert created.current == walked.current == HEAD
        found = [dump_schema(each, without_bookkeeping=False) for each in (at_once, one_by_one)]
        assert found[0].count("CREATE TABLE") >= 14
        assert found[0] == found[1]
        with connect(at_once) as connection:
            catalogue = read_catalogue(connection, schema)
            place = catalogue["extension vector"]  # it says where the role's search_path does not lead there
            assert catalogue == {**expected(HEAD), "extension vector": place}
            assert functions(connection, schema) == functions_of(one_by_one, schema)


@pytest.mark.parametrize("schema", NAMES[4:])
def test_it_works_in_a_schema_of_any_name(empty_database: Database, schema: str) -> None:
    migrations.upgrade(empty_database, schema=schema)
    assert migrations.verify(empty_database, schema=schema).is_clean


def functions(connection: psycopg.Connection[psycopg.rows.TupleRow], schema: str) -> list[tuple[object, ...]]:
    """Return the functions with what they carry, as the catalogue has it."""
    rows = connection.execute(
        "SELECT p.oid::regprocedure::text, proconfig, prosrc, provolatile, proparallel, prosecdef FROM pg_proc p"
        " JOIN pg_namespace n ON n.oid = pronamespace WHERE nspname = %s AND proname LIKE 'rag%%' ORDER BY 1",
        (schema,),
    ).fetchall()
    assert len(rows) > 30
    return rows


def functions_of(database: Database, schema: str) -> list[tuple[object, ...]]:
    with connect(database) as connection:
        return functions(connection, schema)


@pytest.mark.parametrize("programs", servers.server_parameters())
def test_it_runs_on_every_server(programs: Path) -> None:
    parameters = servers.shared(programs)
    with made_database(parameters) as database:
        assert migrations.upgrade(database, schema="Tenant-1").applied[0].direction == "create"
        assert migrations.verify(database, schema="Tenant-1").is_clean


def test_it_names_no_schema_and_has_one_statement_where_it_says_one() -> None:
    script = read_head_script(read_manifest())
    assert script is not None
    assert script.revision == HEAD
    for statement in script.statements:
        assert [text for _, text in split_sql(statement)] == [statement]
    assert "public." not in script.text
    assert script.text.count("SET search_path") == script.text.count("SET search_path FROM CURRENT")


def test_a_script_of_other_revisions_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_database: Database
) -> None:
    checkout = use_checkout(tmp_path, monkeypatch)
    assert checkout.run("rag", "migrate", "plan", database=empty_database).stdout.count("  expand  ") == 1
    checkout.add('op.add_column("rag_jobs", sa.Column("note", sa.Text()))')
    result = checkout.run("rag", "migrate", "--check-drift=off", database=empty_database)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("upgrade 2") == len(read_manifest().revisions)


def test_a_statement_that_would_end_early_in_the_file_is_refused() -> None:
    with pytest.raises(ValueError, match="two hyphens alone"):
        head_script_text(["SELECT 1\n--\n, 2"], read_manifest(), "a test")
    assert head_script_path().name == "head.sql"
