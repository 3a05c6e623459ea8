"""Local search: the nearest chunks, what they speak of, what that is related to, and the chunks that say so."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from ragschema.embeddings.wire import EmbeddingLike
from ragschema.graph.arguments import check_number
from ragschema.graph.limits import Limits
from ragschema.graph.local_statements import local_statement
from ragschema.queries.conditions import Where, filled
from ragschema.queries.filters import find_filters
from ragschema.queries.spaces import find_space
from ragschema.schema.base import Executor
from ragschema.schema.embedding_models import EmbeddingModel

_MOST = 100_000


@dataclass(frozen=True)
class LocalChunk:
    """A chunk as `nearest_chunks` returns it.

    Attributes:
        chunk_id: The chunk.
        document_id: Its document.
        article_id: The caller's key of that.
        version_id: The document's current version.
        version_number: Its number.
        ordinal: Where the chunk stands in it.
        title: Of the version.
        url: Of the version.
        content: Its text.
        start_offset: Where it begins in the source, in characters; None where nobody said.
        end_offset: Where it ends.
        details: Where else it stands, such as a page.
    """

    chunk_id: UUID
    document_id: UUID
    article_id: str
    version_id: UUID
    version_number: int
    ordinal: int
    title: str | None
    url: str | None
    content: str
    start_offset: int | None
    end_offset: int | None
    details: dict[str, Any] | None


@dataclass(frozen=True)
class NearestChunk(LocalChunk):
    """One of the nearest chunks.

    Attributes:
        distance: From the embedding, in the model's distance.
    """

    distance: float


@dataclass(frozen=True)
class Evidence(LocalChunk):
    """A current chunk that says relations.

    Attributes:
        relation_ids: Which of those that were found it says.
    """

    relation_ids: tuple[UUID, ...]


@dataclass(frozen=True)
class LocalEntity:
    """An entity that some of the nearest chunks mention.

    Attributes:
        entity_id: The entity.
        entity_type: Its type.
        name: Its name.
        description: What is said of it.
        chunks: How many of the nearest chunks mention it.
        distance: Of the nearest that does.
    """

    entity_id: UUID
    entity_type: str
    name: str
    description: str | None
    chunks: int
    distance: float


@dataclass(frozen=True)
class LocalRelation:
    """A relation of one of the entities.

    Attributes:
        relation_id: The relation.
        relation_type: Its type.
        source_id: Where it leads from.
        source_name: The name of that.
        target_id: Where it leads to.
        target_name: The name of that.
        weight: Its weight.
        description: What is said of it.
        is_inner: Whether both ends are among the entities that were found.
    """

    relation_id: UUID
    relation_type: str
    source_id: UUID
    source_name: str
    target_id: UUID
    target_name: str
    weight: float
    description: str | None
    is_inner: bool


@dataclass(frozen=True)
class LocalSearch:
    """What a local search has found: what a model is told to answer by.

    Attributes:
        chunks: The nearest chunks, nearest first.
        entities: What they mention, that which most of them do first.
        relations: Of these entities: those between two of them first, then the weightiest.
        evidence: The chunks that say the relations; nearest chunks may be among them.
    """

    chunks: tuple[NearestChunk, ...]
    entities: tuple[LocalEntity, ...]
    relations: tuple[LocalRelation, ...]
    evidence: tuple[Evidence, ...]


def local_search(
    session: Executor,
    embedding: EmbeddingLike,
    *,
    model: str | EmbeddingModel | None = None,
    limit: int = 10,
    entities: int = 20,
    relations: int = 40,
    fanout: int = 25,
    evidence: int = 2,
    article_ids: Collection[str] | None = None,
    document_ids: Collection[UUID] | None = None,
    collection_ids: Collection[UUID] | None = None,
    metadata: Mapping[str, Any] | None = None,
    where: Where | None = None,
    max_distance: float | None = None,
    exact_fallback: bool = False,
) -> LocalSearch:
    """Return the chunks nearest to an embedding, the entities they mention, their relations, and who says these.

    One statement, whose first part is that of `nearest_chunks`, filters and all. Evidence passes the same filters as
    the nearest chunks. With a filter there are only relations that a chunk which passes it says: none that only other
    documents say, and none that were imported without evidence. The descriptions of entities and relations are what
    was said of them in all documents.

    Args:
        session: Reads only.
        embedding: Shape ``(dimensions,)``, not zero, as in `nearest_chunks`.
        model: As in `nearest_chunks`.
        limit: Nearest chunks at most.
        entities: Entities at most.
        relations: Relations at most.
        fanout: Relations that are looked at of each entity and each of its ends, the weightiest.
        evidence: Chunks of each relation at most, those that were written last.
        article_ids: As in `nearest_chunks`, and so are the following.
        document_ids: Only chunks of these documents.
        collection_ids: Only chunks of documents in one of these collections.
        metadata: What the metadata of the document's current version contains.
        where: A condition on `Document`, `DocumentVersion` and `Chunk`.
        max_distance: Leave out nearest chunks that are farther.
        exact_fallback: As in `nearest_chunks`.

    Raises:
        GraphError: A number is out of its range.
        EmbeddingError: The embedding is none, or not one of the model.
        QueryError: Another argument is refused by `nearest_chunks`.
    """
    given = {
        "limit": limit,
        "entities": entities,
        "relations": relations,
        "fanout": fanout,
        "evidence": evidence,
    }
    for name, value in given.items():
        check_number(name, value, 1, _MOST)
    filters, values = find_filters(
        article_ids, document_ids, collection_ids, metadata, where, max_distance, falls_back=exact_fallback
    )
    space, vector = find_space(embedding, model)
    limits = Limits(limit, entities, fanout, relations, evidence)
    statement = local_statement(limits, filters, space, is_near=max_distance is not None)
    row = session.execute(filled(statement, filters.where, values | vector)).one()
    return LocalSearch(
        tuple(NearestChunk(**_typed(each)) for each in row.chunks),
        tuple(LocalEntity(**_typed(each)) for each in row.entities),
        tuple(LocalRelation(**_typed(each)) for each in row.relations),
        tuple(Evidence(**_typed(each)) for each in row.evidence),
    )


def _typed(given: dict[str, Any]) -> dict[str, Any]:
    """Return values of JSON as what their columns are."""
    typed: dict[str, Any] = {}
    for name, value in given.items():
        if name.endswith("_ids"):
            typed[name] = tuple(map(UUID, value))
        elif name.endswith("_id") and name != "article_id":
            typed[name] = UUID(value)
        else:
            typed[name] = float(value) if name in ("distance", "weight") else value
    return typed
