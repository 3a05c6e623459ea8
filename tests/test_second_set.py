"""A second set of our tables in one database is made only where somebody asks for it."""

from __future__ import annotations

import json

import pytest

from conftest import ROOT, Command, connect
from ragschema import migrations
from ragschema.database.settings import Database
from ragschema.errors import ConfigurationError, PendingRevisions, UnmanagedDatabase
from ragschema.revisions.manifest import read_manifest

FIRST, HEAD = "20251225160000", read_manifest().head


@pytest.fixture
def elsewhere(empty_database: Database) -> Database:
    """A database whose tables are in a schema that is not the first of the search_path."""
    migrations.upgrade(empty_database, FIRST, schema="app data")
    return empty_database


@pytest.mark.parametrize("command", ["rag migrate", "rag migrate init", "alembic upgrade head"])
def test_a_second_set_is_not_made_unasked(run: Command, elsewhere: Database, command: str) -> None:
    refused = run(*command.split(), cwd=ROOT, DATABASE_URL=elsewhere.libpq_url())
    shown = refused.stdout + refused.stderr
    assert refused.returncode == (255 if command.startswith("alembic") else 78), shown
    assert "another schema of this database has: app data" in shown
    assert f"schema app data is at {FIRST}" in shown
    with connect(elsewhere) as connection:
        assert connection.execute(
            "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
        ).fetchone() == (0,)


def test_it_is_made_where_it_is_asked_for(
    elsewhere: Database, monkeypatch: pytest.MonkeyPatch, run: Command
) -> None:
    assert migrations.upgrade(elsewhere, FIRST, schema="public").current == FIRST
    asked = run("rag", "migrate", "--to", FIRST, DATABASE_URL=elsewhere.libpq_url(), RAG_SCHEMA="third")
    assert asked.returncode == 0, asked.stderr
    assert migrations.upgrade(elsewhere).current == HEAD  # the target has its own: nothing to ask


def test_whoever_looks_is_told_where_they_are(run: Command, elsewhere: Database) -> None:
    url = elsewhere.libpq_url()
    status = run("rag", "migrate", "status", DATABASE_URL=url)
    assert f"elsewhere\tapp data\tis at {FIRST}: name it with --schema" in status.stdout.splitlines()
    document = json.loads(run("rag", "migrate", "status", "--json", DATABASE_URL=url).stdout)
    assert document["elsewhere"] == [{"schema": "app data", "revision": FIRST}]
    with pytest.raises(PendingRevisions) as waited:
        migrations.wait(elsewhere, timeout=0.2)
    with pytest.raises(UnmanagedDatabase) as verified:
        migrations.verify(elsewhere)
    for refused in (waited.value, verified.value):
        assert f"schema app data is at {FIRST}; --schema NAME names one." in refused.evidence
    health = run("rag", "migrate", "health", DATABASE_URL=url)
    assert health.returncode == 78
    assert "schema app data is at" in health.stdout
    assert migrations.status(elsewhere, schema="public").elsewhere == ()


def test_an_unknown_revision_or_an_empty_version_table_is_no_second_set(elsewhere: Database) -> None:
    with connect(elsewhere) as connection:
        connection.execute("UPDATE \"app data\".rag_alembic_version SET version_num = 'theirs'")
        assert migrations.status(elsewhere).elsewhere == ()
        connection.execute('DELETE FROM "app data".rag_alembic_version')
        assert migrations.status(elsewhere).elsewhere == ()
    assert migrations.upgrade(elsewhere, FIRST).current == FIRST


def test_the_error_says_what_to_write(elsewhere: Database) -> None:
    with pytest.raises(ConfigurationError) as refused:
        migrations.upgrade(elsewhere)
    assert "--schema 'app data' or RAG_SCHEMA='app data'" in refused.value.remedy
    assert "--schema public to make a second set" in refused.value.remedy
