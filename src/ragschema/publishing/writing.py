"""The publication of a planned version, in one short transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import numpy as np
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from ragschema.database.sqlstates import is_overtaken, is_reference_lost
from ragschema.embeddings.column_type import EMBEDDING_DIMENSION, EmbeddingArray
from ragschema.embeddings.half_column_type import HalfEmbeddingArray
from ragschema.models import ChunkEventType
from ragschema.publishing.document_locks import lock_as_planned, model_gone, point_at, stale
from ragschema.publishing.errors import StalePlan
from ragschema.publishing.given_embeddings import Embeddings, Given, ModelEmbeddings, collect
from ragschema.publishing.live_models import GONE_MODELS, has_no_partition
from ragschema.publishing.transactions import check_atomic, connection_of
from ragschema.publishing.version_plan import VersionPlan
from ragschema.publishing.version_rows import embedding_rows, version_rows
from ragschema.publishing.visibility import show_version, unmark_deleted
from ragschema.schema.base import Executor
from ragschema.schema.ids import uuid7

NO_VECTORS = np.empty((0, EMBEDDING_DIMENSION), np.float32)


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
    """Embeddings that rows waited for and have now, of all models."""
    undeleted: bool = False
    """Whether the document was deleted, and search finds it again."""


def publish(
    session: Executor,
    plan: VersionPlan,
    embeddings: Embeddings | None = (),
    *,
    model_embeddings: ModelEmbeddings | None = None,
    copy_unchanged: bool = False,
) -> PublishedVersion:
    """Write a planned version and make it the current one, in the caller's transaction. Does not commit.

    Takes three statements, or four where embeddings of another model than the column's are stored, and locks the
    document's row until the transaction ends: commit soon. Writes the version, the chunks that are new, one event
    for each chunk, and is_current; right without the database's triggers. Nothing of the session is flushed, and
    its objects keep what they had loaded until it commits.

    Args:
        session: A session or connection. In async code: ``await session.run_sync(publish, plan, embeddings)``.
        plan: By `plan_version`.
        embeddings: Of ``plan.texts_to_embed``: a sequence or array in their order, or a mapping by text. Each of
            shape ``(dimension,)``, or None for one to come: `pending_embeddings` lists its chunk. A mapping may hold
            more: of texts whose rows wait for their embedding, it fills these in. None: all are to come.
        model_embeddings: Those of any live model by its key, in the same forms; here a mapping may lack texts of a
            model that is not active. What is not given stays pending for that model, and searches by the others
            do not see it. A service that embeds by a model of its own passes them here, whichever model is active,
            and ``embeddings=None``.
        copy_unchanged: Whether unchanged chunks are copied on the server, embedding included, so that each
            version has rows of its own: for readers that look for chunks by version_id.

    Raises:
        DocumentDeleted: The document is deleted, and the plan does not undelete it. Nothing was written.
        EmbeddingError: One is missing, is of another dimension than its model's, or cannot be stored; or a model is
            not live. Nothing was sent.
        PublishingError: The connection is in autocommit mode.
        StalePlan: Somebody else has published, activated, pruned or purged meanwhile, or has dropped a model that
            the plan embeds by. Nothing was written.
    """
    given = collect(plan, embeddings, model_embeddings)
    check_atomic(session, "publish")
    try:
        return _publish(session, plan, given, copy_unchanged=copy_unchanged)
    except DBAPIError as exc:
        # ended by a deadlock; in REPEATABLE READ, which sees no newer version; or somebody hid a chunk without a lock
        if is_overtaken(exc) or is_reference_lost(exc):
            raise StalePlan(
                f"Article {plan.article_id!r} was changed by another transaction since this one began.",
                "Roll back, plan again and publish that.",
            ) from exc
        raise


def _publish(
    session: Executor, plan: VersionPlan, given: Sequence[Given], *, copy_unchanged: bool
) -> PublishedVersion:
    document = lock_as_planned(session, plan)
    if undeleted := document.deleted_at is not None:
        unmark_deleted(session, document.id)
    rows = version_rows(plan, given, copy_unchanged=copy_unchanged and not plan.is_up_to_date)
    vectors = next((each.vectors for each in given if each.needs.model.is_column), NO_VECTORS)
    rows |= {"embeddings": vectors, "dimension": vectors.shape[1]}
    chunk_ids = rows["event_chunk_ids"][: len(plan.places)]
    of_models = embedding_rows(plan, given, chunk_ids, document.half_oid)
    if plan.is_up_to_date:
        assert plan.base_version_id is not None
        if undeleted:
            show_version(session, document.id, plan.base_version_id, document.text_config)
        filled = _fill(session, rows) + _embed(session, plan, of_models)
        number = plan.base_version_number
        return _published(
            plan,
            plan.base_version_id,
            document.id,
            number,
            is_new=False,
            embedded=filled,
            undeleted=undeleted,
        )
    version_id = uuid7()
    described = {
        "version_id": version_id,
        "document_id": document.id,
        "source_hash": plan.source_hash,
        "chunker_version": plan.chunker_version,
        "embedder_version": plan.embedder_version,
        "title": plan.title,
        "url": plan.url,
        "text_config": document.text_config,
    }
    written = connection_of(session).execute(_WRITE, described | rows).one_or_none()
    if written is None:
        raise stale(session, plan, "rows that it reuses have been pruned, or a version was added to it")
    number, embedded = written
    embedded += _embed(session, plan, of_models)
    point_at(session, document.id, version_id, plan_cache_mode=document.plan_cache_mode)
    return _published(
        plan, version_id, document.id, number, is_new=True, embedded=embedded, undeleted=undeleted
    )


def _fill(session: Executor, rows: Mapping[str, Any]) -> int:
    """Give the rows of a version that is current already the embeddings they wait for; return how many."""
    if not rows["filled_ids"]:
        return 0
    names = ("filled_ids", "filled_slots", "filled_sources", "embeddings", "dimension")
    return connection_of(session).execute(_FILL, {name: rows[name] for name in names}).rowcount


def _embed(session: Executor, plan: VersionPlan, rows: Mapping[str, Any]) -> int:
    """Store the embeddings of models that have a partition; return how many rows waited for theirs."""
    if not rows:
        return 0
    try:
        return connection_of(session).execute(_EMBED, rows).scalar_one()  # type: ignore[no-any-return]
    except DBAPIError as exc:
        if has_no_partition(exc):
            raise model_gone(plan, ()) from exc
        raise


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
        = cardinality(CAST(:needed AS uuid[])) AND NOT EXISTS ({GONE_MODELS})
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
AND NOT EXISTS (SELECT FROM rag_embedding_models WHERE id = 1 AND state = 'retired')
""").bindparams(sa.bindparam("embeddings", type_=EmbeddingArray()))
# The chunks' rows have been locked and marked before, and these are written in the order of their keys, as workers
# write theirs: whoever waits here for another one's row is not waited for.
_EMBED = sa.text("""
WITH stored AS (
    INSERT INTO rag_chunk_embeddings AS e (chunk_id, model_id, embedding, is_current)
    SELECT n.chunk_id, n.model_id, n.embedding, (SELECT c.is_current FROM rag_chunks c WHERE c.id = n.chunk_id)
    FROM (
        SELECT * FROM unnest(
            CAST(:sent_ids AS uuid[]), CAST(:sent_models AS smallint[]), :embeddings
        ) AS s (chunk_id, model_id, embedding)
        UNION ALL
        SELECT k.chunk_id, k.model_id, (
            SELECT s.embedding FROM rag_chunk_embeddings s WHERE s.chunk_id = k.source AND s.model_id = k.model_id
        )
        FROM unnest(
            CAST(:kept_ids AS uuid[]), CAST(:kept_models AS smallint[]), CAST(:kept_sources AS uuid[])
        ) AS k (chunk_id, model_id, source)
    ) n
    WHERE n.embedding IS NOT NULL
    ORDER BY n.model_id, n.chunk_id
    ON CONFLICT (chunk_id, model_id) DO UPDATE SET embedding = excluded.embedding, embedding_error = NULL
    WHERE e.embedding IS NULL
    RETURNING e.chunk_id
)
SELECT count(*) FROM stored WHERE chunk_id = ANY(CAST(:reused_ids AS uuid[]))
""").bindparams(sa.bindparam("embeddings", type_=HalfEmbeddingArray()))


def _published(
    plan: VersionPlan,
    version_id: UUID,
    document_id: UUID,
    number: int,
    *,
    is_new: bool,
    embedded: int,
    undeleted: bool,
) -> PublishedVersion:
    counts = {event_type.value: plan.count(event_type) for event_type in ChunkEventType}
    return PublishedVersion(
        version_id, document_id, number, is_new, embedded=embedded, undeleted=undeleted, **counts
    )
