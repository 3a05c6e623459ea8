"""Loading in bulk: the same rows as publishing one by one, restartable, the index built afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
import sqlalchemy as sa
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from conftest import DatabaseAt, connect, made_database
from publishing import (
    NAMES,
    assert_consistent,
    consistent_connection,
    embed,
    over_asyncpg,
    publish_texts,
    publishing_database,
    read_current,
    read_events,
)
from ragschema import aio, migrations
from ragschema.database.options import Options
from ragschema.database.settings import Database
from ragschema.embeddings.column_type import EmbeddingError
from ragschema.migrations.repair import repair
from ragschema.models import Document
from ragschema.publishing import (
    BulkDocument,
    BulkLoad,
    ContentError,
    PublishingError,
    activate_version,
    deferred_index,
    prune_versions,
    publish_many,
    purge_document,
    retire_document,
)
from ragschema.publishing.deferral import DEFERRED

shared = publishing_database

VECTOR_INDEX, _ = DEFERRED


connection = consistent_connection


def document(article_id: str, *contents: str, **changes: Any) -> BulkDocument:
    given = {
        "embeddings": np.array([embed(content) for content in contents]),
        "source_hash": str(hash(contents)),
        **NAMES,
        **changes,
    }
    return BulkDocument(article_id, contents, **given)


def articles(count: int) -> list[str]:
    return [str(uuid4()) for _ in range(count)]


def test_documents_are_what_publishing_one_by_one_makes(connection: sa.Connection) -> None:
    one, two = articles(2)
    load = publish_many(
        connection,
        [
            document(one, "a", "b", "a", title="Zoë", url="u", text_config="english"),
            document(two, "ünï", "", embeddings=None),
        ],
    )
    assert load == BulkLoad(added=2, chunks=5)
    with Session(connection) as session:
        first = session.scalars(select(Document).where(Document.article_id == one)).one().current_version
        assert first is not None
        assert (first.version_number, first.title, first.url) == (1, "Zoë", "u")
        assert (first.chunker_version, first.embedder_version) == ("c1", "e1")
        assert [(chunk.ordinal, chunk.content) for chunk in first.chunks] == [(0, "a"), (1, "b"), (2, "a")]
        for chunk in first.chunks:
            assert chunk.embedding is not None
            np.testing.assert_array_equal(chunk.embedding, embed(chunk.content))
            assert (chunk.is_current, chunk.text_config, chunk.id.version) == (True, "english", 7)
        assert read_events(session, first.id) == [("added", 0, "a"), ("added", 1, "b"), ("added", 2, "a")]
        assert [(row.content, row.embedding) for row in read_current(session, two)] == [
            ("", None),
            ("ünï", None),
        ]


def test_a_load_that_is_run_again_skips_what_is_there(connection: sa.Connection) -> None:
    names = articles(6)
    documents = [document(name, "a", "b") for name in names]
    publish_many(connection, documents[:4])
    assert publish_many(connection, documents) == BulkLoad(added=2, skipped=4, chunks=4)
    assert publish_many(connection, documents) == BulkLoad(skipped=6)


def test_only_texts_of_documents_that_are_there_are_sent_to_be_compared(connection: sa.Connection) -> None:
    there, absent = articles(2)
    publish_many(connection, [document(there, "a", "b")])
    compared: list[str] = []

    def hear(*arguments: Any) -> None:
        if "contents" in arguments[3]:
            compared.extend(arguments[3]["contents"])

    sa.event.listen(connection, "before_cursor_execute", hear)
    publish_many(connection, [document(there, "a", "b"), document(absent, "c", "d")])
    sa.event.remove(connection, "before_cursor_execute", hear)
    assert sorted(compared) == ["a", "b"]


def test_a_changed_document_gets_another_version_that_reuses_its_rows(connection: sa.Connection) -> None:
    (name,) = articles(1)
    publish_many(connection, [document(name, "a", "b", "c")])
    before = {row.content: row.id for row in read_current(connection, name)}
    connection.rollback()
    assert publish_many(connection, [document(name, "a", "X", "c")]) == BulkLoad(changed=1, chunks=3)
    after = {row.content: row.id for row in read_current(connection, name)}
    assert {content: after.get(content) for content in "ac"} == {content: before[content] for content in "ac"}
    assert sorted(after) == ["X", "a", "c"]


def test_a_document_that_comes_twice_gets_two_versions(connection: sa.Connection) -> None:
    (name,) = articles(1)
    load = publish_many(connection, [document(name, "a"), document(name, "b")])
    assert load == BulkLoad(added=1, changed=1, chunks=2)
    assert [row.content for row in read_current(connection, name)] == ["b"]


def test_each_batch_is_committed_and_reported(connection: sa.Connection) -> None:
    names = articles(7)
    seen: list[tuple[int, int]] = []

    def report(load: BulkLoad) -> None:
        with connection.engine.connect() as other:
            count = other.scalar(select(func.count()).where(Document.article_id.in_(names)))
            seen.append((load.added, count or 0))

    publish_many(connection, (document(name, "a", "b") for name in names), batch_size=4, progress=report)
    assert seen == [(2, 2), (4, 4), (6, 6), (7, 7)]


def test_a_failed_batch_leaves_the_ones_before_it(connection: sa.Connection) -> None:
    names = articles(4)
    documents = [document(name, "a") for name in names]
    bad = document(names[3], "nul \0 byte", embeddings=None)
    with pytest.raises(ContentError, match=f"chunk 0 of article '{names[3]}'"):
        publish_many(connection, [*documents[:3], bad], batch_size=2)
    assert not connection.in_transaction()
    assert connection.scalar(select(func.count()).where(Document.article_id.in_(names))) == 2
    connection.rollback()
    assert publish_many(connection, documents) == BulkLoad(added=2, skipped=2, chunks=2)


@pytest.mark.parametrize(
    "embeddings", [np.ones((1, 768)), np.ones((2, 3)), np.zeros((2, 768)), [[1.0], None]]
)
def test_embeddings_that_do_not_fit_are_refused(connection: sa.Connection, embeddings: Any) -> None:
    (name,) = articles(1)
    with pytest.raises(EmbeddingError):
        publish_many(connection, [document(name, "a", "b", embeddings=embeddings)])
    assert connection.scalar(select(func.count()).where(Document.article_id == name)) == 0


def test_a_document_that_has_no_version_yet_gets_its_first(connection: sa.Connection) -> None:
    (name,) = articles(1)
    connection.execute(sa.insert(Document).values(article_id=name, text_config="german"))
    connection.commit()
    assert publish_many(connection, [document(name, "a")]) == BulkLoad(changed=1, chunks=1)
    assert [row.text_config for row in read_current(connection, name)] == ["german"]


def test_a_connection_in_a_transaction_is_left_alone(connection: sa.Connection) -> None:
    connection.execute(sa.text("SELECT 1"))
    with pytest.raises(PublishingError, match="in a transaction"):
        publish_many(connection, [])


def test_a_session_is_refused(connection: sa.Connection, shared: Database) -> None:
    """Which every other function takes: in words, before any document is read; type checkers refuse it too."""
    message = "publish_many takes a Connection, not Session"
    with Session(connection.engine) as session, pytest.raises(PublishingError, match=message):
        publish_many(session, [])  # type: ignore[arg-type]

    async def load() -> None:
        engine = create_async_engine(shared.url())
        async with AsyncSession(engine) as session:
            with pytest.raises(PublishingError, match=message):
                await aio.publish_many(session, [])  # type: ignore[arg-type]
        await engine.dispose()

    asyncio.run(load())


def test_async_connections_copy_too(connection: sa.Connection, shared: Database) -> None:
    article = str(uuid4())

    async def load() -> BulkLoad:
        engine = create_async_engine(shared.url())
        try:
            async with engine.connect() as asynchronous:
                return await aio.publish_many(asynchronous, [document(article, "a", "b")])
        finally:
            await engine.dispose()

    assert asyncio.run(load()) == BulkLoad(added=1, chunks=2)
    assert [row.content for row in read_current(connection, article)] == ["a", "b"]


def test_copy_needs_psycopg(shared: Database) -> None:
    async def load() -> None:
        engine = create_async_engine(over_asyncpg(shared))
        try:
            async with engine.connect() as connection:
                await aio.publish_many(connection, [document("x", "a")])
        finally:
            await engine.dispose()

    with pytest.raises(PublishingError, match=r"this is asyncpg\."):
        asyncio.run(load())


def test_a_document_that_cannot_be_stored_is_named_and_may_be_left_out(connection: sa.Connection) -> None:
    one, two, three = articles(3)
    bad = np.array([embed("a"), np.zeros(768, np.float32)])
    given = [document(one, "a"), document(two, "a", "b", embeddings=bad), document(three, "nul \0")]
    with pytest.raises(EmbeddingError, match=f"Chunk 1 of article '{two}': An embedding of 768 .* is zero"):
        publish_many(connection, given)
    load = publish_many(connection, given, on_error="skip")
    assert (load.added, load.chunks) == (1, 1)
    assert [failure.article_id for failure in load.failures] == [two, three]
    assert "Chunk 1 of article" in load.failures[0].error.message
    assert "The text of chunk 0" in load.failures[1].error.message
    with pytest.raises(PublishingError, match="on_error is 'ignore'"):
        publish_many(connection, given, on_error="ignore")  # type: ignore[arg-type]


# The deferred index


@pytest.fixture
def engine(database: Database) -> Iterator[sa.Engine]:
    engine = sa.create_engine(database.url())
    yield engine
    engine.dispose()


def definitions(database: Database) -> list[tuple[str, bool]]:
    """Return how the indexes are defined, those that there are, and whether they are valid."""
    with connect(database) as connection:
        return [
            (text, is_valid)
            for text, is_valid in connection.execute(
                "SELECT pg_get_indexdef(i.indexrelid), i.indisvalid FROM unnest(%s::text[]) name"
                " JOIN pg_index i ON i.indexrelid = to_regclass(name) ORDER BY name",
                (list(DEFERRED),),
            )
        ]


def test_the_indexes_are_built_again_as_they_were(database: Database, engine: sa.Engine) -> None:
    with connect(database) as connection:
        connection.execute(f"DROP INDEX {VECTOR_INDEX}".encode())
        connection.execute(
            f"CREATE INDEX {VECTOR_INDEX} ON rag_chunks USING hnsw (embedding vector_cosine_ops)"
            " WITH (m = 8) WHERE is_current".encode()
        )
    before = definitions(database)
    with deferred_index(
        engine, search_is_slow_meanwhile=True, maintenance_work_mem="48MB", parallel_workers=0
    ):
        assert definitions(database) == []
        with engine.connect() as connection:
            publish_many(connection, [document(name, "a", "b") for name in articles(5)])
    assert definitions(database) == before
    with engine.connect() as connection:
        assert connection.scalar(sa.text("SHOW maintenance_work_mem")) != "48MB"


def test_a_failed_load_builds_the_indexes_too(database: Database, engine: sa.Engine) -> None:
    before = definitions(database)
    with pytest.raises(ZeroDivisionError), deferred_index(engine, search_is_slow_meanwhile=True):
        _ = 1 / 0
    assert definitions(database) == before


def test_an_interrupted_load_leaves_the_indexes_to_repair(
    database: Database, engine: sa.Engine, caplog: pytest.LogCaptureFixture
) -> None:
    before = definitions(database)
    with pytest.raises(KeyboardInterrupt), deferred_index(engine, search_is_slow_meanwhile=True):
        raise KeyboardInterrupt
    assert definitions(database) == []
    assert "run `rag migrate repair`" in caplog.text
    assert repair(Options(database)).rebuilt == DEFERRED
    assert definitions(database) == before
    assert repair(Options(database)).rebuilt == ()
    assert migrations.verify(database).is_clean


def test_the_next_load_heals_what_one_left(database: Database, engine: sa.Engine) -> None:
    before = definitions(database)
    with connect(database) as connection:
        connection.execute(f"DROP INDEX {VECTOR_INDEX}".encode())
    with deferred_index(engine, search_is_slow_meanwhile=True):
        pass
    assert definitions(database) == before


def test_an_index_that_cannot_be_built_says_how_to_heal_it(database: Database, engine: sa.Engine) -> None:
    with (
        pytest.raises(PublishingError, match="could not be built") as failed,
        deferred_index(engine, search_is_slow_meanwhile=True),
        connect(database) as connection,
    ):
        connection.execute("ALTER TABLE rag_chunks RENAME COLUMN embedding TO elsewhere")
    assert "elsewhere" in failed.value.evidence or "embedding" in failed.value.evidence
    assert "rag migrate repair" in failed.value.remedy


def test_slow_search_must_be_allowed(engine: sa.Engine, database: Database) -> None:
    before = definitions(database)
    with (
        pytest.raises(PublishingError, match="every search reads all"),
        deferred_index(engine, search_is_slow_meanwhile=False),  # type: ignore[arg-type]
    ):
        pass
    assert definitions(database) == before
    assert len(before) == 2


def test_repair_builds_no_index_before_its_revision(database_at: DatabaseAt) -> None:
    assert repair(Options(database_at("20251225170000"))).rebuilt == ()


def test_everything_works_in_a_schema_of_its_own(server: Mapping[str, str]) -> None:
    with made_database(server) as database:
        migrations.upgrade(database, schema="tenant")
        engine = sa.create_engine(database.url(), connect_args={"options": "-c search_path=tenant,public"})
        with deferred_index(engine, search_is_slow_meanwhile=True), engine.connect() as connection:
            publish_many(connection, [document("one", "a", "b"), document("two", "c")])
            publish_many(connection, [document("one", "a", "X")])
        with Session(engine) as session:
            publish_texts(session, "one", ["a", "Y"])
            activate_version(session, "one", 1)
            retire_document(session, "two")
            session.commit()
            assert prune_versions(session, keep=1).versions == 2
            purge_document(session, "two")
            assert [row.content for row in read_current(session, "one")] == ["a", "b"]
            assert_consistent(session)
            session.commit()
        with connect(database) as connection:
            connection.execute(f"DROP INDEX tenant.{VECTOR_INDEX}".encode())
        options = Options(database, schema="tenant")
        assert repair(options).rebuilt == (VECTOR_INDEX,)
        assert migrations.verify(database, schema="tenant").is_clean
        engine.dispose()


def test_dates_are_those_of_the_document_where_it_says_some(connection: sa.Connection) -> None:
    made = datetime(2020, 2, 3, 4, 5, 6, 789, tzinfo=UTC)
    publish_many(connection, [document("old", "a", "b", created_at=made), document("new", "c")])
    dates = connection.execute(
        sa.text(
            "SELECT d.article_id, d.created_at, v.created_at, c.created_at FROM rag_documents d"
            " JOIN rag_document_versions v ON v.document_id = d.id JOIN rag_chunks c ON c.version_id = v.id"
            " ORDER BY 1 DESC"
        )
    ).all()
    assert [tuple(row) for row in dates[:2]] == [("old", made, made, made)] * 2
    assert {made < date for date in dates[2][1:]} == {True}
    connection.rollback()
    with pytest.raises(ContentError, match="has no time zone"):
        publish_many(connection, [document("other", "a", created_at=made.replace(tzinfo=None))])


def test_what_a_checkpoint_writes_is_committed_with_its_batch_or_not_at_all(
    connection: sa.Connection,
) -> None:
    def checkpoint(connection: sa.Connection, batch: Sequence[BulkDocument]) -> None:
        connection.execute(
            sa.text("INSERT INTO rag_jobs (job_type, payload) VALUES (:last, '{}')"),
            {"last": batch[-1].article_id},
        )
        if batch[-1].article_id == "checkpoint b":
            raise RuntimeError("the process ends")

    documents = [document(f"checkpoint {name}", name) for name in "ab"]
    with pytest.raises(RuntimeError):
        publish_many(connection, documents, batch_size=1, checkpoint=checkpoint)
    connection.rollback()
    written = select(Document.article_id).where(Document.article_id.startswith("checkpoint"))
    jobs = sa.text("SELECT job_type FROM rag_jobs WHERE job_type LIKE 'checkpoint%'")
    assert connection.scalars(written).all() == connection.scalars(jobs).all() == ["checkpoint a"]
