"""Filters of a search: which current chunks it may return, and where a hit stands now."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias
from uuid import UUID

from sqlalchemy import (
    BindParameter,
    Boolean,
    ColumnElement,
    FromClause,
    Select,
    SQLColumnExpression,
    any_,
    cast,
    func,
    literal_column,
    or_,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import aliased

from ragschema.json_text import write_object
from ragschema.models import Chunk, ChunkEvent, Document, DocumentVersion
from ragschema.queries.arguments import (
    ARTICLE_IDS,
    DOCUMENT_IDS,
    MAX_DISTANCE,
    METADATA,
    QueryError,
    checked_number,
)
from ragschema.queries.collections import collection_values, is_collected
from ragschema.queries.conditions import Condition, Where, find_condition
from ragschema.queries.planner_hints import ONE_BY_ONE, VERSION_OF_EVENT
from ragschema.values import several

Rows: TypeAlias = Select[*tuple[Any, ...]]

Origin = aliased(DocumentVersion, name="origin")
"""The version that a chunk was written with, the only way from a chunk to its document."""

IS_LISTED: ColumnElement[bool] = ChunkEvent.event_type != literal_column("'deleted'")
"""The predicate of the manifest's index: in a parameter, a generic plan could not tell."""


_METADATA_BYTES = 1_000_000  # many times what a version may have
_IS_CURRENT: ColumnElement[bool] = DocumentVersion.id == Document.current_version_id
_HAS_METADATA: ColumnElement[bool] = DocumentVersion.details.op("@>", return_type=Boolean())(
    cast(METADATA, JSONB)
)


@dataclass(frozen=True)
class Filters:
    """Which conditions a search has; their values are parameters.

    Attributes:
        by_article: Whether it is of documents by their ``article_id``.
        by_document: Whether it is of documents by their id.
        by_collection: Whether it is of documents that some collections hold.
        by_metadata: Whether it is of documents whose current version has some metadata.
        where: A condition of the caller's.
        falls_back: Whether something that the search is not told of may take rows away, so that the place of each
            chunk is read with it, and the exact search follows where rows are missing.
    """

    by_article: bool
    by_document: bool
    by_collection: bool
    by_metadata: bool
    where: Condition | None
    falls_back: bool

    @property
    def are_given(self) -> bool:
        return self.by_article or self.by_document or self.by_collection or self._are_of_versions

    @property
    def _are_of_versions(self) -> bool:
        return self.by_metadata or self.where is not None or self.falls_back

    def apply(self, statement: Rows, *, version_id: ColumnElement[UUID] | None = None) -> Rows:
        """Add to a statement over `Chunk` the conditions, and the joins that they need and no others.

        Args:
            statement: What they are added to.
            version_id: What a chunk's version is joined by; None: its column.
        """
        if not self.are_given:
            return statement
        statement = statement.join(
            Origin, Origin.id == (Chunk.version_id if version_id is None else version_id)
        )
        if self.by_document:
            statement = statement.where(_is_any(Origin.document_id, DOCUMENT_IDS))
        if self.by_collection:
            statement = statement.where(is_collected(Origin.document_id))
        if not self.by_article and not self._are_of_versions:
            return statement
        statement = statement.join(Document, Document.id == Origin.document_id)
        if self.by_article:
            statement = statement.where(_is_any(Document.article_id, ARTICLE_IDS))
        if not self._are_of_versions:
            return statement
        statement = statement.join(DocumentVersion, _IS_CURRENT)
        if self.by_metadata:
            statement = statement.where(_HAS_METADATA)
        return statement if self.where is None else statement.where(*self.where.parts)

    def passing_versions(self) -> Rows | None:
        """Return the current versions of the documents that pass; None where PostgreSQL's estimates are good enough.

        Of conditions by keys they are. What another condition lets through it guesses.
        """
        if not self._of_versions():
            return None
        versions = select(DocumentVersion.id.label("id")).join_from(Document, DocumentVersion, _IS_CURRENT)
        return versions.where(*self._of_versions(), *self._by_key())

    def origins(self) -> Rows | None:
        """Return the versions of the documents that pass, in which their chunks were written; None where all pass."""
        if not self._of_versions() and not self._by_key():
            return None
        versions = select(Origin.id.label("id")).join_from(
            Document, Origin, Origin.document_id == Document.id
        )
        if self._of_versions():
            versions = versions.join(DocumentVersion, _IS_CURRENT)
        return versions.where(*self._of_versions(), *self._by_key())

    def _of_versions(self) -> list[ColumnElement[bool]]:
        conditions = [] if self.where is None else self.where.of_documents()
        return [*conditions, _HAS_METADATA] if self.by_metadata else conditions

    def _by_key(self) -> list[ColumnElement[bool]]:
        conditions: list[ColumnElement[bool]] = []
        if self.by_article:
            conditions.append(Document.article_id == any_(ARTICLE_IDS))
        if self.by_document:
            conditions.append(Document.id == any_(DOCUMENT_IDS))
        if self.by_collection:
            conditions.append(is_collected(Document.id))
        return conditions

    def apply_to_chunks(self, statement: Rows) -> Rows:
        """Add to a statement over chunks of documents that pass what else the caller's condition asks of chunks."""
        conditions = [] if self.where is None else self.where.of_chunks()
        if not conditions:
            return statement
        statement = statement.join(Origin, Origin.id == Chunk.version_id)
        statement = statement.join(Document, Document.id == Origin.document_id)
        return statement.join(DocumentVersion, _IS_CURRENT).where(*conditions)


def _is_any(column: SQLColumnExpression[Any], values: BindParameter[Any]) -> ColumnElement[bool]:
    """Compare a column with an array parameter, in a way that keeps a prepared statement's plans apart.

    A generic plan takes any array for one of ten values, and would read the chunks of a thousand documents one by
    one (100 ms against 8). With a second condition, which is never true, it expects a third of all rows: so it
    is cheaper than a plan for the values only where these are many, and then it reads the vector index. In a plan
    for the values the second condition is gone.
    """
    return or_(column == any_(values), func.cardinality(values) < literal_column("0"))


def find_filters(
    article_ids: Collection[str] | None,
    document_ids: Collection[UUID] | None,
    collection_ids: Collection[UUID] | None,
    metadata: Mapping[str, Any] | None,
    where: Where | None,
    max_distance: float | None,
    *,
    falls_back: bool,
) -> tuple[Filters, dict[str, Any]]:
    """Return the filters that are given, and the values of their parameters and of the distance."""
    filters = Filters(
        by_article=article_ids is not None,
        by_document=document_ids is not None,
        by_collection=collection_ids is not None,
        by_metadata=metadata is not None,
        where=find_condition(where),
        falls_back=falls_back,
    )
    values = collection_values(collection_ids)
    if article_ids is not None:
        values[ARTICLE_IDS.key] = several("article_ids", article_ids, QueryError, each=str)
    if document_ids is not None:
        values[DOCUMENT_IDS.key] = several("document_ids", document_ids, QueryError, each=UUID)
    if metadata is not None:
        values[METADATA.key] = write_object(metadata, "metadata", QueryError, _METADATA_BYTES)
    if max_distance is not None:
        values[MAX_DISTANCE.key] = checked_number("max_distance", max_distance)
    return filters, values


def located(hits: FromClause, measures: Collection[str]) -> tuple[list[SQLColumnExpression[Any]], FromClause]:
    """Return what a row of a search says about a hit, and the joins that it takes.

    The version is the document's current one, which may be newer than the one the chunk was written with; so are the
    ordinal, and where it stands in the source. A version without events has its chunks where they were written.

    Args:
        hits: Has the columns id, version_id, ordinal and content of `Chunk`, and the measures.
        measures: What a search says of how well a hit fits, by column.
    """
    # by the chunk: its events are as many as versions list it, where the events of a version may be any number
    event = (
        select(
            ChunkEvent.ordinal,
            ChunkEvent.start_offset,
            ChunkEvent.end_offset,
            ChunkEvent.details.label("details"),
        )
        .where(ChunkEvent.chunk_id == hits.c.id, DocumentVersion.id == VERSION_OF_EVENT, IS_LISTED)
        .order_by(ChunkEvent.ordinal)
        .limit(literal_column("1"))
        .correlate(DocumentVersion, hits)
        .lateral("event")
    )
    place = (
        select(
            Document.id.label("document_id"),
            Document.article_id,
            DocumentVersion.id.label("version_id"),
            DocumentVersion.version_number,
            func.coalesce(event.c.ordinal, hits.c.ordinal).label("ordinal"),
            DocumentVersion.title,
            DocumentVersion.url,
            event.c.start_offset,
            event.c.end_offset,
            event.c.details,
        )
        .select_from(Origin)
        .join(Document, Document.id == Origin.document_id)
        .join(DocumentVersion, DocumentVersion.id == Document.current_version_id)
        .outerjoin(event, true())
        .where(Origin.id == hits.c.version_id)
        .correlate(hits)
        .offset(ONE_BY_ONE)
        .lateral("place")
    )
    columns: list[SQLColumnExpression[Any]] = [
        hits.c.id.label("chunk_id"),
        *list(place.c)[:-3],
        hits.c.content,
        *(hits.c[name] for name in measures),
        *list(place.c)[-3:],
    ]
    return columns, hits.join(place, true())
