"""Search by embedding: the nearest current chunks."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, TypeAlias
from uuid import UUID

from sqlalchemy import Select, inspect, select

from ragschema.embeddings.wire import EmbeddingLike
from ragschema.models import Document
from ragschema.queries.arguments import built_once, checked_count
from ragschema.queries.composable import composable
from ragschema.queries.conditions import Where, filled
from ragschema.queries.filters import Filters, find_filters, located
from ragschema.queries.planner_hints import ZERO
from ragschema.queries.spaces import Space, find_space
from ragschema.queries.vector_hits import RERANKED_MOST, vector_hits
from ragschema.queries.wording import worded
from ragschema.schema.embedding_models import EmbeddingModel

Hit: TypeAlias = Select[
    UUID,
    UUID,
    str,
    UUID,
    int,
    int,
    str | None,
    str | None,
    str,
    float,
    int | None,
    int | None,
    dict[str, Any] | None,
]
"""chunk_id, document_id, article_id, version_id, version_number, ordinal, title, url, content, distance,
start_offset, end_offset, details."""


def nearest_chunks(
    embedding: EmbeddingLike,
    *,
    model: str | EmbeddingModel | None = None,
    limit: int = 10,
    article_ids: Collection[str] | None = None,
    document_ids: Collection[UUID] | None = None,
    collection_ids: Collection[UUID] | None = None,
    metadata: Mapping[str, Any] | None = None,
    where: Where | None = None,
    max_distance: float | None = None,
    exact_fallback: bool = False,
    rerank: int | None = None,
) -> Hit:
    """Select the current chunks nearest to an embedding, nearest first.

    A chunk that has no embedding yet is left out. Where ``metadata`` or ``where`` lets few documents through, of few
    chunks, all of these are compared with the embedding, and no index of vectors is read. Other filters are applied
    while the index is read, which goes on until enough chunks have passed; where it gives up
    (``hnsw.max_scan_tuples``, 20,000 by default), the same statement looks at every chunk that passes, so that
    ``limit`` rows come whenever they exist. To do that the statement turns ``hnsw.iterative_scan`` on for the rest of
    the transaction, unless it is on already. It keeps 80 candidates (``hnsw.ef_search``), or ``limit`` if that is
    more, unless the session has chosen: by `search_settings`, or by a ``SET`` to another number than pgvector's
    default of 40.

    Args:
        embedding: Shape ``(dimensions,)``, not zero; of 1 to 16,000 dimensions, whatever the model has.
        model: The model that embedded the query: its key, or the `EmbeddingModel` that ``find_model`` of
            `ragschema.embedding_models` returns, which may be of no session. None where no more than one model of so
            many dimensions can be meant: of those that are active or standby, or the column where none is registered.
            By its key a model is searched that has the distance cosine and an index of halfvec, above 4,000
            dimensions of bit, or none: give any other one itself.
        limit: Rows to return at most.
        article_ids: Only chunks of these documents. An empty sequence lets nothing through.
        document_ids: Only chunks of these documents.
        collection_ids: Only chunks of documents in one of these collections.
        metadata: What the metadata of the document's current version contains, in objects and lists inside it too.
        where: A condition on `Document`, on `DocumentVersion` (the current one) and on `Chunk`, or a function without
            arguments that returns one. A statement is built once for each shape of it; its values are parameters.
        max_distance: Leave out what is farther, in the distance of the rows; does not keep the index from being used.
        exact_fallback: Look at every chunk that passes where the index gives fewer than ``limit``, without filters
            too, and read each one's document meanwhile: for row security, or views, that take rows away unseen.
        rerank: How many candidates of an index of bits are compared in full, up to 10,000: 10 times ``limit`` by
            default. The larger the corpus, the more chunks are as near by their signs as the nearest ones are; of
            another index it says nothing.

    Returns:
        A statement of rows ``(chunk_id, document_id, article_id, version_id, version_number, ordinal, title, url,
        content, distance, start_offset, end_offset, details)``. Version and ordinal are those of the document's
        current version, and so is where the chunk stands in its source: offsets in characters, and details such as
        its page; None where nobody said. The distance is the model's: by cosine, from 0 (same direction) to 2; by l2,
        the Euclidean one, from 0, in the unit of the embeddings; by inner_product, the inner product times -1, so that
        the nearest is the least there too.

        Executed, it raises SQLAlchemy's `DBAPIError` where the query is of no model that can be searched, or of
        several: unknown, retired, of another dimension or distance. `is_model_refused` tells such an error from others.

    Raises:
        EmbeddingError: The embedding is none, or not one of the `EmbeddingModel`.
        QueryError: The limit is below 1, rerank out of range, the metadata no dict of JSON, or the model neither a
            key nor read from the database.
    """
    filters, values = find_filters(
        article_ids, document_ids, collection_ids, metadata, where, max_distance, falls_back=exact_fallback
    )
    space, vector = find_space(embedding, model)
    if rerank is not None:
        checked_count("rerank", rerank, RERANKED_MOST)
    if space.index_type != "bit":  # one statement, not one for each number
        rerank = None
    count = checked_count("limit", limit)
    statement = _statement(count, filters, space, is_near=max_distance is not None, rerank=rerank)
    return filled(statement, filters.where, values | vector)


def _built(limit: int, filters: Filters, space: Space, *, is_near: bool, rerank: int | None) -> Hit:
    hits = vector_hits(limit, filters, space, is_near=is_near, rerank=rerank)
    columns, joined = located(hits, ["distance"])
    found = worded(select(*columns).select_from(joined), "found")
    nearest = select(*found.c).select_from(found)
    # by a model a session with several engines finds its own
    nearest._set_propagate_attrs({"compile_state_plugin": "orm", "plugin_subject": inspect(Document)})
    return composable(nearest.order_by(found.c.distance + ZERO, found.c.chunk_id))


_statement = built_once(_built)
