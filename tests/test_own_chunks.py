"""A document consists of chunks of its own, and is_current is right at the end, whatever SQL comes in between."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from uuid import uuid4

import psycopg
import pytest
import sqlalchemy as sa
from psycopg.errors import ForeignKeyViolation
from sqlalchemy.orm import Session

from conftest import connect
from publishing import assert_consistent, publish_texts
from ragschema import migrations
from ragschema.database.settings import Database

Connection = psycopg.Connection[psycopg.rows.TupleRow]

VERSION = (
    "(SELECT v.id FROM rag_document_versions v JOIN rag_documents d ON d.id = v.document_id"
    " WHERE d.article_id = '{}')"
)
CHUNK = f"(SELECT id FROM rag_chunks WHERE version_id = {VERSION} ORDER BY ordinal LIMIT 1)"
THEIRS, MINE = (name.format for name in (CHUNK, VERSION))


@pytest.fixture
def connection(database: Database) -> Iterator[Connection]:
    engine = sa.create_engine(database.url())
    with Session(engine) as session:
        publish_texts(session, "a", ["a0", "a1"])
        publish_texts(session, "b", ["b0", "b1"])
        session.commit()
    engine.dispose()
    with connect(database) as connection:
        yield connection


@pytest.mark.parametrize(
    "statement",
    [
        *(
            "INSERT INTO rag_chunk_events (version_id, chunk_id, ordinal, event_type)"
            f" VALUES ({MINE('a')}, {THEIRS('b')}, 9, '{event_type}')"
            for event_type in ("added", "updated", "unchanged", "deleted")
        ),
        f"UPDATE rag_chunk_events SET chunk_id = {THEIRS('b')} WHERE version_id = {MINE('a')} AND ordinal = 0",
        f"UPDATE rag_chunk_events SET version_id = {MINE('b')}, ordinal = 9"
        f" WHERE version_id = {MINE('a')} AND ordinal = 0",
        f"UPDATE rag_chunks SET version_id = {MINE('b')}, ordinal = 9 WHERE id = {THEIRS('a')}",
    ],
)
def test_a_chunk_of_another_document_is_refused(
    connection: Connection, database: Database, statement: str
) -> None:
    with pytest.raises(ForeignKeyViolation, match="names a chunk of another document"):
        connection.execute(statement.encode())
    assert migrations.verify_data(database) == []


def test_a_chunk_without_events_may_be_given_away(connection: Connection, database: Database) -> None:
    """Nothing names it: it is whose version it has."""
    connection.execute(f"DELETE FROM rag_chunk_events WHERE chunk_id = {THEIRS('a')}".encode())
    connection.execute(
        f"UPDATE rag_chunks SET version_id = {MINE('b')}, ordinal = 9 WHERE id = {THEIRS('a')}".encode()
    )
    assert migrations.verify_data(database) == []


@pytest.mark.parametrize("event_type", ["added", "deleted"])
def test_what_came_before_the_rule_is_named(
    connection: Connection, database: Database, event_type: str
) -> None:
    connection.execute("ALTER TABLE rag_chunk_events DISABLE TRIGGER USER")
    connection.execute(
        "INSERT INTO rag_chunk_events (version_id, chunk_id, ordinal, event_type)"
        f" VALUES ({MINE('a')}, {THEIRS('b')}, 9, '{event_type}')".encode()
    )
    assert ("a", "of another document") in {
        (broken.article_id, broken.problem) for broken in migrations.verify_data(database)
    }


def test_a_corrected_event_changes_what_search_finds(connection: Connection, database: Database) -> None:
    def current() -> list[str]:
        rows = connection.execute("SELECT content FROM rag_chunks WHERE is_current ORDER BY content")
        return [content for (content,) in rows]

    connection.execute(
        f"UPDATE rag_chunk_events SET event_type = 'deleted' WHERE chunk_id = {THEIRS('a')}".encode()
    )
    assert current() == ["a1", "b0", "b1"]
    connection.execute(
        f"UPDATE rag_chunk_events SET event_type = 'added' WHERE chunk_id = {THEIRS('a')}".encode()
    )
    assert current() == ["a0", "a1", "b0", "b1"]
    assert migrations.verify_data(database) == []


POINT = "UPDATE rag_documents SET current_version_id = (SELECT id FROM rag_document_versions WHERE version_number = {}"
POINT += " AND document_id = rag_documents.id) WHERE article_id = :article_id"
STEPS = {
    "first": POINT.format(1),
    "second": POINT.format(2),
    "none": "UPDATE rag_documents SET current_version_id = NULL WHERE article_id = :article_id",
    "now": "SET CONSTRAINTS ALL IMMEDIATE",
    "later": "SET CONSTRAINTS ALL DEFERRED",
    "savepoint": "SAVEPOINT s",
    "back": "ROLLBACK TO SAVEPOINT s",
}


@pytest.mark.parametrize("where_published", [0, 1])
def test_is_current_is_right_whatever_follows_a_publish(database: Database, where_published: int) -> None:
    """Every sequence of three steps after a publish, and with one step before it."""
    engine = sa.create_engine(database.url())
    words = ("first", "second", "none", "now", "later")
    sequences = [
        *product(words, repeat=3),
        *(("savepoint", *each, "back") for each in product(words, repeat=2)),
    ]
    with Session(engine) as session:
        for number, sequence in enumerate(sequences):
            article = str(uuid4())
            publish_texts(session, article, ["x", "y"])
            session.commit()
            if where_published:
                session.execute(sa.text(STEPS[words[number % len(words)]]), {"article_id": article})
                session.execute(sa.text(STEPS["first"]), {"article_id": article})
            publish_texts(session, article, ["y", "z"])
            for step in sequence:
                statement = sa.text(STEPS[step])
                session.execute(statement, {"article_id": article} if ":article_id" in STEPS[step] else {})
            session.commit()
        assert_consistent(session)
    engine.dispose()
