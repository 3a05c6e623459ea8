"""The publication of a planned version, in one short transaction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from ragschema.database.sqlstates import is_serialization_failure
from ragschema.embeddings.column_type import EmbeddingArray
from ragschema.embeddings.wire import Vector
from ragschema.models import ChunkEventType
from ragschema.publishing.document_locks import lock_as_planned, point_at, stale
from ragschema.publishing.errors import StalePlan
from ragschema.publishing.given_embeddings import Embeddings, collect
from ragschema.publishing.transactions import check_atomic, connection_of
from ragschema.publishing.version_plan import VersionPlan
from ragschema.publishing.version_rows import version_rows
from ragschema.schema.base import Executor
from ragschema.schema.ids import uuid7


@dataclass(frozen=True)
class PublishedVersion:
    """A version that is current now.

    Attributes:
        id: Of the version.
        document_id: Of its document.
        version_number: Its number.
        is_new: False where the plan was up to date, so that no version was written.
        added: Chunks that the version before had not; likewise the other three.
    """

    id: UUID
    document_id: UUID
    version_number: int
    is_new: bool
    added: int
    updated: int
    unchanged: int
    deleted: int
    embedded: int = 0
    """Rows that waited for their embedding and got it now."""


def publish(
    session: Executor, plan: VersionPlan, embeddings: Embeddings = (), *, copy_unchanged: bool = False
) -> PublishedVersion:
    """Write a planned version and make it the current one, in the caller's transaction. Does not commit.

    Takes three statements, and locks the document's row until the transaction ends: commit soon. Writes the
    version, the chunks that are new, one event for each chunk, and is_current; right without the database's
    triggers. Nothing of the session is flushed, and its objects keep what they had loaded until it commits.

    Args:
        session: A session or connection. In async code: ``await session.run_sync(publish, plan, embeddings)``.
        plan: By `plan_version`.
        embeddings: Of ``plan.texts_to_embed``: a sequence or array in their order, or a mapping by text. Each of
            shape ``(dimension,)``, or None for one to come: `pending_embeddings` lists its chunk. A mapping may hold
            more: of texts whose rows wait for their embedding, it fills these in.
        copy_unchanged: Whether unchanged chunks are copied on the server, embedding included, so that each
            version has rows of its own: for readers that look for chunks by version_id.

    Raises:
        EmbeddingError: One is missing, or cannot be stored. Nothing was sent.
        PublishingError: The connection is in autocommit mode.
        StalePlan: Somebody else has published, activated, pruned or purged meanwhile. Nothing was written.
    """
    slots, vectors = collect(plan, embeddings)
    check_atomic(session, "publish")
    try:
        return _publish(session, plan, slots, vectors, copy_unchanged=copy_unchanged)
    except DBAPIError as exc:
        if is_serialization_failure(exc):  # in REPEATABLE READ or SERIALIZABLE, which see no newer version
            raise StalePlan(
                f"Article {plan.article_id!r} was changed by another transaction since this one began.",
                "Roll back, plan again and publish that.",
            ) from exc
        raise


def _publish(
    session: Executor, plan: VersionPlan, slots: Mapping[str, int], vectors: Vector, *, copy_unchanged: bool
) -> PublishedVersion:
    document = lock_as_planned(session, plan)
    if plan.is_up_to_date:
        assert plan.base_version_id is not None
        filled = _fill(session, plan, slots, vectors)
        number = plan.base_version_number
        return _published(plan, plan.base_version_id, document.id, number, is_new=False, embedded=filled)
    version_id = uuid7()
    written = (
        connection_of(session)
        .execute(
            _WRITE,
            {
                "version_id": version_id,
                "document_id": document.id,
                "source_hash": plan.source_hash,
                "chunker_version": plan.chunker_version,
                "embedder_version": plan.embedder_version,
                "title": plan.title,
                "url": plan.url,
                "text_config": document.text_config,
                "embeddings": vectors,
                "dimension": vectors.shape[1],
                **version_rows(plan, slots, copy_unchanged=copy_unchanged),
            },
        )
        .one_or_none()
    )
    if written is None:
        raise stale(session, plan, "rows that it reuses have been pruned, or a version was added to it")
    point_at(session, document.id, version_id)
    number, embedded = written
    return _published(plan, version_id, document.id, number, is_new=True, embedded=embedded)


def _fill(session: Executor, plan: VersionPlan, slots: Mapping[str, int], vectors: Vector) -> int:
    """Give the rows of a version that is current already the embeddings they wait for; return how many."""
    rows = version_rows(plan, slots, copy_unchanged=False)
    if not rows["filled_ids"]:
        return 0
    parameters = {name: rows[name] for name in ("filled_ids", "filled_slots", "filled_sources")}
    parameters |= {"embeddings": vectors, "dimension": vectors.shape[1]}
    return connection_of(session).execute(_FILL, parameters).rowcount


_GIVEN = (
    "CAST((CAST(:embeddings AS real[]))"
    "[n.slot * CAST(:dimension AS integer) + 1 : (n.slot + 1) * CAST(:dimension AS integer)] AS vector)"
)
# Row by row, by its key, as the rows to update are found by the array of their ids besides the join: a join alone
# reads all chunks where averages let many be expected.
_KEPT = "(SELECT s.embedding FROM rag_chunks s WHERE s.id = n.source)"
# The document's row is locked before: this statement sees all that the lock had to wait for. The document is
# pointed at the version in a statement after it, or its triggers would look at each version twice.
_WRITE = sa.text(f"""
WITH version AS (
    INSERT INTO rag_document_versions
        (id, document_id, version_number, source_hash, chunker_version, embedder_version, title, url)
    SELECT CAST(:version_id AS uuid), CAST(:document_id AS uuid), coalesce(max(version_number), 0) + 1,
        CAST(:source_hash AS text), CAST(:chunker_version AS text), CAST(:embedder_version AS text),
        CAST(:title AS text), CAST(:url AS text)
    FROM rag_document_versions WHERE document_id = :document_id
    HAVING (SELECT count(*) FROM rag_chunks WHERE id = ANY(CAST(:needed AS uuid[])))
        = cardinality(CAST(:needed AS uuid[]))
    ON CONFLICT (document_id, version_number) DO NOTHING
    RETURNING id, version_number
), chunks AS (
    INSERT INTO rag_chunks (id, version_id, ordinal, content, embedding, is_current, text_config)
    SELECT n.id, version.id, n.ordinal, n.content,
        CASE WHEN n.slot IS NULL THEN {_KEPT} ELSE {_GIVEN} END,
        true, CAST(:text_config AS text)
    FROM version, unnest(
        CAST(:new_ids AS uuid[]), CAST(:new_ordinals AS integer[]), CAST(:new_contents AS text[]),
        CAST(:new_slots AS integer[]), CAST(:new_sources AS uuid[])
    ) AS n (id, ordinal, content, slot, source)
), marked AS (
    -- not with the next: to assign an embedding, even its own, is to write it anew
    UPDATE rag_chunks c
    SET is_current = n.is_current,
        text_config = CASE WHEN n.is_current THEN :text_config ELSE c.text_config END
    FROM version, unnest(CAST(:marked_ids AS uuid[]), CAST(:marked_current AS boolean[])) AS n (id, is_current)
    WHERE c.id = n.id AND c.id = ANY(CAST(:marked_ids AS uuid[]))
    AND (c.is_current <> n.is_current OR n.is_current AND c.text_config <> :text_config)
), filled AS (
    UPDATE rag_chunks c
    SET is_current = true,
        text_config = :text_config,
        embedding = coalesce(c.embedding, x.embedding)
    FROM (
        SELECT n.id, CASE WHEN n.slot IS NULL THEN {_KEPT} ELSE {_GIVEN} END AS embedding,
            (SELECT w.embedding IS NULL FROM rag_chunks w WHERE w.id = n.id) AS waited
        FROM version, unnest(
            CAST(:filled_ids AS uuid[]), CAST(:filled_slots AS integer[]), CAST(:filled_sources AS uuid[])
        ) AS n (id, slot, source)
        ) x
    WHERE c.id = x.id AND c.id = ANY(CAST(:filled_ids AS uuid[])) AND (
        NOT c.is_current OR c.text_config <> :text_config OR c.embedding IS NULL AND x.embedding IS NOT NULL
    )
    RETURNING x.embedding IS NOT NULL AS is_embedded, x.waited
), events AS (
    INSERT INTO rag_chunk_events (id, version_id, chunk_id, ordinal, event_type)
    SELECT e.id, version.id, e.chunk_id, e.ordinal, e.event_type
    FROM version, unnest(
        CAST(:event_ids AS uuid[]), CAST(:event_chunk_ids AS uuid[]), CAST(:event_ordinals AS integer[]),
        CAST(CAST(:event_types AS text[]) AS chunk_event_type[])  -- a prepared enum is one schema's
    ) AS e (id, chunk_id, ordinal, event_type)
)
SELECT version_number, (SELECT count(*) FROM filled WHERE waited AND is_embedded) FROM version
""").bindparams(sa.bindparam("embeddings", type_=EmbeddingArray()))
_FILL = sa.text(f"""
UPDATE rag_chunks c SET embedding = x.embedding
FROM (
    SELECT n.id, CASE WHEN n.slot IS NULL THEN {_KEPT} ELSE {_GIVEN} END AS embedding
    FROM unnest(
        CAST(:filled_ids AS uuid[]), CAST(:filled_slots AS integer[]), CAST(:filled_sources AS uuid[])
    ) AS n (id, slot, source)
) x
WHERE c.id = x.id AND c.id = ANY(CAST(:filled_ids AS uuid[])) AND c.embedding IS NULL AND x.embedding IS NOT NULL
""").bindparams(sa.bindparam("embeddings", type_=EmbeddingArray()))


def _published(
    plan: VersionPlan, version_id: UUID, document_id: UUID, number: int, *, is_new: bool, embedded: int
) -> PublishedVersion:
    counts = {event_type.value: plan.count(event_type) for event_type in ChunkEventType}
    return PublishedVersion(version_id, document_id, number, is_new, embedded=embedded, **counts)
