"""Rows of a backfill: the chunks of a range that wait for an embedding of a model, and the rows that hold it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ragschema.embeddings.column_type import EmbeddingError
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
    """Store embeddings in the caller's transaction; return the chunks that no longer wait.

    Raises:
        EmbeddingError: One is none of the model; roll back.
    """
    order = sorted(vectors)
    result = store_embeddings(session, order, [vectors[each] for each in order], model)
    for reason in result.refused.values():
        raise EmbeddingError(reason, "Embed by the model that the job names, and let the job be tried again.")
    return [*result.stored, *result.kept, *result.gone]
