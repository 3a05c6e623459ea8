"""The publication of a planned version, in one short transaction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import numpy as np
from sqlalchemy.exc import DBAPIError

from ragschema.database.sqlstates import is_overtaken, is_reference_lost
from ragschema.embeddings.column_type import EMBEDDING_DIMENSION
from ragschema.models import ChunkEventType
from ragschema.publishing.document_locks import lock_as_planned, model_gone, point_at, stale
from ragschema.publishing.errors import StalePlan
from ragschema.publishing.facts import FactChanges, planned_changes, settle_facts
from ragschema.publishing.given_embeddings import Embeddings, Given, ModelEmbeddings, collect
from ragschema.publishing.live_models import has_no_partition
from ragschema.publishing.memberships import join_planned
from ragschema.publishing.sources import Source
from ragschema.publishing.transactions import check_atomic, connection_of
from ragschema.publishing.version_plan import VersionPlan
from ragschema.publishing.version_rows import embedding_rows, location_rows, version_rows
from ragschema.publishing.version_writing import write_version
from ragschema.publishing.visibility import show_version, unmark_deleted
from ragschema.publishing.writing_statements import COUNT_TOKENS, EMBED, EXCUSE, FILL
from ragschema.schema.base import Executor

NO_SOURCE = Source()
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

    Takes three statements, one more each where embeddings of another model than the column's are stored, where reused
    chunks come with token counts, where the document joins collections, and where there is a graph; locks the
    document's row, and the facts that its chunks begin or cease to mention, until the transaction ends: commit soon.
    Writes the version, the chunks that are new, one event for each chunk, and is_current; right without the database's
    triggers. Nothing of the session is flushed, and its objects keep what they had loaded until it commits.

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
            the plan embeds by, or deleted a collection that the document was to join. Nothing was written.
    """
    published, changes = publish_unsettled(
        session, plan, embeddings, model_embeddings=model_embeddings, copy_unchanged=copy_unchanged
    )
    if changes:
        with _stale_where_overtaken(plan):
            settle_facts(session, [changes])
    return published


def publish_unsettled(
    session: Executor,
    plan: VersionPlan,
    embeddings: Embeddings | None,
    *,
    model_embeddings: ModelEmbeddings | None,
    copy_unchanged: bool = False,
) -> tuple[PublishedVersion, FactChanges]:
    """Publish a version as `publish` does, and leave to the caller what becomes of the facts that its chunks mention.

    Who publishes several in a transaction settles them at the end: their chunks are locked before any fact is.
    """
    given = collect(plan, embeddings, model_embeddings)
    check_atomic(session, "publish")
    with _stale_where_overtaken(plan):
        return _publish(session, plan, given, copy_unchanged=copy_unchanged)


@contextmanager
def _stale_where_overtaken(plan: VersionPlan) -> Iterator[None]:
    """Say that a plan is stale where the server says that another transaction was faster."""
    try:
        yield
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
) -> tuple[PublishedVersion, FactChanges]:
    document = lock_as_planned(session, plan)
    if undeleted := document.deleted_at is not None:
        unmark_deleted(session, document.id)
    join_planned(session, plan)
    rows = version_rows(plan, given, copy_unchanged=copy_unchanged and not plan.is_up_to_date)
    vectors = next((each.vectors for each in given if each.needs.model.is_column), NO_VECTORS)
    rows |= {"embeddings": vectors, "width": vectors.shape[1]}
    chunk_ids = rows["event_chunk_ids"][: len(plan.places)]
    of_models = embedding_rows(connection_of(session), plan, given, chunk_ids)
    if plan.is_up_to_date:
        assert plan.base_version_id is not None
        if undeleted:
            show_version(session, document.id, plan.base_version_id, document.text_config)
        filled = _fill(session, rows) + _embed(session, plan, of_models)
        number = plan.base_version_number
        published = _published(
            plan,
            plan.base_version_id,
            document.id,
            number,
            is_new=False,
            embedded=filled,
            undeleted=undeleted,
        )
        return published, FactChanges()
    described = {
        "document_id": document.id,
        "source_hash": plan.source_hash,
        "chunker_version": plan.chunker_version,
        "embedder_version": plan.embedder_version,
        "title": plan.title,
        "url": plan.url,
        "text_config": document.text_config,
        "metadata": plan.metadata,
        "base_id": plan.base_version_id,
        "has_source": plan.source is not None,
        **vars(plan.source or NO_SOURCE),
    }
    is_located = plan.is_located or bool(copy_unchanged)
    if is_located:
        rows |= location_rows(plan, rows)
    written = write_version(connection_of(session), described | rows, is_located=is_located)
    if written is None:
        raise stale(session, plan, "rows that it reuses have been pruned, or a version was added to it")
    number, embedded, hidden = written
    if embedded:
        connection_of(session).execute(EXCUSE, {"ids": rows["filled_ids"]})
    embedded += _embed(session, plan, of_models)
    _count_tokens(session, plan)
    has_facts = point_at(session, document.id, rows["version_id"], plan_cache_mode=document.plan_cache_mode)
    published = _published(
        plan, rows["version_id"], document.id, number, is_new=True, embedded=embedded, undeleted=undeleted
    )
    return published, planned_changes(plan, rows, hidden, undeleted=undeleted) if has_facts else FactChanges()


def _fill(session: Executor, rows: Mapping[str, Any]) -> int:
    """Give the rows of a version that is current already the embeddings they wait for; return how many."""
    if not rows["filled_ids"]:
        return 0
    names = ("filled_ids", "filled_slots", "filled_sources", "embeddings", "width")
    return connection_of(session).execute(FILL, {name: rows[name] for name in names}).rowcount


def _count_tokens(session: Executor, plan: VersionPlan) -> None:
    """Give reused rows the token counts that they lack."""
    counts = {
        place.chunk_id: place.location.token_count
        for place in plan.places
        if place.chunk_id is not None and place.location.token_count is not None
    }
    if counts:
        parameters = {"ids": [*counts], "token_counts": [*counts.values()]}
        connection_of(session).execute(COUNT_TOKENS, parameters)


def _embed(session: Executor, plan: VersionPlan, rows: Mapping[str, Any]) -> int:
    """Store the embeddings of models that have a partition; return how many rows waited for theirs."""
    if not rows:
        return 0
    try:
        return connection_of(session).execute(EMBED, rows).scalar_one()  # type: ignore[no-any-return]
    except DBAPIError as exc:
        if has_no_partition(exc):
            raise model_gone(plan, ()) from exc
        raise


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
