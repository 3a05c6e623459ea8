"""Embeddings that come later: stored row by row, or given up with the reason."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.exc import DBAPIError

from ragschema.embeddings.column_type import EmbeddingArray, EmbeddingError
from ragschema.embeddings.half_column_type import HalfEmbeddingArray
from ragschema.embeddings.wire import EmbeddingLike, HalfVectors, Vector
from ragschema.publishing.errors import ContentError
from ragschema.publishing.live_models import half_oid, has_no_partition, read_live_models
from ragschema.publishing.transactions import connection_of
from ragschema.schema.base import Executor
from ragschema.schema.embedding_models import EmbeddingModel
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
        busy: Not written: somebody is publishing, pruning or purging the chunk just now. It still waits, unless that
            makes it history. Of the model that is the column none is, because its rows are waited for.
    """

    stored: tuple[UUID, ...]
    kept: tuple[UUID, ...]
    gone: tuple[UUID, ...]
    refused: Mapping[UUID, str]
    busy: tuple[UUID, ...] = ()


def store_embeddings(
    session: Executor,
    chunk_ids: Sequence[UUID],
    embeddings: Sequence[EmbeddingLike] | NDArray[Any],
    model: str | EmbeddingModel | None = None,
    *,
    replace: bool = False,
) -> StoredEmbeddings:
    """Store the embeddings of chunks that wait for theirs, in two statements of the caller's transaction.

    One that cannot be stored does not undo the others: the result says of each chunk what became of it. Chunks
    are written in the order of their ids, so that two workers wait for each other rather than deadlock. Commit soon:
    until then whoever publishes one of these chunks waits.

    Args:
        session: A session or connection.
        chunk_ids: Of `pending_embeddings`.
        embeddings: Theirs, in the same order, each of shape ``(dimension,)``.
        model: The model that embedded them: its key, or the model itself; the active one by default. Name it where
            another one may become active meanwhile.
        replace: Whether to store also what a chunk has already, in place of it: where the model embeds the same text
            otherwise than it did. A row that is written costs its place in the index, also if it says the same.

    Raises:
        EmbeddingError: There are not as many embeddings as chunks, or no such model is live. Nothing was stored.
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
    models = read_live_models(session)
    target = models.find(model)
    checked: dict[UUID, Vector] = {}
    refused: dict[UUID, str] = {}
    for chunk_id, value in zip(ids, given, strict=True):
        try:
            checked[chunk_id] = target.check(value)
        except EmbeddingError as exc:
            refused[chunk_id] = exc.message
    fates: dict[UUID, str] = {}
    if checked:
        order = sorted(checked)
        vectors = np.array([checked[chunk_id] for chunk_id in order])
        statement, parameters = _STORE, {"embeddings": vectors, "dimension": vectors.shape[1]}
        if not target.is_column:
            halves = HalfVectors(half_oid(connection_of(session)), [vectors])
            statement, parameters = _STORE_OF_MODEL, {"embeddings": halves, "model_id": target.id}
        try:
            rows = connection_of(session).execute(
                statement, {"ids": order, "replaces": bool(replace), **parameters}
            )
        except DBAPIError as exc:
            if not has_no_partition(exc):
                raise
            raise EmbeddingError(
                f"Embedding model {target.key!r} has been dropped meanwhile.",
                "Roll back: there is nothing to store.",
            ) from exc
        fates = {row.id: row.fate for row in rows}
    by_fate = {
        fate: tuple(each for each in checked if fates.get(each, "gone") == fate)
        for fate in ("stored", "kept", "gone", "busy")
    }
    return StoredEmbeddings(**by_fate, refused=refused)


def skip_embeddings(
    session: Executor, reasons: Mapping[UUID, str], model: str | EmbeddingModel | None = None
) -> int:
    """Say of chunks why they will not be embedded; return of how many that holds now. They wait no more.

    An embedding that comes all the same, by `store_embeddings` or with a later version, takes the reason away. A
    chunk that somebody is publishing just now is not counted and waits on, but for the model that is the column,
    whose rows are waited for.

    Args:
        session: A session or connection; in the caller's transaction.
        reasons: By chunk.
        model: The model that will not embed them; as of `store_embeddings`.

    Raises:
        ContentError: A reason is no text that can be stored.
        EmbeddingError: No such model is live.
    """
    if not isinstance(reasons, Mapping):
        raise ContentError(
            f"reasons is {type(reasons).__name__}, not a dict.", "Pass reasons={chunk_id: why}."
        )
    several("reasons", reasons, ContentError, each=UUID)
    for chunk_id, reason in reasons.items():
        check_text(f"The reason of chunk {chunk_id}", reason, ContentError)
    target = read_live_models(session).find(model)
    order: Collection[UUID] = sorted(reasons)
    parameters = {"ids": list(order), "reasons": [reasons[each] for each in order]}
    if target.is_column:
        return connection_of(session).execute(_SKIP, parameters).rowcount
    return connection_of(session).execute(_SKIP_OF_MODEL, parameters | {"model_id": target.id}).rowcount


# Locked in the order of ids, whatever order the join hands them over in.
_STORE = sa.text("""
WITH given AS MATERIALIZED (
    SELECT n.id, CAST((CAST(:embeddings AS real[]))
        [(n.place - 1) * CAST(:dimension AS integer) + 1 : n.place * CAST(:dimension AS integer)] AS vector)
        AS embedding
    FROM unnest(CAST(:ids AS uuid[])) WITH ORDINALITY AS n (id, place)
), found AS MATERIALIZED (
    SELECT c.id, c.embedding IS NULL OR CAST(:replaces AS boolean) AS is_written FROM rag_chunks c
    WHERE c.id = ANY(CAST(:ids AS uuid[]))
    AND NOT EXISTS (SELECT FROM rag_embedding_models WHERE id = 1 AND state = 'retired')  -- since it was looked up
    ORDER BY c.id FOR NO KEY UPDATE
), stored AS (
    UPDATE rag_chunks c SET embedding = given.embedding, embedding_error = NULL
    FROM given JOIN found ON found.id = given.id AND found.is_written
    WHERE c.id = given.id AND c.id = ANY(CAST(:ids AS uuid[]))
)
SELECT id, CASE WHEN is_written THEN 'stored' ELSE 'kept' END AS fate FROM found
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
# The lock keeps is_current as it is until the transaction ends, and waits for nobody: a worker that waited for a
# publisher while that one waited for it would be a deadlock.
_FOUND = """
WITH found AS MATERIALIZED (
    SELECT c.id, c.is_current FROM rag_chunks c
    WHERE c.id = ANY(CAST(:ids AS uuid[])) ORDER BY c.id FOR KEY SHARE SKIP LOCKED
)
"""
_STORE_OF_MODEL = sa.text(f"""
{_FOUND}, stored AS (
    INSERT INTO rag_chunk_embeddings AS e (chunk_id, model_id, embedding, is_current)
    SELECT found.id, CAST(:model_id AS smallint), n.embedding, found.is_current
    FROM unnest(CAST(:ids AS uuid[]), :embeddings) AS n (id, embedding) JOIN found ON found.id = n.id
    ORDER BY found.id
    ON CONFLICT (chunk_id, model_id) DO UPDATE SET embedding = excluded.embedding, embedding_error = NULL
    WHERE e.embedding IS NULL OR CAST(:replaces AS boolean)
    RETURNING e.chunk_id
), fates AS (
    SELECT chunk_id AS id, 3 AS fate FROM stored
    UNION ALL SELECT id, 2 FROM found
    UNION ALL SELECT id, 1 FROM rag_chunks WHERE id = ANY(CAST(:ids AS uuid[]))
)
SELECT id, (ARRAY['busy', 'kept', 'stored'])[max(fate)] AS fate FROM fates GROUP BY id
""").bindparams(sa.bindparam("embeddings", type_=HalfEmbeddingArray()))
_SKIP_OF_MODEL = sa.text(f"""
{_FOUND}
INSERT INTO rag_chunk_embeddings AS e (chunk_id, model_id, embedding_error, is_current)
SELECT found.id, CAST(:model_id AS smallint), n.reason, found.is_current
FROM unnest(CAST(:ids AS uuid[]), CAST(:reasons AS text[])) AS n (id, reason) JOIN found ON found.id = n.id
ORDER BY found.id
ON CONFLICT (chunk_id, model_id) DO UPDATE SET embedding_error = excluded.embedding_error
WHERE e.embedding IS NULL
RETURNING e.chunk_id  -- or Citus counts those too that are left as they are
""")
