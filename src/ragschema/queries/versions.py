"""Contents of versions, the history of chunks, and those that wait for an embedding."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any, TypeAlias
from uuid import UUID

from sqlalchemy import (
    BindParameter,
    ClauseElement,
    ColumnElement,
    Select,
    SelectBase,
    SmallInteger,
    Subquery,
    Text,
    Uuid,
    bindparam,
    case,
    cast,
    func,
    literal,
    literal_column,
    null,
    select,
    true,
    tuple_,
    type_coerce,
    union_all,
)
from sqlalchemy.orm import aliased

from ragschema.models import Chunk, ChunkEvent, ChunkEventType, Document, DocumentVersion
from ragschema.queries.arguments import QueryError, built_once, checked_count, checked_id, row_count
from ragschema.queries.collections import collection_values, is_collected, is_version_collected
from ragschema.queries.composable import composable
from ragschema.queries.filters import IS_LISTED
from ragschema.queries.model_choice import refused_model
from ragschema.queries.planner_hints import ONE_BY_ONE, READING_COSTS, is_one
from ragschema.schema.embedding_models import COLUMN_MODEL, ChunkEmbedding, EmbeddingModel
from ragschema.values import check_text

VersionChunk: TypeAlias = Select[UUID, int, str, int | None, int | None, dict[str, Any] | None]

VERSION_ID: BindParameter[UUID] = bindparam("rag_version_id", type_=Uuid())


def manifest(version: BindParameter[UUID]) -> Subquery:
    """Return what a version consists of: chunk_id, ordinal and content, start_offset, end_offset and details.

    These are its events other than ``deleted``; for a version without any event, the chunks that were written
    with it.
    """
    chunk = (
        select(Chunk.id, Chunk.ordinal, Chunk.content)
        .where(Chunk.id == ChunkEvent.chunk_id)
        .offset(ONE_BY_ONE)
        .lateral("chunk")
    )
    listed = (
        select(
            chunk.c.id.label("chunk_id"),
            func.coalesce(ChunkEvent.ordinal, chunk.c.ordinal).label("ordinal"),
            chunk.c.content,
            ChunkEvent.start_offset,
            ChunkEvent.end_offset,
            ChunkEvent.details.label("details"),
        )
        .join(chunk, true())
        .where(is_one(ChunkEvent.version_id, version), IS_LISTED)
    )
    first = (  # in order, or the table is read until a first one is met
        select(ChunkEvent.id)
        .where(is_one(ChunkEvent.version_id, version))
        .order_by(ChunkEvent.version_id)
        .limit(literal_column("1"))
        .correlate(None)
        .scalar_subquery()
    )
    unknown = (null().cast(column.type) for column in (ChunkEvent.start_offset, ChunkEvent.end_offset))
    written = select(
        Chunk.id, Chunk.ordinal, Chunk.content, *unknown, null().cast(ChunkEvent.details.type)
    ).where(is_one(Chunk.version_id, version), first.is_(None))
    return union_all(listed, written).subquery("manifest")


def version_chunks(version_id: UUID, *, collection_ids: Collection[UUID] | None = None) -> VersionChunk:
    """Select the chunks of a version in order, those that it shares with older versions included.

    Args:
        version_id: The version.
        collection_ids: Nothing where its document is in none of these collections.

    Returns:
        A statement of rows ``(chunk_id, ordinal, content, start_offset, end_offset, details)``: where the chunk stands
        in this version's source, the offsets in characters; None where nobody said.

    Raises:
        QueryError: The collections are one value, or no UUIDs.
    """
    values = {VERSION_ID.key: checked_id("version_id", version_id), **collection_values(collection_ids)}
    return _version_chunks(by_collection=collection_ids is not None).params(values)


@built_once
def _version_chunks(*, by_collection: bool) -> VersionChunk:
    listed = manifest(VERSION_ID)
    chunks = select(*listed.c)
    if by_collection:
        chunks = chunks.where(is_version_collected(VERSION_ID))
    return composable(chunks.order_by(listed.c.ordinal, listed.c.chunk_id))


def chunk_history(
    article_id: str, *, collection_ids: Collection[UUID] | None = None
) -> Select[UUID, int, datetime, ChunkEventType, int | None, UUID | None, str | None]:
    """Select what each version of a document did to its chunks, oldest version first, by ordinal within it.

    Args:
        article_id: The document.
        collection_ids: Nothing where it is in none of these collections.

    Returns:
        A statement of rows ``(version_id, version_number, created_at, event_type, ordinal, chunk_id, content)``;
        created_at is the version's. A deleted chunk that is gone has neither id nor content.

    Raises:
        QueryError: The collections are one value, or no UUIDs; or no document could have the article id.
    """
    if not isinstance(article_id, ClauseElement):
        check_text("article_id", article_id, QueryError)
    version = (
        select(DocumentVersion.id, DocumentVersion.version_number, DocumentVersion.created_at)
        .where(is_one(DocumentVersion.document_id, Document.id))
        .offset(ONE_BY_ONE)
        .lateral("version")
    )
    event = (
        select(ChunkEvent.id, ChunkEvent.event_type, ChunkEvent.ordinal, ChunkEvent.chunk_id)
        .where(is_one(ChunkEvent.version_id, version.c.id))
        .offset(ONE_BY_ONE)
        .lateral("event")
    )
    history = (
        select(
            version.c.id.label("version_id"),
            version.c.version_number,
            version.c.created_at,
            # through text: a prepared statement keeps the type that one schema has
            type_coerce(cast(event.c.event_type, Text), ChunkEvent.event_type.type).label("event_type"),
            event.c.ordinal,
            event.c.chunk_id,
            select(Chunk.content).where(Chunk.id == event.c.chunk_id).scalar_subquery().label("content"),
        )
        .select_from(Document)
        .join(version, true())
        .join(event, true())
        .where(Document.article_id == article_id)
        .order_by(version.c.version_number, event.c.ordinal, event.c.event_type.desc(), event.c.id)
    )
    if collection_ids is not None:
        history = history.where(is_collected(Document.id)).params(collection_values(collection_ids))
    return composable(history)


def pending_embeddings(
    *,
    limit: int = 100,
    after: UUID | None = None,
    model: str | EmbeddingModel | None = None,
    collection_ids: Collection[UUID] | None = None,
) -> Select[UUID, str, str, str]:
    """Select current chunks that wait for a model's embedding.

    The oldest first where the model's embeddings are the column, by their ids where they have a partition. Those of
    which `skip_embeddings` has said that they will have none are left out.

    Args:
        limit: Rows to return at most.
        after: The last chunk of the page before; where that is gone, pages of the column begin anew.
        model: The model: its key, or the model itself; the active one by default, as it is when the statement runs.
            A key that is unknown, or of a model that is retired, is an error of the statement (SQLSTATE RS001).
        collection_ids: Only chunks of documents in one of these collections.

    Returns:
        A statement of rows ``(chunk_id, article_id, embedder_version, content)``.

    Raises:
        QueryError: The limit is below 1, or the collections are one value, or no UUIDs.
    """
    if isinstance(model, str):
        check_text("model", model, QueryError)
    elif model is not None and not isinstance(model, EmbeddingModel):
        raise QueryError(f"model is {type(model).__name__}.", "Pass its key, or an EmbeddingModel.")
    after = None if after is None else checked_id("after", after)
    collections = collection_values(collection_ids)
    wanted = is_version_collected(Chunk.version_id) if collections else true()
    rows = row_count(checked_count("limit", limit))
    waiting: SelectBase
    own: ColumnElement[int]
    if isinstance(model, EmbeddingModel):
        own = literal(model.id, SmallInteger())
        waiting = (
            _waiting_in_column(rows, after, wanted)
            if model.id == COLUMN_MODEL
            else _waiting_in_partition(own, rows, after, wanted)
        )
    else:
        asked = select((_active_model() if model is None else _model_of(model)).label("id")).cte("asked")
        own = select(asked.c.id).scalar_subquery()
        waiting = union_all(
            select(
                _waiting_in_column(rows, after, wanted)
                .where(own == literal_column(str(COLUMN_MODEL)))
                .subquery("column_waits")
            ),
            select(_waiting_in_partition(own, rows, after, wanted).subquery("partition_waits")),
        )
    first = waiting.subquery("first")
    chunk = (
        select(Document.article_id, DocumentVersion.embedder_version, Chunk.content)
        .select_from(Chunk)
        .join(DocumentVersion, DocumentVersion.id == Chunk.version_id)
        .join(Document, Document.id == DocumentVersion.document_id)
        .where(Chunk.id == first.c.id)
        .offset(ONE_BY_ONE)
        .lateral("chunk")
    )
    pending = (
        select(first.c.id.label("chunk_id"), chunk.c.article_id, chunk.c.embedder_version, chunk.c.content)
        .join(chunk, true())
        .order_by(first.c.waits_since, first.c.id)
        .params(collections)
    )
    return composable(pending)


def _waiting_in_column(
    rows: BindParameter[int], after: UUID | None, wanted: ColumnElement[bool]
) -> Select[UUID, datetime]:
    waiting = (
        select(Chunk.id, Chunk.created_at.label("waits_since"))
        .where(
            Chunk.is_current,
            Chunk.embedding.is_(None),
            Chunk.embedding_error.is_(None),
            READING_COSTS,
            wanted,
        )
        .order_by(Chunk.created_at, Chunk.id)
        .limit(rows)
    )
    if after is None:
        return waiting
    last = aliased(Chunk, name="last")
    seen = select(last.created_at).where(last.id == after).scalar_subquery()
    return waiting.where(
        tuple_(Chunk.created_at, Chunk.id) > tuple_(func.coalesce(seen, literal_column("'-infinity'")), after)
    )


def _waiting_in_partition(
    model_id: ColumnElement[int], rows: BindParameter[int], after: UUID | None, wanted: ColumnElement[bool]
) -> Select[UUID, datetime | None]:
    embedded: Select[int] = select(literal_column("1")).where(
        ChunkEmbedding.chunk_id == Chunk.id, ChunkEmbedding.model_id == model_id
    )
    waiting = (
        select(Chunk.id, null().cast(Chunk.created_at.type).label("waits_since"))
        .where(Chunk.is_current, model_id > literal_column(str(COLUMN_MODEL)), wanted)
        .order_by(Chunk.id)
        .limit(rows)
    )
    if after is not None:
        waiting = waiting.where(Chunk.id > after)
        embedded = embedded.where(ChunkEmbedding.chunk_id > after)
    return waiting.where(~embedded.exists())


def _active_model() -> ColumnElement[int]:
    """Return the id of the active model; the column's where no model is registered."""
    active = (
        select(EmbeddingModel.id).where(EmbeddingModel.state == literal_column("'active'")).scalar_subquery()
    )
    column = case((~select(EmbeddingModel.id).exists(), literal_column(str(COLUMN_MODEL))))
    return func.coalesce(active, column)


def _model_of(key: str) -> ColumnElement[int]:
    """Return the id of a model by its key; run, it raises where none of that key is live."""
    named = select(EmbeddingModel).where(EmbeddingModel.key == key).subquery("named")
    one = select(literal_column("1")).subquery("one")
    own = (named.c.dimensions, named.c.distance, named.c.index_type)
    return (
        select(
            case(
                (named.c.state != literal_column("'retired'"), named.c.id),
                else_=refused_model(cast(key, Text), *own),
            )
        )
        .select_from(one.outerjoin(named, true()))
        .scalar_subquery()
    )
