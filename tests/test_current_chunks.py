"""is_current: right after every commit, whoever writes, in whatever order; and services with their own SQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import permutations
from uuid import UUID, uuid4

import numpy as np
import psycopg
import pytest
import sqlalchemy as sa
from pgvector.psycopg import register_vector

from conftest import connect, made_database, make_template, run_psql
from publishing import publish_texts
from ragschema import migrations
from ragschema.database.settings import Database
from ragschema.publishing import retire_document

Connection = psycopg.Connection[psycopg.rows.TupleRow]


def vector(*leading: float) -> np.ndarray:
    return np.array([*leading, *[0.0] * (768 - len(leading))], dtype=np.float32)


class Service:
    """A service that knows the base columns alone, and writes them in its own SQL."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        register_vector(connection)

    def insert_document(self, article_id: str, current: UUID | None = None) -> UUID:
        document = uuid4()
        self.connection.execute(
            "INSERT INTO rag_documents (id, article_id, current_version_id, created_at, updated_at)"
            " VALUES (%s, %s, %s, now(), now())",
            (document, article_id, current),
        )
        return document

    def insert_version(self, document: UUID, number: int, version: UUID | None = None) -> UUID:
        version = version or uuid4()
        self.connection.execute(
            "INSERT INTO rag_document_versions (id, document_id, version_number, source_hash, chunker_version,"
            " embedder_version, created_at) VALUES (%s, %s, %s, %s, 'c1', 'e1', now())",
            (version, document, number, f"hash {number}"),
        )
        return version

    def copy_chunks(self, version: UUID, *texts: str) -> list[UUID]:
        ids = [uuid4() for _ in texts]
        with (
            self.connection.cursor() as cursor,
            cursor.copy(
                "COPY rag_chunks (id, version_id, ordinal, content, embedding, created_at) FROM STDIN"
            ) as copy,
        ):
            for ordinal, (chunk, text) in enumerate(zip(ids, texts, strict=True)):
                embedding = "[" + ",".join(map(str, vector(1, len(text)).tolist())) + "]"
                copy.write_row((chunk, version, ordinal, text, embedding, "2026-01-01"))
        return ids

    def copy_events(self, version: UUID, event_type: str, chunks: list[UUID]) -> None:
        with (
            self.connection.cursor() as cursor,
            cursor.copy(
                "COPY rag_chunk_events (id, version_id, chunk_id, ordinal, event_type, metadata, created_at)"
                " FROM STDIN"
            ) as copy,
        ):
            for ordinal, chunk in enumerate(chunks):
                copy.write_row((uuid4(), version, chunk, ordinal, event_type, '{"by": "hand"}', "2026-01-01"))

    def set_current(self, document: UUID, version: UUID | None) -> None:
        self.connection.execute(
            "UPDATE rag_documents SET current_version_id = %s, updated_at = now() WHERE id = %s",
            (version, document),
        )

    def current(self) -> set[UUID]:
        return {row[0] for row in self.connection.execute("SELECT id FROM rag_chunks WHERE is_current")}

    def search(self, limit: int = 10) -> list[str]:
        rows = self.connection.execute(
            "SELECT c.content FROM rag_chunks c JOIN rag_documents d ON d.current_version_id = c.version_id"
            " ORDER BY c.embedding <=> %s LIMIT %s",
            (vector(1, 1), limit),
        )
        return [row[0] for row in rows]


@pytest.fixture
def service(database: Database) -> Iterator[Service]:
    with connect(database) as connection:
        yield Service(connection)


@pytest.mark.parametrize("in_one_transaction", [True, False])
def test_a_service_with_its_own_sql_keeps_working(service: Service, in_one_transaction: bool) -> None:
    """Its statements as it wrote them for the base columns; is_current is right after each step."""

    def step() -> None:
        if in_one_transaction:
            service.connection.execute("COMMIT; BEGIN")

    if in_one_transaction:
        service.connection.execute("BEGIN")
    document = service.insert_document("a")
    first = service.insert_version(document, 1)
    step()
    chunks = service.copy_chunks(first, "1", "two", "three")
    service.copy_events(first, "added", chunks)
    step()
    assert service.current() == set()
    service.set_current(document, first)
    step()
    assert service.current() == set(chunks)
    assert service.search() == ["1", "two", "three"]

    second = service.insert_version(document, 2)
    copies = service.copy_chunks(second, "1", "two changed")
    service.copy_events(second, "unchanged", copies[:1])
    service.connection.execute(
        "INSERT INTO rag_chunk_events (version_id, chunk_id, ordinal, event_type) VALUES (%s, %s, 1, 'updated')",
        (second, copies[1]),
    )
    service.copy_events(second, "deleted", chunks[2:])
    step()
    assert service.current() == set(chunks)
    service.set_current(document, second)
    step()
    assert service.current() == set(copies)
    assert service.search() == ["1", "two changed"]
    stored = "SELECT content FROM rag_chunks WHERE version_id = %s ORDER BY ordinal"
    assert service.connection.execute(stored, (first,)).fetchall() == [("1",), ("two",), ("three",)]

    tombstone = service.insert_version(document, 3)
    service.copy_events(tombstone, "deleted", copies)
    step()
    service.set_current(document, tombstone)
    step()
    assert service.current() == set()
    assert service.search() == []

    service.set_current(document, first)
    step()
    assert service.current() == set(chunks)
    service.set_current(document, None)
    step()
    assert service.current() == set()


# what the foreign keys allow: a document may point at a version that is written later
ORDERS = [
    order
    for order in permutations(["document", "version", "chunks", "events"])
    if order.index("version") < order.index("chunks") < order.index("events")
]


@pytest.mark.parametrize("order", ORDERS, ids=" ".join)
def test_the_order_of_writing_within_a_transaction_does_not_matter(
    service: Service, order: tuple[str, ...]
) -> None:
    document = service.insert_document("a")
    version, other = uuid4(), service.insert_version(document, 7)
    chunks: list[UUID] = []
    steps: dict[str, Callable[[], object]] = {
        "document": lambda: service.set_current(document, version),
        "version": lambda: service.insert_version(document, 1, version),
        "chunks": lambda: chunks.extend(service.copy_chunks(version, "one", "two", "no event")),
        "events": lambda: service.copy_events(version, "added", chunks[:2]),
    }
    stale = service.copy_chunks(other, "not current")
    service.set_current(document, other)
    assert service.current() == set(stale)
    with service.connection.transaction():
        for name in order:
            steps[name]()
    assert service.current() == set(chunks[:2])


def test_what_is_written_after_the_document_was_pointed_at_it_counts(service: Service) -> None:
    """Each statement in a transaction of its own: a version without events consists of its chunks."""
    document = service.insert_document("a")
    version = service.insert_version(document, 1)
    service.set_current(document, version)
    chunks = service.copy_chunks(version, "one", "two", "three")
    assert service.current() == set(chunks)
    service.copy_events(version, "added", chunks[:2])
    assert service.current() == set(chunks[:2])
    service.connection.execute("DELETE FROM rag_chunk_events WHERE ordinal = 1")
    assert service.current() == set(chunks[:1])
    service.connection.execute("DELETE FROM rag_chunk_events")
    assert service.current() == set(chunks)


def test_a_reused_chunk_is_current_though_an_older_version_wrote_it(service: Service) -> None:
    document = service.insert_document("a")
    first, second = service.insert_version(document, 1), service.insert_version(document, 2)
    chunks = service.copy_chunks(first, "kept", "gone")
    service.copy_events(first, "added", chunks)
    added = service.copy_chunks(second, "new")
    service.connection.execute(
        "INSERT INTO rag_chunk_events (version_id, chunk_id, ordinal, event_type)"
        " VALUES (%(v)s, %(new)s, 0, 'added'), (%(v)s, %(kept)s, 1, 'unchanged')",
        {"v": second, "new": added[0], "kept": chunks[0]},
    )
    service.set_current(document, second)
    assert service.current() == {added[0], chunks[0]}
    service.set_current(document, first)
    assert service.current() == set(chunks)


def test_other_documents_are_left_alone(service: Service) -> None:
    documents = [service.insert_document(name) for name in "ab"]
    versions = [service.insert_version(document, 1) for document in documents]
    chunks = [service.copy_chunks(version, "text") for version in versions]
    for document, version in zip(documents, versions, strict=True):
        service.set_current(document, version)
    service.set_current(documents[0], None)
    assert service.current() == set(chunks[1])


def test_a_text_configuration_reaches_the_chunks(service: Service) -> None:
    document = service.insert_document("a")
    version = service.insert_version(document, 1)
    service.copy_chunks(version, "running shoes")
    service.set_current(document, version)
    found = (
        "SELECT count(*) FROM rag_chunks WHERE is_current"
        " AND rag_text_vector(text_config, content) @@ to_tsquery('english', 'run')"
    )
    assert service.connection.execute(found).fetchone() == (0,)
    service.connection.execute("UPDATE rag_documents SET text_config = 'english'")
    assert service.connection.execute(found).fetchone() == (1,)


@pytest.mark.parametrize(
    "text",
    [
        "repeat('lorem ipsum ', 200000)",
        "(SELECT string_agg(to_hex(n) || '.de/' || n, ' ') FROM generate_series(1, 140000) n)",
    ],
    ids=["few words", "many words"],
)
def test_a_chunk_of_two_megabytes_is_stored_and_found_by_its_beginning(service: Service, text: str) -> None:
    document = service.insert_document("a")
    version = service.insert_version(document, 1)
    service.connection.execute(
        f"INSERT INTO rag_chunks (version_id, ordinal, content) VALUES (%s, 0, 'beginning ' || {text})",
        (version,),
    )
    size = service.connection.execute("SELECT octet_length(content) FROM rag_chunks").fetchone()
    assert size is not None
    assert size[0] > 2_000_000
    service.set_current(document, version)
    found = (
        "SELECT count(*) FROM rag_chunks WHERE is_current"
        " AND rag_text_vector(text_config, content) @@ 'beginning'::tsquery"
    )
    assert service.connection.execute(found).fetchone() == (1,)


def test_an_old_version_can_be_deleted(service: Service) -> None:
    """Though the next one says 'deleted' of its chunks: those events stay, without the pointer."""
    document = service.insert_document("a")
    first, second = service.insert_version(document, 1), service.insert_version(document, 2)
    old, new = service.copy_chunks(first, "one"), service.copy_chunks(second, "two")
    service.copy_events(first, "added", old)
    service.copy_events(second, "added", new)
    service.copy_events(second, "deleted", old)
    service.set_current(document, second)
    service.connection.execute("DELETE FROM rag_document_versions WHERE id = %s", (first,))
    events = service.connection.execute("SELECT event_type, chunk_id FROM rag_chunk_events ORDER BY 1")
    assert events.fetchall() == [("added", new[0]), ("deleted", None)]


def test_a_version_whose_chunks_a_later_one_uses_cannot_be_deleted(service: Service) -> None:
    document = service.insert_document("a")
    first, second = service.insert_version(document, 1), service.insert_version(document, 2)
    chunks = service.copy_chunks(first, "one")
    service.copy_events(first, "added", chunks)
    service.copy_events(second, "unchanged", chunks)
    with pytest.raises(psycopg.errors.ForeignKeyViolation, match="rag_chunk_events_chunk_id_fkey"):
        service.connection.execute("DELETE FROM rag_document_versions WHERE id = %s", (first,))


def test_a_document_is_deleted_with_all_that_hangs_from_it(service: Service) -> None:
    document = service.insert_document("a")
    first, second = service.insert_version(document, 1), service.insert_version(document, 2)
    chunks = service.copy_chunks(first, "one", "two")
    service.copy_events(first, "added", chunks)
    service.copy_events(second, "unchanged", chunks[:1])
    service.copy_events(second, "deleted", chunks[1:])
    service.set_current(document, second)
    service.connection.execute("DELETE FROM rag_documents")
    for table in ("rag_document_versions", "rag_chunks", "rag_chunk_events"):
        assert service.connection.execute(f"SELECT count(*) FROM {table}".encode()).fetchone() == (0,)


SCHEMA = "Weird name"


def test_the_triggers_work_in_another_schema_whatever_the_search_path(empty_database: Database) -> None:
    migrations.upgrade(empty_database, schema=SCHEMA)
    with connect(empty_database) as connection:
        connection.execute("SET search_path = pg_catalog")
        row = connection.execute(
            f"""
            WITH d AS (INSERT INTO "{SCHEMA}".rag_documents (article_id) VALUES ('a') RETURNING id)
            INSERT INTO "{SCHEMA}".rag_document_versions
                (document_id, version_number, source_hash, chunker_version, embedder_version)
            SELECT id, 1, 'h', 'c', 'e' FROM d RETURNING id
            """.encode()
        ).fetchone()
        assert row is not None
        connection.execute(
            f"""INSERT INTO "{SCHEMA}".rag_chunks (version_id, ordinal, content) VALUES (%s, 0, 'text')""".encode(),
            row,
        )
        connection.execute(f"""UPDATE "{SCHEMA}".rag_documents SET current_version_id = %s""".encode(), row)
        found = connection.execute(f"""SELECT is_current FROM "{SCHEMA}".rag_chunks""".encode()).fetchone()
        assert found == (True,)


@pytest.mark.parametrize("current", ["few", "most"])
def test_rows_of_an_adopted_database_are_marked(server: dict[str, str], current: str) -> None:
    """Whichever is the majority; and an unchanged chunk that later events point at stays what it is."""
    with made_database(server, make_template(server, "20261121100500")) as database:
        run_psql(
            database,
            f"""
            INSERT INTO rag_documents (article_id) SELECT 'a' || n FROM generate_series(1, 50) n;
            INSERT INTO rag_document_versions
                (document_id, version_number, source_hash, chunker_version, embedder_version)
            SELECT d.id, n, 'h', 'c', 'e' FROM rag_documents d, generate_series(1, {5 if current == "few" else 1}) n;
            INSERT INTO rag_chunks (version_id, ordinal, content)
            SELECT v.id, n, 'text ' || n FROM rag_document_versions v, generate_series(0, 3) n;
            UPDATE rag_documents d SET current_version_id = v.id FROM rag_document_versions v
            WHERE v.document_id = d.id AND v.version_number = 1 AND d.article_id <> 'a1';
            INSERT INTO rag_chunk_events (version_id, chunk_id, ordinal, event_type)
            SELECT c.version_id, c.id, c.ordinal, 'added' FROM rag_chunks c
            JOIN rag_document_versions v ON v.id = c.version_id JOIN rag_documents d ON d.id = v.document_id
            WHERE d.article_id <> 'a2' AND c.ordinal < 3;
            """,
        )
        migrations.upgrade(database)
        with connect(database) as connection:
            marked = connection.execute(
                """
                SELECT d.article_id, count(*), bool_and(v.version_number = 1), max(c.ordinal)
                FROM rag_chunks c JOIN rag_document_versions v ON v.id = c.version_id
                JOIN rag_documents d ON d.id = v.document_id
                WHERE c.is_current GROUP BY 1
                """
            ).fetchall()
            assert sorted(row[0] for row in marked) == sorted(f"a{n}" for n in range(2, 51))
            assert {row[1:] for row in marked if row[0] != "a2"} == {(3, True, 2)}
            assert next(row for row in marked if row[0] == "a2")[1:] == (4, True, 3)


def test_a_document_goes_that_was_retired_in_the_same_transaction(
    database: Database, service: Service
) -> None:
    engine = sa.create_engine(database.url())
    with engine.begin() as session:
        publish_texts(session, "a", ["x", "y"])
        retire_document(session, "a")
        session.execute(sa.text("DELETE FROM rag_documents"))
    engine.dispose()
    for table in ("rag_documents", "rag_document_versions", "rag_chunks", "rag_chunk_events"):
        assert service.connection.execute(f"SELECT count(*) FROM {table}".encode()).fetchone() == (0,)


def test_chunks_that_are_moved_are_current_where_they_are_listed_then(
    database: Database, service: Service
) -> None:
    document = service.insert_document("a")
    first, second = (service.insert_version(document, number) for number in (1, 2))
    old, new = service.copy_chunks(first, "old")[0], service.copy_chunks(second, "new")[0]
    service.connection.execute("UPDATE rag_documents SET current_version_id = %s", (second,))

    def current() -> set[UUID]:
        return {id_ for (id_,) in service.connection.execute("SELECT id FROM rag_chunks WHERE is_current")}

    assert current() == {new}
    move = "UPDATE rag_chunks SET version_id = %s, ordinal = 1 WHERE id = %s"
    service.connection.execute(move, (second, old))
    assert current() == {new, old}
    service.connection.execute(move, (first, new))
    assert current() == {old}
    assert migrations.verify_data(database) == []
