"""Loads and ingests with several embedding models: each gets the embeddings that come with it, the others wait."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker

from model_tables import activate, add_model, embed_by, read_embeddings, register_column
from publishing import assert_consistent, embed
from ragschema import (
    BulkDocument,
    EmbeddingError,
    deferred_index,
    ingest,
    ingest_async,
    ingest_many,
    pending_embeddings,
    publish_many,
)
from ragschema.database.settings import Database
from ragschema.publishing import BulkLoad, ContentError, Ingestion
from ragschema.publishing.errors import StalePlan
from ragschema.publishing.live_models import read_live_models

NAMES: dict[str, Any] = {"source_hash": "h", "chunker_version": "c"}


@pytest.fixture
def connection(engine: sa.Engine) -> Iterator[sa.Connection]:
    """A connection to a database whose column is active beside a model of 8 dimensions with an index."""
    with engine.connect() as connection:
        with connection.begin():
            register_column(connection)
            add_model(connection, "small", 8, indexed=True)
        yield connection
        connection.rollback()
        assert_consistent(connection)


def document(name: str, *contents: str, by: str = "default small", **changes: Any) -> BulkDocument:
    """Return a document with its embeddings by some models; the column is the active one."""
    return BulkDocument(
        name,
        contents,
        [embed(text) for text in contents] if "default" in by else None,
        source_hash=repr(contents),
        chunker_version="c",
        **{"model_embeddings": {"small": small(*contents)} if "small" in by else None, **changes},
    )


def small(*texts: str) -> Any:
    return np.array([embed_by("small", 8, text) for text in texts])


def embedded(connection: sa.Connection) -> tuple[list[str], list[str]]:
    """Return the texts that are embedded by the column's model and by the other, as each says."""
    found = read_embeddings(connection, "small")
    for text, vector in found.items():
        np.testing.assert_array_equal(vector, small(text)[0])
    column = connection.scalars(
        sa.text("SELECT content FROM rag_chunks WHERE is_current AND embedding IS NOT NULL ORDER BY 1")
    )
    return [*column], sorted(found)


def test_a_load_stores_each_models_embeddings_and_a_second_one_what_was_missing(
    connection: sa.Connection,
) -> None:
    load = publish_many(
        connection,
        [
            document("a", "x", "y"),
            document("b", "z", by="default"),
            document("c", "v", by="small"),
            document("d"),
        ],
    )
    assert load == BulkLoad(added=4, chunks=4)
    assert embedded(connection) == (["x", "y", "z"], ["v", "x", "y"])
    connection.rollback()
    again = [document("a", "x", "y"), document("b", "z"), document("c", "v", "w"), document("d", by="small")]
    assert publish_many(connection, again) == BulkLoad(changed=1, skipped=2, chunks=2, embedded=1)
    assert embedded(connection) == (["v", "w", "x", "y", "z"], ["v", "w", "x", "y", "z"])
    labels = connection.scalars(sa.text("SELECT DISTINCT embedder_version FROM rag_document_versions"))
    assert labels.all() == ["default"]


def test_embeddings_of_a_document_are_the_active_models(connection: sa.Connection) -> None:
    with connection.begin():
        activate(connection, "small")
    given = BulkDocument("a", ["x"], small("x"), "h", "c", model_embeddings={"default": [embed("x")]})
    assert publish_many(connection, [given]) == BulkLoad(added=1, chunks=1)
    assert embedded(connection) == (["x"], ["x"])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"embeddings": small("x")}, "Chunk 0 of article 'a': Embedding model 'default': An embedding has 8"),
        (
            {"model_embeddings": {"small": [embed("x")]}},
            "Chunk 0 of article 'a': Embedding model 'small': .* 768",
        ),
        ({"model_embeddings": {"small": []}}, "'a' has 1 chunk and 0 embeddings of 'small'"),
        ({"model_embeddings": {"big": []}}, "no live embedding model 'big'"),
        ({"model_embeddings": {"default": [embed("x")]}}, "'a' are given twice"),
        ({"model_embeddings": [embed("x")]}, "model_embeddings is a list"),
    ],
)
def test_what_does_not_fit_its_model_is_refused_or_left_out(
    connection: sa.Connection, changes: dict[str, Any], said: str
) -> None:
    given = {"embeddings": [embed("x")], **NAMES, **changes}
    bad = BulkDocument(article_id="a", contents=["x"], **given)
    with pytest.raises(EmbeddingError, match=said):
        publish_many(connection, [bad])
    assert publish_many(connection, [bad, document("b", "y")], on_error="skip").added == 1


def test_without_a_model_a_load_must_say_what_embedded_it(engine: sa.Engine) -> None:
    with engine.connect() as connection:
        with pytest.raises(ContentError, match="'a' has no embedder_version"):
            publish_many(connection, [document("a", "x", by="default")])
        load = publish_many(connection, [document("a", "x", by="default")], on_error="skip")
        assert [failure.article_id for failure in load.failures] == ["a"]


def test_models_that_change_during_a_batch_stop_it(
    connection: sa.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_then_activate(session: Any) -> Any:
        found = read_live_models(session)
        activate(session, "small")
        return found

    monkeypatch.setattr("ragschema.publishing.bulk.read_live_models", read_then_activate)
    with pytest.raises(StalePlan, match="models have changed while a batch was being loaded"):
        publish_many(connection, [document("a", "x")])


def test_a_load_may_defer_the_indexes_of_every_model(connection: sa.Connection, engine: sa.Engine) -> None:
    count = sa.text(
        "SELECT count(*) FROM pg_index WHERE indisvalid AND indexrelid IN"
        " (to_regclass('rag_chunks_current_embedding_idx'), to_regclass('rag_chunk_embeddings_2_idx'))"
    )
    definition = sa.text("SELECT indexdef FROM pg_indexes WHERE indexname = 'rag_chunk_embeddings_2_idx'")
    before = connection.scalar(definition)
    connection.rollback()
    with deferred_index(engine, search_is_slow_meanwhile=True):
        publish_many(connection, [document("a", "x", "y")])
        assert connection.scalar(count) == 0
        connection.rollback()
    assert (connection.scalar(count), connection.scalar(definition)) == (2, before)
    connection.execute(sa.text("DROP INDEX rag_chunk_embeddings_2_idx"))  # by a load that died
    activate(connection, "small")
    connection.commit()
    with deferred_index(engine, search_is_slow_meanwhile=True):
        pass
    assert connection.scalar(count) == 2


class Models:
    """Two embedding models that count what they embed."""

    def __init__(self) -> None:
        self.counts = {"default": 0, "small": 0}

    def default(self, texts: list[str]) -> Any:
        self.counts["default"] += len(texts)
        return [embed(text) for text in texts]

    def small(self, texts: list[str]) -> Any:
        self.counts["small"] += len(texts)
        return small(*texts)


def test_ingesting_calls_the_models_that_there_are_functions_for(connection: sa.Connection) -> None:
    models = Models()
    sessions = sessionmaker(connection.engine)
    every = {"default": models.default, "small": models.small, "one to come": models.small}
    ingest(sessions, "a", ["x", "y"], models.default, **NAMES)
    assert embedded(connection) == (["x", "y"], [])
    ingest(sessions, "a", ["x", "z"], models.default, model_embed={"small": models.small}, **NAMES)
    ingest(sessions, "b", ["x"], None, model_embed=every, **NAMES)
    connection.rollback()
    assert embedded(connection) == (["x", "x", "z"], ["x", "z"])
    with connection.begin_nested():
        activate(connection, "small")
    connection.commit()
    ingest(sessions, "c", ["q"], None, model_embed=every, **NAMES)
    with pytest.raises(EmbeddingError, match="model 'small': An embedding has 768 dimensions"):
        ingest(sessions, "d", ["q"], models.default, **NAMES)
    ingest(sessions, "d", ["q"], None, model_embed={"default": models.default}, **NAMES)
    assert models.counts == {"default": 7, "small": 3}
    with sessions() as session:
        assert [row.content for row in session.execute(pending_embeddings())] == ["x", "q"]
    with pytest.raises(EmbeddingError, match=r"model_embed\['small'\] returned 0 embeddings for 1 text"):
        ingest(sessions, "e", ["q"], None, model_embed={"small": lambda _: []}, **NAMES)


def test_ingesting_awaits_every_model(connection: sa.Connection, database: Database) -> None:
    async def work() -> None:
        async def by_default(texts: list[str]) -> Any:
            return [embed(text) for text in texts]

        async def by_small(texts: list[str]) -> Any:
            return small(*texts)

        engine = create_async_engine(database.url())
        sessions = async_sessionmaker(engine, class_=AsyncSession)
        await ingest_async(sessions, "a", ["x"], by_default, model_embed={"small": by_small}, **NAMES)
        with pytest.raises(
            EmbeddingError, match=r"model_embed\['small'\] returned ndarray, not an awaitable"
        ):
            await ingest_async(
                sessions, "b", ["x"], None, model_embed={"small": lambda texts: small(*texts)}, **NAMES
            )
        await engine.dispose()

    asyncio.run(work())
    assert embedded(connection) == (["x"], ["x"])


def test_many_are_embedded_together_by_each_model(connection: sa.Connection) -> None:
    models = Models()
    sessions = sessionmaker(connection.engine)
    documents = [document(name, *texts, by="") for name, texts in (("a", "xy"), ("b", "yz"), ("c", ""))]

    def embed_and_overtake(texts: list[str]) -> Any:
        """Let somebody else publish one of them meanwhile, so that it is planned and embedded anew."""
        if models.counts["small"] == 0:
            with Session(connection.engine) as session:
                ingest(sessionmaker(connection.engine), "b", ["other"], models.default, **NAMES)
                session.commit()
        return models.small(texts)

    done = ingest_many(sessions, documents, models.default, model_embed={"small": embed_and_overtake})
    assert done == Ingestion(published=3, embedded=6)
    assert embedded(connection) == (["x", "y", "y", "z"], ["x", "y", "z"])
    assert models.counts == {"default": 4, "small": 3}
    failed = ingest_many(
        sessions,
        [document("d", "q", by="")],
        models.default,
        model_embed={"small": models.default},
        on_error="skip",
    )
    assert "Chunk 0 of article 'd': Embedding model 'small'" in failed.failures[0].error.message
