"""Rows of a backfill: the chunks of a range that wait for an embedding of a model, and the rows that hold it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

import numpy as np
import sqlalchemy as sa
from sqlalchemy.orm import Session

from ragschema.embeddings.column_type import EmbeddingArray
from ragschema.embeddings.half_column_type import HalfEmbedding
from ragschema.embeddings.wire import EmbeddingLike
from ragschema.models import EmbeddingModel
from ragschema.publishing import store_embeddings
from ragschema.schema.embedding_models import COLUMN_MODEL

_WAITING = """
SELECT c.id, c.content FROM rag_chunks c
WHERE c.is_current AND c.id > :after AND c.id <= :until AND {waits} ORDER BY c.id LIMIT :limit
"""
_OF_THE_COLUMN = sa.text(_WAITING.format(waits="c.embedding IS NULL AND c.embedding_error IS NULL"))
_OF_A_PARTITION = sa.text(
    _WAITING.format(
        waits="NOT EXISTS (SELECT FROM rag_chunk_embeddings e WHERE e.chunk_id = c.id AND e.model_id = :model_id)"
    )
)
# The lock keeps is_current as it is read, and SKIP LOCKED waits for nobody who changes it. No weaker lock: of two who
# store for the same chunks, each could wait for a row that the other has inserted.
_STORE = sa.text("""
WITH given AS MATERIALIZED (
    SELECT n.id, CAST(CAST((CAST(:embeddings AS real[]))
        [(n.place - 1) * CAST(:dimension AS integer) + 1 : n.place * CAST(:dimension AS integer)] AS vector) AS halfvec)
        AS embedding
    FROM unnest(CAST(:ids AS uuid[])) WITH ORDINALITY AS n (id, place)
), locked AS MATERIALIZED (
    SELECT c.id, c.is_current FROM rag_chunks c
    WHERE c.id = ANY(CAST(:ids AS uuid[])) ORDER BY c.id FOR NO KEY UPDATE SKIP LOCKED
), stored AS (
    INSERT INTO rag_chunk_embeddings (chunk_id, model_id, embedding, is_current)
    SELECT locked.id, :model_id, given.embedding, locked.is_current FROM locked JOIN given USING (id)
    ON CONFLICT (chunk_id, model_id) DO NOTHING
)
SELECT id FROM locked
UNION ALL
SELECT given.id FROM given WHERE NOT EXISTS (SELECT FROM rag_chunks c WHERE c.id = given.id)
""").bindparams(sa.bindparam("embeddings", type_=EmbeddingArray()))


@dataclass(frozen=True)
class Waiting:
    """A chunk that waits for its embedding."""

    id: UUID
    content: str


def read_waiting(
    session: Session, model: EmbeddingModel, *, after: UUID | None, until: UUID | None, limit: int
) -> list[Waiting]:
    """Return current chunks that wait for an embedding of a model, in the order of ids, after one and up to another."""
    statement = _OF_THE_COLUMN if model.id == COLUMN_MODEL else _OF_A_PARTITION
    parameters = {
        "after": after or UUID(int=0),
        "until": until or UUID(int=2**128 - 1),
        "limit": limit,
        "model_id": model.id,
    }
    return [Waiting(row.id, row.content) for row in session.execute(statement, parameters)]


def store_rows(session: Session, model: EmbeddingModel, vectors: Mapping[UUID, EmbeddingLike]) -> list[UUID]:
    """Store embeddings in the caller's transaction; return the chunks that are done, or gone.

    Raises:
        EmbeddingError: One is none of the model; nothing was sent.
    """
    order = sorted(vectors)
    if model.id == COLUMN_MODEL:
        result = store_embeddings(session, order, [vectors[each] for each in order])
        return [*result.stored, *result.kept, *result.gone]
    checked = HalfEmbedding(model.dimensions).check_all([vectors[each] for each in order])
    parameters = {
        "ids": order,
        "embeddings": np.asarray(checked, np.float32),
        "dimension": model.dimensions,
        "model_id": model.id,
    }
    return list(session.execute(_STORE, parameters).scalars())
