"""rag migrate verify --data: the rules that only all rows together can break."""

from __future__ import annotations

import json
from collections.abc import Iterator

import psycopg
import pytest

from conftest import Command, DatabaseAt, connect
from ragschema import migrations
from ragschema.database.settings import Database
from ragschema.errors import UsageError
from ragschema.words import counted

ROWS = """
INSERT INTO rag_documents (article_id) VALUES ('a'), ('b');
INSERT INTO rag_document_versions (document_id, version_number, source_hash, chunker_version, embedder_version)
SELECT id, 1, 'h', 'c', 'e' FROM rag_documents;
INSERT INTO rag_chunks (version_id, ordinal, content)
SELECT id, n, 'text' FROM rag_document_versions, generate_series(0, 1) n;
INSERT INTO rag_chunk_events (version_id, chunk_id, ordinal, event_type)
SELECT version_id, id, ordinal, 'added' FROM rag_chunks;
UPDATE rag_documents d SET current_version_id = v.id FROM rag_document_versions v WHERE v.document_id = d.id;
"""
OF_A = (
    "version_id IN (SELECT v.id FROM rag_document_versions v"
    " JOIN rag_documents d ON d.id = v.document_id WHERE d.article_id = 'a')"
)


@pytest.fixture
def connection(database: Database) -> Iterator[psycopg.Connection[psycopg.rows.TupleRow]]:
    with connect(database) as connection:
        connection.execute(ROWS.encode())
        yield connection


@pytest.mark.parametrize(
    ("statement", "problem", "count"),
    [
        (f"UPDATE rag_chunks SET is_current = false WHERE ordinal = 0 AND {OF_A}", "wrongly not current", 1),
        ("UPDATE rag_documents SET current_version_id = NULL WHERE article_id = 'a'", "wrongly current", 2),
        (f"UPDATE rag_chunks SET text_config = 'german' WHERE {OF_A}", "other text configuration", 2),
        (
            f"UPDATE rag_chunk_events SET chunk_id = (SELECT id FROM rag_chunks WHERE NOT {OF_A} LIMIT 1)"
            f" WHERE ordinal = 0 AND {OF_A}",
            "of another document",
            1,
        ),
    ],
)
def test_what_breaks_the_rules_is_named(
    connection: psycopg.Connection[psycopg.rows.TupleRow],
    database: Database,
    run: Command,
    statement: str,
    problem: str,
    count: int,
) -> None:
    assert migrations.verify_data(database) == []
    url = database.libpq_url()
    clean = run("rag", "migrate", "verify", "--data", DATABASE_URL=url)
    assert (clean.returncode, clean.stdout.splitlines()[-1]) == (
        0,
        "Every document's chunks are what its versions say.",
    )

    for table in ("rag_documents", "rag_chunk_events"):
        connection.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER".encode())
    connection.execute(statement.encode())
    for table in ("rag_documents", "rag_chunk_events"):
        connection.execute(f"ALTER TABLE {table} ENABLE TRIGGER USER".encode())
    found = migrations.verify_data(database)
    named = [broken for broken in found if broken.problem == problem]
    assert [(broken.article_id, len(broken.chunk_ids)) for broken in named] == [("a", count)]
    shown = run("rag", "migrate", "verify", "--data", DATABASE_URL=url)
    assert shown.returncode == 4
    assert f"broken: a: {counted(count, 'chunk')} {problem}" in shown.stdout
    assert "The rules are broken in 1 document." in shown.stdout
    printed = json.loads(run("rag", "migrate", "verify", "--data", "--json", DATABASE_URL=url).stdout)
    assert [broken["problem"] for broken in printed["broken_documents"]] == [each.problem for each in found]

    if problem != "of another document":
        connection.execute("SELECT rag_set_current_chunks(id) FROM rag_documents WHERE article_id = 'a'")
        assert migrations.verify_data(database) == []


def test_an_older_schema_is_refused(database_at: DatabaseAt) -> None:
    database = database_at("20261121121300")
    with pytest.raises(UsageError, match="at 20261121121300; the rules for rows hold from 20261121121400 on"):
        migrations.verify_data(database)
