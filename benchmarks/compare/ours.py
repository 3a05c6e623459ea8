"""This package at head: written through `ragschema.publishing`, searched through SQLAlchemy and psycopg."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from compare.measuring import connect
from compare.report import OURS, PSYCOPG
from compare.systems import Answer, Republished
from compare.workload import Query, Text, Workload, parse
from ragschema import create_engine, migrations
from ragschema.database.settings import Database
from ragschema.embedding_models import add_model
from ragschema.models import Chunk, ChunkEvent, ChunkEventType, Document, DocumentVersion
from ragschema.publishing import (
    BulkDocument,
    deferred_index,
    plan_version,
    publish,
    publish_many,
)
from ragschema.queries import nearest_chunks
from ragschema.schema.ids import uuid7

INDEX = "rag_chunks_current_embedding_idx"
CONTENT = 8  # place of the content in a row of `nearest_chunks`


class Ours:
    """The schema at head, and this package through SQLAlchemy.

    Args:
        database: An empty one.
        workload: What is written and asked.
        model: Key of an embedding model that is added for the workload's embeddings; None for the column.
    """

    def __init__(self, database: Database, workload: Workload, model: str | None = None) -> None:
        self.name = OURS
        self.database = database
        self.workload = workload
        self.model = model
        migrations.upgrade(database)
        if model is not None:
            add_model(database, model, workload.dimension)
        self.engine = create_engine(database.libpq_url())

    def close(self) -> None:
        self.engine.dispose()

    def empty(self) -> None:
        with self.engine.begin() as connection:
            connection.execute(sa.text("TRUNCATE rag_documents CASCADE"))

    def drop_index(self) -> None:
        with self.engine.begin() as connection:
            connection.execute(sa.text(f"DROP INDEX {INDEX}"))

    def load(self, documents: Iterable[int]) -> float:
        """Publish first versions in bulk; return the seconds it took."""
        items = [self._bulk(number) for number in documents]
        start = time.perf_counter()
        with self.engine.connect() as connection:
            publish_many(connection, items)
        return time.perf_counter() - start

    def load_deferred(self, documents: Iterable[int]) -> tuple[float, float]:
        """Publish in bulk without the HNSW index, then build it; return the seconds of the load and of all."""
        items = [self._bulk(number) for number in documents]
        start = time.perf_counter()
        with deferred_index(self.engine, search_is_slow_meanwhile=True), self.engine.connect() as connection:
            began = time.perf_counter()
            publish_many(connection, items)
            loaded = time.perf_counter() - began
        return loaded, time.perf_counter() - start

    def _bulk(self, document: int) -> BulkDocument:
        texts = self.workload.texts(document, 1)
        return BulkDocument(
            self.workload.article_id(document),
            texts,
            [self.workload.embed(text) for text in texts],
            source_hash=f"{document}/1",
            chunker_version="c1",
            embedder_version="e1",
            title=self.workload.title(document),
            metadata=self.workload.metadata(document) or None,
        )

    def load_by_publish(self, documents: Iterable[int]) -> float:
        """Publish first versions one document at a time; return the seconds it took, embedding apart."""
        return sum(self.republish(number, self.workload.states(number, 1)).seconds for number in documents)

    def publish_versions(self, documents: Iterable[int], versions: Iterable[int]) -> float:
        """Publish versions of every document in turn; return the seconds it took, embedding apart."""
        return sum(
            self.republish(number, self.workload.states(number, version)).seconds
            for version in versions
            for number in documents
        )

    def republish(self, document: int, states: Sequence[int], way: str = "") -> Republished:
        texts = [self.workload.text(Text(document, place, state)) for place, state in enumerate(states)]
        start = time.perf_counter()
        with Session(self.engine) as session, session.begin():
            plan = plan_version(
                session,
                self.workload.article_id(document),
                texts,
                source_hash=f"{document}/{list(states)}",
                chunker_version="c1",
                embedder_version="e1",
                title=self.workload.title(document),
            )
        planned = time.perf_counter() - start
        embeddings = [self.workload.embed(text) for text in plan.texts_to_embed]
        start = time.perf_counter()
        with Session(self.engine) as session, session.begin():
            publish(session, plan, embeddings)
        return Republished(planned + time.perf_counter() - start, len(embeddings))

    def load_by_orm(self, documents: Iterable[int]) -> float:
        """Write first versions through the models, 50 documents a transaction; return the seconds it took."""
        seconds = 0.0
        numbers = list(documents)
        for first in range(0, len(numbers), 50):
            group = numbers[first : first + 50]
            texts = {number: self.workload.texts(number, 1) for number in group}
            embeddings = {number: [self.workload.embed(text) for text in texts[number]] for number in group}
            start = time.perf_counter()
            with Session(self.engine) as session, session.begin():
                self._add(session, texts, embeddings)
            seconds += time.perf_counter() - start
        return seconds

    def _add(self, session: Session, texts: dict[int, list[str]], embeddings: dict[int, list[Any]]) -> None:
        versions = []
        chunks: list[dict[str, Any]] = []
        events: list[dict[str, Any]] = []
        for number, each in texts.items():
            version = DocumentVersion(
                id=uuid7(),
                document=Document(id=uuid7(), article_id=self.workload.article_id(number)),
                version_number=1,
                source_hash=f"{number}/1",
                chunker_version="c1",
                embedder_version="e1",
                title=self.workload.title(number),
            )
            versions.append(version)
            for ordinal, (text, embedding) in enumerate(zip(each, embeddings[number], strict=True)):
                key = uuid7()
                place = {"version_id": version.id, "ordinal": ordinal}
                chunks.append(
                    {"id": key, **place, "content": text, "embedding": embedding, "is_current": True}
                )
                events.append({"id": uuid7(), "chunk_id": key, **place, "event_type": ChunkEventType.added})
        session.add_all(versions)
        session.flush()
        session.execute(sa.insert(Chunk), chunks)
        session.execute(sa.insert(ChunkEvent), events)
        for version in versions:
            version.document.current_version = version

    def search(self, kind: str, count: int, start: int, stop: int) -> list[Answer]:
        answers = []
        for query in self.workload.query_set(kind, count)[start:stop]:
            began, cpu = time.perf_counter(), time.process_time()
            # a commit keeps the statements that psycopg has prepared, a ROLLBACK would not
            with Session(self.engine) as session, session.begin():
                rows = session.execute(self.statement(query)).all()
            took, cpu = time.perf_counter() - began, time.process_time() - cpu
            answers.append(Answer(took, [parse(row.content) for row in rows], cpu))
        return answers

    def statement(self, query: Query) -> Any:
        articles = query.articles
        where = None if query.title is None else DocumentVersion.title == query.title
        if query.below is not None:
            key, number = query.below
            where = sa.type_coerce(DocumentVersion.details, JSONB)[key].as_integer() < number
        return nearest_chunks(
            query.embedding,
            model=self.model,
            limit=10,
            article_ids=None if articles is None else [self.workload.article_id(each) for each in articles],
            where=where,
        )


class OursThroughPsycopg:
    """The same database, and the same SQL sent by psycopg alone: written out before the clock starts."""

    def __init__(self, ours: Ours) -> None:
        self.name = PSYCOPG
        self.database = ours.database
        self.ours = ours
        self.connection = connect(ours.database)

    def close(self) -> None:
        self.connection.close()

    def search(self, kind: str, count: int, start: int, stop: int) -> list[Answer]:
        answers = []
        for query in self.ours.workload.query_set(kind, count)[start:stop]:
            text, parameters = self._written_out(query)
            began, cpu = time.perf_counter(), time.process_time()
            rows = self.connection.execute(text, parameters).fetchall()
            took, cpu = time.perf_counter() - began, time.process_time() - cpu
            answers.append(Answer(took, [parse(row[CONTENT]) for row in rows], cpu))
        return answers

    def _written_out(self, query: Query) -> tuple[bytes, Any]:
        """Return the statement and its parameters as SQLAlchemy hands them to psycopg, without sending them."""

        def catch(*given: Any) -> None:
            raise _CaughtError(given[2].encode(), given[3])

        sa.event.listen(self.ours.engine, "before_cursor_execute", catch)
        try:
            with self.ours.engine.connect() as connection:
                connection.execute(self.ours.statement(query))
        except _CaughtError as caught:
            return caught.statement, caught.parameters
        finally:
            sa.event.remove(self.ours.engine, "before_cursor_execute", catch)
        raise AssertionError("a search sends a statement")


class _CaughtError(Exception):
    def __init__(self, statement: bytes, parameters: Any) -> None:
        super().__init__()
        self.statement = statement
        self.parameters = parameters
