"""What a version says of its source: the columns, their checks, and services that do not know them."""

from __future__ import annotations

import psycopg
import pytest

from conftest import DatabaseAt, connect, run_psql
from ragschema import Database, migrations
from ragschema.errors import DataLossRefused

BEFORE = "20261128140030"
ADDED = "20261128141100"
OLD_WRITE = """
WITH d AS (INSERT INTO rag_documents (article_id) VALUES ('{article}') RETURNING id),
v AS (INSERT INTO rag_document_versions (document_id, version_number, source_hash, chunker_version, embedder_version)
    SELECT id, 1, 'h', 'c', 'e' FROM d RETURNING id),
c AS (INSERT INTO rag_chunks (version_id, ordinal, content) SELECT id, 0, 'text' FROM v RETURNING id, version_id)
INSERT INTO rag_chunk_events (version_id, chunk_id, ordinal, event_type) SELECT version_id, id, 0, 'added' FROM c
"""
NEW_WRITE = (
    'UPDATE rag_document_versions SET metadata = \'{"team": "legal"}\'',
    "INSERT INTO rag_chunk_events (version_id, chunk_id, ordinal, event_type, start_offset, end_offset)"
    " SELECT version_id, id, 1, 'added', 3, 7 FROM rag_chunks",
    "UPDATE rag_chunks SET token_count = 1",
)
"""What each of the three tables then holds that a downgrade loses."""
REFUSED = (
    ("rag_document_versions", "metadata = '[]'"),
    ("rag_document_versions", "metadata = 'null'"),
    ("rag_document_versions", "metadata = NULL"),
    ("rag_chunk_events", "start_offset = 1"),
    ("rag_chunk_events", "end_offset = 1"),
    ("rag_chunk_events", "start_offset = -1, end_offset = 1"),
    ("rag_chunk_events", "start_offset = 2, end_offset = 1"),
    ("rag_chunks", "token_count = -1"),
)


def test_services_that_do_not_know_the_columns_go_on_while_they_come_and_go(database_at: DatabaseAt) -> None:
    database = database_at(BEFORE)
    run_psql(database, OLD_WRITE.format(article="before"))
    migrations.upgrade(database, ADDED)
    run_psql(database, OLD_WRITE.format(article="after"))
    with connect(database) as connection:
        described = connection.execute(
            "SELECT v.metadata, v.file_name, v.byte_size, e.start_offset, e.end_offset, c.token_count"
            " FROM rag_document_versions v JOIN rag_chunk_events e ON e.version_id = v.id"
            " JOIN rag_chunks c ON c.id = e.chunk_id"
        ).fetchall()
        assert described == [({}, None, None, None, None, None)] * 2
        unchecked = connection.execute("SELECT conname FROM pg_constraint WHERE NOT convalidated").fetchall()
        assert unchecked == []
    migrations.downgrade(database, BEFORE, allow_data_loss=True)
    run_psql(database, OLD_WRITE.format(article="again"))
    migrations.upgrade(database, ADDED)


def test_a_downgrade_loses_what_was_said_of_a_source_only_if_told_to(database_at: DatabaseAt) -> None:
    database = database_at(ADDED)
    run_psql(database, OLD_WRITE.format(article="one"))
    run_psql(database, "; ".join(NEW_WRITE))
    for revision, lost in (
        ("20261128141040", "1 value of rag_chunks.token_count"),
        ("20261128141020", "1 value of rag_chunk_events.start_offset"),
        (BEFORE, "1 value of rag_document_versions.metadata"),
    ):
        with pytest.raises(DataLossRefused) as raised:
            migrations.downgrade(database, revision)
        assert lost in raised.value.evidence
        migrations.downgrade(database, revision, allow_data_loss=True)
    with connect(database) as connection:
        assert connection.execute("SELECT content FROM rag_chunks").fetchall() == [("text",)]


@pytest.mark.parametrize(("table", "assignment"), REFUSED, ids=[each for _, each in REFUSED])
def test_what_makes_no_sense_is_refused_whoever_writes_it(
    database: Database, table: str, assignment: str
) -> None:
    run_psql(database, OLD_WRITE.format(article="one"))
    with connect(database) as connection, pytest.raises(psycopg.errors.IntegrityError):
        connection.execute(f"UPDATE {table} SET {assignment}".encode())
