"""Statement builders: each returns a statement and executes nothing."""

from __future__ import annotations

from numpy.typing import ArrayLike
from sqlalchemy import Select, select

from ragschema.models import Chunk, Document


def nearest_chunks(embedding: ArrayLike, *, limit: int = 10) -> Select[Chunk, float]:
    """Select the chunks of current versions nearest to an embedding, nearest first.

    A chunk that has no embedding yet is left out.

    Args:
        embedding: Shape ``(768,)``.
        limit: Rows to return at most.

    Returns:
        A statement of rows ``(Chunk, distance)``; the distance is cosine, from 0 (same direction) to 2.
    """
    distance = Chunk.embedding.cosine_distance(embedding).label("distance")
    return (
        select(Chunk, distance)
        .join(Document, Document.current_version_id == Chunk.version_id)
        .where(Chunk.embedding.is_not(None))
        .order_by(distance)
        .limit(limit)
    )
