"""A service on the base schema that writes its own SQL: every version a full copy, search joined back.

Writes as such a service does: document, version, chunks and events by COPY, then the current version. It knows
which chunks changed, for its events, and embeds a changed document as a whole.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from pgvector.psycopg import register_vector

from compare.measuring import Connection, connect
from compare.systems import Answer, Republished
from compare.workload import Query, Text, Workload, parse
from ragschema import migrations
from ragschema.database.settings import Database

REVISION = "20251225170000"
INDEX = "rag_chunks_embedding_idx"
CHUNK_COLUMNS = {
    "id": "uuid",
    "version_id": "uuid",
    "ordinal": "int4",
    "content": "text",
    "embedding": "vector",
    "created_at": "timestamptz",
}
EVENT_COLUMNS = "id, version_id, chunk_id, ordinal, event_type, metadata, created_at"
SEARCH = (
    "SELECT c.id, c.content, d.article_id, v.version_number, v.title, v.url, c.embedding <=> %(embedding)s"
    " FROM rag_chunks c"
    " JOIN rag_documents d ON d.current_version_id = c.version_id"
    " JOIN rag_document_versions v ON v.id = c.version_id"
    " {where} ORDER BY c.embedding <=> %(embedding)s LIMIT 10"
)


class BaseService:
    """The base schema, and psycopg."""

    def __init__(self, database: Database, workload: Workload) -> None:
        self.name = "base schema"
        self.database = database
        self.workload = workload
        migrations.upgrade(database, REVISION)
        self.connection = connect(database)
        register_vector(self.connection)

    def close(self) -> None:
        self.connection.close()

    def drop_index(self) -> None:
        self.connection.execute(f"DROP INDEX {INDEX}".encode())

    def build_index(self) -> float:
        start = time.perf_counter()
        self.connection.execute(
            f"CREATE INDEX {INDEX} ON rag_chunks USING hnsw (embedding vector_cosine_ops)".encode()
        )
        return time.perf_counter() - start

    def empty(self) -> None:
        self.connection.execute("TRUNCATE rag_documents CASCADE")

    def load(self, documents: Iterable[int], versions: int, batch: int = 50) -> float:
        """Write documents with all their versions; return the seconds spent in the database and the driver."""
        seconds = 0.0
        numbers = list(documents)
        for first in range(0, len(numbers), batch):
            group = numbers[first : first + batch]
            for version in range(1, versions + 1):
                before = {number: self._states(number, version - 1) for number in group}
                after = {number: self._states(number, version) for number in group}
                seconds += self._write(before, after)
        return seconds

    def republish(self, document: int, states: Sequence[int], way: str = "") -> Republished:
        now = [Text(document, place, state) for place, state in enumerate(states)]
        texts = [self.workload.text(text) for text in now]
        embeddings = [self.workload.vector(text) for text in now]
        start = time.perf_counter()
        with self.connection.transaction():
            row = self.connection.execute(
                "SELECT d.id, d.current_version_id, v.version_number FROM rag_documents d"
                " JOIN rag_document_versions v ON v.id = d.current_version_id"
                " WHERE article_id = %s FOR UPDATE OF d",
                (self.workload.article_id(document),),
            ).fetchone()
            assert row is not None
            old = self.connection.execute(
                "SELECT content FROM rag_chunks WHERE version_id = %s ORDER BY ordinal", (row[1],)
            ).fetchall()
            kinds = [
                "unchanged" if place < len(old) and old[place][0] == text else "updated"
                for place, text in enumerate(texts)
            ]
            version = self._insert_versions([(row[0], row[2] + 1, document)])[0]
            self._copy_chunks([(version, texts, embeddings, kinds)])
            self._make_current([(row[0], version)])
        return Republished(time.perf_counter() - start, len(texts))

    def search(self, kind: str, count: int, start: int, stop: int) -> list[Answer]:
        answers = []
        for query in self.workload.query_set(kind, count)[start:stop]:
            began = time.perf_counter()
            rows = self.connection.execute(*self._statement(query)).fetchall()
            answers.append(Answer(time.perf_counter() - began, [parse(row[1]) for row in rows]))
        return answers

    def _statement(self, query: Query) -> tuple[bytes, dict[str, Any]]:
        where = []
        parameters: dict[str, Any] = {"embedding": query.embedding}
        if query.articles is not None:
            where.append("d.article_id = ANY(%(articles)s)")
            parameters["articles"] = [self.workload.article_id(number) for number in query.articles]
        if query.title is not None:
            where.append("v.title = %(title)s")
            parameters["title"] = query.title
        condition = "WHERE " + " AND ".join(where) if where else ""
        return SEARCH.format(where=condition).encode(), parameters

    def _states(self, document: int, version: int) -> list[int]:
        return self.workload.states(document, version) if version else []

    def _write(self, before: dict[int, list[int]], after: dict[int, list[int]]) -> float:
        """Write one version of each document in one transaction; return its seconds."""
        prepared = []
        for number, states in after.items():
            now = [Text(number, place, state) for place, state in enumerate(states)]
            old = before[number]
            kinds = [
                "added" if not old else "unchanged" if old[place] == state else "updated"
                for place, state in enumerate(states)
            ]
            texts = [self.workload.text(text) for text in now]
            prepared.append((texts, [self.workload.vector(text) for text in now], kinds))
        start = time.perf_counter()
        with self.connection.transaction():
            documents = self._documents(list(after), new=not any(before.values()))
            versions = self._insert_versions(
                [(row[0], row[1] + 1, number) for row, number in zip(documents, after, strict=True)]
            )
            self._copy_chunks([(v, *each) for v, each in zip(versions, prepared, strict=True)])
            self._make_current([(row[0], v) for row, v in zip(documents, versions, strict=True)])
        return time.perf_counter() - start

    def _documents(self, numbers: list[int], *, new: bool) -> list[tuple[UUID, int]]:
        """Return the id and the newest version number of each document; make the new ones."""
        articles = [self.workload.article_id(number) for number in numbers]
        if new:
            now = datetime.now(UTC)
            ids = [uuid4() for _ in numbers]
            self.connection.cursor().executemany(
                "INSERT INTO rag_documents (id, article_id, current_version_id, created_at, updated_at)"
                " VALUES (%s, %s, NULL, %s, %s)",
                [(key, article, now, now) for key, article in zip(ids, articles, strict=True)],
            )
            return [(key, 0) for key in ids]
        rows = self.connection.execute(
            "SELECT d.article_id, d.id, v.version_number FROM rag_documents d"
            " JOIN rag_document_versions v ON v.id = d.current_version_id WHERE article_id = ANY(%s)",
            (articles,),
        ).fetchall()
        found = {article: (key, number) for article, key, number in rows}
        return [found[article] for article in articles]

    def _insert_versions(self, versions: list[tuple[UUID, int, int]]) -> list[UUID]:
        ids = [uuid4() for _ in versions]
        self.connection.cursor().executemany(
            "INSERT INTO rag_document_versions (id, document_id, version_number, source_hash,"
            " chunker_version, embedder_version, created_at, title, url)"
            " VALUES (%s, %s, %s, %s, 'c1', 'e1', now(), %s, %s)",
            [
                (key, owner, number, f"{document}/{number}", self.workload.title(document), None)
                for key, (owner, number, document) in zip(ids, versions, strict=True)
            ],
        )
        return ids

    def _copy_chunks(self, versions: list[tuple[UUID, list[str], list[Any], list[str]]]) -> None:
        now = datetime.now(UTC)
        chunks, events = [], []
        for version, texts, embeddings, kinds in versions:
            for ordinal, (text, embedding, kind) in enumerate(zip(texts, embeddings, kinds, strict=True)):
                chunk = uuid4()
                chunks.append((chunk, version, ordinal, text, embedding, now))
                events.append((uuid4(), version, chunk, ordinal, kind, None, now))
        copy_rows(self.connection, "rag_chunks", CHUNK_COLUMNS, chunks)
        with (
            self.connection.cursor() as cursor,
            cursor.copy(f"COPY rag_chunk_events ({EVENT_COLUMNS}) FROM STDIN".encode()) as copy,
        ):
            for event in events:
                copy.write_row(event)

    def _make_current(self, versions: list[tuple[UUID, UUID]]) -> None:
        self.connection.cursor().executemany(
            "UPDATE rag_documents SET current_version_id = %s, updated_at = now() WHERE id = %s",
            [(version, document) for document, version in versions],
        )


def copy_rows(
    connection: Connection, table: str, columns: dict[str, str], rows: Iterable[Sequence[Any]]
) -> None:
    """Write rows by binary COPY."""
    names = ", ".join(columns)
    with (
        connection.cursor() as cursor,
        cursor.copy(f"COPY {table} ({names}) FROM STDIN (FORMAT BINARY)".encode()) as copy,
    ):
        copy.set_types(list(columns.values()))
        for row in rows:
            copy.write_row(row)
