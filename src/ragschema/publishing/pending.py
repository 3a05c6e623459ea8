"""Embeddings that come later: stored row by row, or given up with the reason."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from ragschema.embeddings.column_type import Embedding, EmbeddingArray, EmbeddingError
from ragschema.embeddings.wire import EmbeddingLike, Vector
from ragschema.publishing.errors import ContentError
from ragschema.publishing.transactions import connection_of
from ragschema.schema.base import Executor
from ragschema.values import check_text, several
from ragschema.words import counted


@dataclass(frozen=True)
class StoredEmbeddings:
    """What became of each embedding, by its chunk.

    Attributes:
        stored: Written now.
        kept: Not written: the chunk has one already.
        gone: Not written: the chunk is gone, pruned or purged.
        refused: Not written, with the reason: it cannot be stored. Its chunk still waits.
    """

    stored: tuple[UUID, ...]
    kept: tuple[UUID, ...]
    gone: tuple[UUID, ...]
    refused: Mapping[UUID, str]


def store_embeddings(
    session: Executor,
    chunk_ids: Sequence[UUID],
    embeddings: Sequence[EmbeddingLike] | NDArray[Any],
) -> StoredEmbeddings:
    """Store the embeddings of chunks that wait for theirs, in one statement of the caller's transaction.

    One that cannot be stored does not undo the others: the result says of each chunk what became of it. Chunks
    are written in the order of their ids, so that two workers wait for each other rather than deadlock.

    Args:
        session: A session or connection.
        chunk_ids: Of `pending_embeddings`.
        embeddings: Theirs, in the same order, each of shape ``(dimension,)``.

    Raises:
        EmbeddingError: There are not as many embeddings as chunks. Nothing was sent.
    """
    ids = several("chunk_ids", chunk_ids, EmbeddingError, each=UUID, is_ordered=True)
    given = (
        embeddings
        if isinstance(embeddings, np.ndarray)
        else several("embeddings", embeddings, EmbeddingError, is_ordered=True)
    )
    if len(ids) != len(given):
        raise EmbeddingError(
            f"{counted(len(ids), 'chunk')} cannot have {counted(len(given), 'embedding')}.",
            "Pass one embedding for each of chunk_ids.",
        )
    checked: dict[UUID, Vector] = {}
    refused: dict[UUID, str] = {}
    for chunk_id, value in zip(ids, given, strict=True):
        try:
            checked[chunk_id] = Embedding().check(value)
        except EmbeddingError as exc:
            refused[chunk_id] = exc.message
    fates: dict[UUID, str] = {}
    if checked:
        order = sorted(checked)
        vectors = np.array([checked[chunk_id] for chunk_id in order])
        given_now = {"ids": order, "embeddings": vectors, "dimension": vectors.shape[1]}
        rows = connection_of(session).execute(_STORE, given_now)
        fates = {row.id: row.fate for row in rows}
    by_fate = {
        fate: tuple(each for each in checked if fates.get(each, "gone") == fate)
        for fate in ("stored", "kept", "gone")
    }
    return StoredEmbeddings(**by_fate, refused=refused)


def skip_embeddings(session: Executor, reasons: Mapping[UUID, str]) -> int:
    """Say of chunks why they will not be embedded; return how many waited. They wait no more.

    An embedding that comes all the same, by `store_embeddings` or with a later version, takes the reason away.

    Args:
        session: A session or connection; in the caller's transaction.
        reasons: By chunk.

    Raises:
        ContentError: A reason is no text that can be stored.
    """
    for chunk_id, reason in reasons.items():
        check_text(f"The reason of chunk {chunk_id}", reason, ContentError)
    order: Collection[UUID] = sorted(reasons)
    parameters = {"ids": list(order), "reasons": [reasons[each] for each in order]}
    return connection_of(session).execute(_SKIP, parameters).rowcount


# Locked in the order of ids, whatever order the join hands them over in.
_STORE = sa.text("""
WITH given AS MATERIALIZED (
    SELECT n.id, CAST((CAST(:embeddings AS real[]))
        [(n.place - 1) * CAST(:dimension AS integer) + 1 : n.place * CAST(:dimension AS integer)] AS vector)
        AS embedding
    FROM unnest(CAST(:ids AS uuid[])) WITH ORDINALITY AS n (id, place)
), found AS MATERIALIZED (
    SELECT c.id, c.embedding IS NULL AS waits FROM rag_chunks c
    WHERE c.id = ANY(CAST(:ids AS uuid[])) ORDER BY c.id FOR NO KEY UPDATE
), stored AS (
    UPDATE rag_chunks c SET embedding = given.embedding, embedding_error = NULL
    FROM given JOIN found ON found.id = given.id AND found.waits
    WHERE c.id = given.id AND c.id = ANY(CAST(:ids AS uuid[]))
)
SELECT id, CASE WHEN waits THEN 'stored' ELSE 'kept' END AS fate FROM found
""").bindparams(sa.bindparam("embeddings", type_=EmbeddingArray()))
_SKIP = sa.text("""
WITH found AS MATERIALIZED (
    SELECT c.id FROM rag_chunks c
    WHERE c.id = ANY(CAST(:ids AS uuid[])) AND c.embedding IS NULL ORDER BY c.id FOR NO KEY UPDATE
)
UPDATE rag_chunks c SET embedding_error = n.reason
FROM unnest(CAST(:ids AS uuid[]), CAST(:reasons AS text[])) AS n (id, reason) JOIN found ON found.id = n.id
WHERE c.id = n.id AND c.id = ANY(CAST(:ids AS uuid[]))
""")
