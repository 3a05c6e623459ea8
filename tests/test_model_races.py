"""Races about embeddings of models: whoever is first, none is stale, and a backfill holds nobody up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from uuid import UUID, uuid4

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from embedding_models import DIMENSIONS, count_stale, embed
from model_tables import wait_until_blocked
from publishing import assert_consistent, publish_texts, publishing_database
from ragschema.database.settings import Database
from ragschema.database.sqlstates import is_overtaken
from ragschema.embedding_models import add_model, drop_model, find_model
from ragschema.embedding_models.backfill_rows import read_waiting, store_rows
from ragschema.models import EmbeddingModel
from ragschema.publishing import StalePlan, activate_version, purge_document

database = publishing_database
Change = Callable[[Session, str], object]


@pytest.fixture(scope="module")
def engine(database: Database) -> Iterator[sa.Engine]:
    engine = sa.create_engine(database.url())
    with Session(engine) as session:
        publish_texts(session, "first", ["x"])
        session.commit()
    add_model(database, "new", DIMENSIONS)
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def model(engine: sa.Engine) -> EmbeddingModel:
    with engine.connect() as connection:
        return find_model(connection, "new")


def publish_another(session: Session, article: str) -> object:
    return publish_texts(session, article, ["a", "d"])


def activate_the_first(session: Session, article: str) -> object:
    return activate_version(session, article, 1)


def delete(session: Session, article: str) -> object:
    return purge_document(session, article)


def store(session: Session, model: EmbeddingModel, ids: list[UUID]) -> list[UUID]:
    """Store embeddings of chunks, whatever waits; wait for nobody."""
    session.execute(sa.text("SET LOCAL lock_timeout = '1ms'"))
    return store_rows(session, model, dict(zip(ids, embed(["a"] * len(ids)), strict=True)))


@pytest.mark.parametrize("isolation", ["READ COMMITTED", "SERIALIZABLE"])
@pytest.mark.parametrize("order", ["backfill first", "change first", "change committed"])
@pytest.mark.parametrize("change", [publish_another, activate_the_first, delete])
def test_no_embedding_is_stale_whoever_is_first(
    engine: sa.Engine, model: EmbeddingModel, isolation: str, order: str, change: Change
) -> None:
    article = str(uuid4())
    with Session(engine) as session:
        for texts in (["a", "b"], ["a", "c"]):
            publish_texts(session, article, texts)
        session.commit()
        ids = sorted(
            session.scalars(
                sa.text(
                    "SELECT c.id FROM rag_chunks c JOIN rag_document_versions v ON v.id = c.version_id"
                    " JOIN rag_documents d ON d.id = v.document_id WHERE d.article_id = :article"
                ),
                {"article": article},
            )
        )
        assert len(ids) == 3
    strict = engine.execution_options(isolation_level=isolation)
    with Session(strict) as backfill, Session(strict) as other, ThreadPoolExecutor(1) as thread:

        def end_change() -> None:
            if is_overtaken_in(other.commit, other, isolation):
                change(other, article)
                other.commit()

        def run_change() -> None:
            if is_overtaken_in(lambda: change(other, article), other, isolation):
                change(other, article)
            end_change()

        for each in (backfill, other):
            each.execute(sa.text("SELECT count(*) FROM rag_documents"))  # what a stricter one sees is settled
        if order == "backfill first":
            assert store(backfill, model, ids) == ids
            future = thread.submit(run_change)
            wait_until_blocked(engine, backfill.scalar(sa.text("SELECT pg_backend_pid()")) or 0, future)
            is_overtaken_in(backfill.commit, backfill, isolation)
            future.result()
        else:
            change(other, article)
            if order == "change committed":
                other.commit()
            if not is_overtaken_in(lambda: store(backfill, model, ids), backfill, isolation):
                is_overtaken_in(backfill.commit, backfill, isolation)
            end_change()
        assert count_stale(other) == 0
        waiting = read_waiting(other, model, after=None, until=None, limit=1_000)
        store(other, model, [chunk.id for chunk in waiting])
        assert count_stale(other) == 0
        assert read_waiting(other, model, after=None, until=None, limit=1_000) == []
        assert_consistent(other)


def is_overtaken_in(work: Callable[[], object], session: Session, isolation: str) -> bool:
    """Do the work; whether the stricter isolation has ended it instead, to be begun anew."""
    try:
        work()
    except (StalePlan, DBAPIError) as exc:
        session.rollback()
        if isolation == "SERIALIZABLE" and (isinstance(exc, StalePlan) or is_overtaken(exc)):
            return True
        raise
    return False


@pytest.mark.parametrize("is_reversed", [False, True])
def test_two_backfills_of_the_same_chunks_wait_in_one_order(
    engine: sa.Engine, model: EmbeddingModel, is_reversed: bool
) -> None:
    """As where a worker is slow, and another one has its job: neither is ended by a deadlock."""
    with Session(engine) as one, Session(engine) as other, ThreadPoolExecutor(1) as thread:
        ids = sorted(publish_chunk(one) for _ in range(4))
        one.commit()
        theirs = ids[::-1] if is_reversed else ids
        assert sorted(store(one, model, ids[1:3])) == ids[1:3]
        future = thread.submit(
            lambda: store_rows(other, model, dict(zip(theirs, embed(["b"] * 4), strict=True)))
        )
        wait_until_blocked(engine, one.scalar(sa.text("SELECT pg_backend_pid()")) or 0, future)
        assert sorted(store(one, model, ids[3:])) == ids[3:]
        one.commit()
        assert sorted(future.result()) == ids
        other.commit()
        assert count_stale(one) == 0


def test_a_drop_ends_nobody_who_is_about_to_read_its_partition(engine: sa.Engine, database: Database) -> None:
    """A search or a publisher holds the parent first, and its partitions then."""
    add_model(database, "passing", DIMENSIONS)
    with engine.connect() as reader, ThreadPoolExecutor(1) as thread:
        reader.execute(sa.text("LOCK TABLE ONLY rag_chunk_embeddings IN ACCESS SHARE MODE"))
        dropped = thread.submit(drop_model, database, "passing")
        wait_until_blocked(engine, reader.scalar(sa.text("SELECT pg_backend_pid()")) or 0, dropped)
        reader.execute(sa.text("SET LOCAL lock_timeout = '1ms'"))
        reader.execute(sa.text("SELECT count(*) FROM rag_chunk_embeddings"))
        reader.rollback()
        assert dropped.result().key == "passing"


def publish_chunk(session: Session) -> UUID:
    article = str(uuid4())
    version = publish_texts(session, article, [article])
    found = session.scalars(sa.text("SELECT id FROM rag_chunks WHERE version_id = :id"), {"id": version.id})
    return UUID(str(found.one()))


class OldWriter:
    """A service that publishes by its own SQL, each statement as the first ones wrote it."""

    def __init__(self, database: Database) -> None:
        self.connection = psycopg.connect(database.libpq_url())

    def add_version(self, document: UUID, number: int) -> UUID:
        return self._one(
            "INSERT INTO rag_document_versions (document_id, version_number, source_hash, chunker_version,"
            " embedder_version) VALUES (%s, %s, 'h', 'c', 'e') RETURNING id",
            (document, number),
        )

    def replace_chunk(self, version: UUID, old: UUID | None) -> UUID:
        """Write a new chunk with its event, and the event of the one that it stands for."""
        chunk = self._one(
            "INSERT INTO rag_chunks (version_id, ordinal, content) VALUES (%s, 0, 'text') RETURNING id",
            (version,),
        )
        self._write(version, chunk, "added")
        if old is not None:
            self._write(version, old, "deleted")
        return chunk

    def point(self, document: UUID, version: UUID) -> None:
        self.connection.execute(
            "UPDATE rag_documents SET current_version_id = %s WHERE id = %s", (version, document)
        )

    def publish_first(self) -> tuple[UUID, UUID, str]:
        """Publish a document; return its id, its chunk's and its article_id."""
        article = str(uuid4())
        document = self._one("INSERT INTO rag_documents (article_id) VALUES (%s) RETURNING id", (article,))
        version = self.add_version(document, 1)
        chunk = self.replace_chunk(version, None)
        self.point(document, version)
        self.connection.commit()
        return document, chunk, article

    def _write(self, version: UUID, chunk: UUID, event: str) -> None:
        self.connection.execute(
            "INSERT INTO rag_chunk_events (version_id, chunk_id, ordinal, event_type) VALUES (%s, %s, 0, %s)",
            (version, chunk, event),
        )

    def _one(self, statement: str, parameters: tuple[object, ...]) -> UUID:
        row = self.connection.execute(statement.encode(), parameters).fetchone()
        assert row is not None
        return UUID(str(row[0]))


with_triggers = pytest.mark.parametrize("database", [True], ids=["triggers"], indirect=True, scope="module")
"""For services that rely on them: the database without is not theirs."""


@pytest.fixture
def writers(database: Database) -> Iterator[tuple[OldWriter, OldWriter]]:
    pair = OldWriter(database), OldWriter(database)
    yield pair
    for writer in pair:
        writer.connection.close()


@with_triggers
def test_old_writers_of_one_document_take_turns_by_its_version_number(
    engine: sa.Engine, writers: tuple[OldWriter, OldWriter]
) -> None:
    one, other = writers
    document, chunk, _ = one.publish_first()
    mine = one.add_version(document, 2)
    one.replace_chunk(mine, chunk)
    with ThreadPoolExecutor(1) as thread:
        late = thread.submit(other.add_version, document, 2)
        wait_until_blocked(engine, one.connection.info.backend_pid, late)
        one.point(document, mine)
        one.connection.commit()
        with pytest.raises(psycopg.errors.UniqueViolation):
            late.result()
    other.connection.rollback()
    theirs = other.add_version(document, 3)
    other.replace_chunk(theirs, None)
    other.point(document, theirs)
    other.connection.commit()
    with Session(engine) as session:
        assert_consistent(session)


@with_triggers
def test_of_old_writers_that_number_for_themselves_one_is_told_and_neither_is_lost(
    engine: sa.Engine, writers: tuple[OldWriter, OldWriter]
) -> None:
    """Both have named the chunk that one of them hides: since is_current is a key, that is a deadlock."""
    one, other = writers
    document, chunk, _ = one.publish_first()
    versions = [writer.add_version(document, number) for number, writer in enumerate(writers, 2)]
    for writer, version in zip(writers, versions, strict=True):
        writer.replace_chunk(version, chunk)
    one.point(document, versions[0])
    numbers = count(4)

    def end(writer: OldWriter, version: UUID) -> bool:
        """Commit; where the server ends the transaction, do it all again, which the other one may be doing too."""
        was_told = False
        while True:
            try:
                if was_told:
                    version = writer.add_version(document, next(numbers))
                    writer.replace_chunk(version, chunk)
                if was_told or writer is other:
                    writer.point(document, version)
                writer.connection.commit()
                return was_told
            except psycopg.errors.DeadlockDetected:
                writer.connection.rollback()
                was_told = True

    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(end, one, versions[0])
        wait_until_blocked(engine, other.connection.info.backend_pid, first)
        second = threads.submit(end, other, versions[1])
        assert any([first.result(), second.result()])
    with Session(engine) as session:
        assert_consistent(session)
        assert count_stale(session) == 0


@with_triggers
def test_a_backfill_waits_for_no_old_writer_nor_holds_one_up_but_for_its_commit(
    engine: sa.Engine, model: EmbeddingModel, writers: tuple[OldWriter, OldWriter]
) -> None:
    writer, _ = writers
    document, chunk, _ = writer.publish_first()
    version = writer.add_version(document, 2)
    writer.replace_chunk(version, chunk)  # which refers to the chunk, by a key
    with Session(engine) as session, ThreadPoolExecutor(1) as thread:
        assert store(session, model, [chunk]) == [chunk]
        writer.point(document, version)
        future = thread.submit(writer.connection.commit)
        wait_until_blocked(engine, session.scalar(sa.text("SELECT pg_backend_pid()")) or 0, future)
        session.commit()
        future.result()
        assert count_stale(session) == 0
        assert (
            session.scalar(
                sa.text("SELECT is_current FROM rag_chunk_embeddings WHERE chunk_id = :id"), {"id": chunk}
            )
            is False
        )
