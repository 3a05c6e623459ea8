"""Searches by embedding models: right rows for each distance and index, and no search of a model that is not meant."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import numpy as np
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

import query_data
from conftest import connect, made_database, make_engine
from model_data import make_model
from ragschema import (
    ChunkEmbedding,
    DocumentVersion,
    EmbeddingError,
    EmbeddingModel,
    QueryError,
    create_async_engine,
    hybrid_search,
    is_model_refused,
    nearest_chunks,
)
from ragschema.database.settings import Database
from ragschema.embeddings.wire import Vector
from ragschema.schema.embedding_models import Distance, IndexType

DOCUMENTS, CHUNKS = 250, 3
SHAPES: dict[str, tuple[int, Distance, IndexType]] = {
    "cosine of halfvec": (24, "cosine", "halfvec"),
    "l2 of halfvec": (25, "l2", "halfvec"),
    "inner product of halfvec": (26, "inner_product", "halfvec"),
    "cosine of vector": (27, "cosine", "vector"),
    "l2 of vector": (28, "l2", "vector"),
    "cosine of bits": (96, "cosine", "bit"),
    "inner product without an index": (29, "inner_product", "none"),
    "cosine without an index": (30, "cosine", "none"),
    "as many dimensions as the column": (768, "cosine", "halfvec"),
}


@pytest.fixture(scope="module")
def database(server: Mapping[str, str], template: str) -> Iterator[Database]:
    """One database for the module: every test rolls back."""
    with made_database(server, template) as database:
        with connect(database) as connection:
            query_data.fill(connection, documents=DOCUMENTS, chunks=CHUNKS)
            connection.execute(
                "INSERT INTO rag_embedding_models (id, key, dimensions, index_type, state)"
                " OVERRIDING SYSTEM VALUE VALUES (1, 'default', 768, 'vector', 'active')"
            )
            for key, (dimensions, distance, index_type) in SHAPES.items():
                state = "building" if dimensions == 768 else "standby"
                make_model(connection, key, dimensions, distance=distance, index_type=index_type, state=state)
        yield database


engine = pytest.fixture(scope="module")(make_engine)


@dataclass(frozen=True)
class Truth:
    """The embeddings of a model, compared by numpy."""

    ids: list[UUID]
    embeddings: Vector
    distance: str

    @classmethod
    def read(cls, session: Session, model: EmbeddingModel) -> Truth:
        rows = session.execute(
            sa.select(ChunkEmbedding.chunk_id, ChunkEmbedding.embedding).where(ChunkEmbedding.model_id == model.id)
        ).all()
        assert len(rows) == DOCUMENTS * CHUNKS
        return cls([row.chunk_id for row in rows], np.array([row.embedding for row in rows]), model.distance)

    def distances(self, query: Vector) -> Vector:
        products: Vector = self.embeddings @ query
        if self.distance == "inner_product":
            return -products
        if self.distance == "l2":
            return np.linalg.norm(self.embeddings - query, axis=1)
        return 1 - products / np.linalg.norm(self.embeddings, axis=1) / np.linalg.norm(query)


def find(session: Session, key: str) -> EmbeddingModel:
    model = session.scalars(sa.select(EmbeddingModel).where(EmbeddingModel.key == key)).one()
    session.expunge(model)
    return model


def query(dimensions: int, seed: int = 0) -> Vector:
    return np.random.default_rng(seed).normal(0, 0.3, dimensions).astype(np.float32)


def ways_to_name(session: Session, key: str) -> list[str | EmbeddingModel | None]:
    """Return how a model can be given: itself, and by its key or its dimension alone where that is enough."""
    dimensions, distance, index_type = SHAPES[key]
    by_name = distance == "cosine" and index_type in ("halfvec", "none")
    return [find(session, key), *[key] * by_name, *[None] * (by_name and dimensions != 768)]


@pytest.mark.parametrize("key", SHAPES)
def test_the_nearest_by_a_model_come_first_with_their_distances(session: Session, key: str) -> None:
    truth = Truth.read(session, find(session, key))
    for model in ways_to_name(session, key):
        found = 0
        for seed in range(8):
            asked = query(SHAPES[key][0], seed)
            distances = dict(zip(truth.ids, truth.distances(asked), strict=True))
            hits = session.execute(nearest_chunks(asked, model=model, limit=5)).all()
            assert [hit.distance for hit in hits] == pytest.approx(
                [distances[hit.chunk_id] for hit in hits], abs=2e-3
            )
            assert [hit.distance for hit in hits] == sorted(hit.distance for hit in hits)
            assert all(" of article " in hit.content and hit.version_number == 2 for hit in hits)
            found += len({hit.chunk_id for hit in hits} & {*sorted(distances, key=distances.__getitem__)[:5]})
        assert found >= (30 if SHAPES[key][2] == "bit" else 36), model  # of 40


@pytest.mark.parametrize("key", SHAPES)
def test_filters_of_a_model_leave_every_row_that_passes(session: Session, key: str) -> None:
    """Also where the index gives up before it has met them."""
    truth = Truth.read(session, find(session, key))
    session.execute(sa.text("SET LOCAL hnsw.max_scan_tuples = 1"))
    allowed = [f"article-{number}" for number in range(0, 20)]
    passing = sa.select(DocumentVersion.id).where(DocumentVersion.title.in_([f"Title {n}" for n in range(20)]))
    for model in ways_to_name(session, key):
        asked = query(SHAPES[key][0])
        statement = nearest_chunks(asked, model=model, limit=30, article_ids=allowed)
        hits = session.execute(statement).all()
        assert len(hits) == 30
        assert {hit.article_id for hit in hits} <= {*allowed}
        by_title = nearest_chunks(asked, model=model, limit=50, where=DocumentVersion.id.in_(passing))
        assert len(session.execute(by_title).all()) == 50
        among = {id for id, article in session.execute(ARTICLES) if article in allowed}
        nearest = [id for id in np.array(truth.ids)[np.argsort(truth.distances(asked))] if id in among]
        assert len({hit.chunk_id for hit in hits} & {*nearest[:30]}) >= 29
        near = nearest_chunks(asked, model=model, article_ids=allowed, max_distance=hits[3].distance + 1e-5)
        assert [hit.chunk_id for hit in session.execute(near)] == [hit.chunk_id for hit in hits[:4]]
