"""Search by embedding and by words, in one statement."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, TypeAlias
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Double,
    FromClause,
    Integer,
    Select,
    Subquery,
    Uuid,
    cast,
    false,
    func,
    literal,
    null,
    select,
    true,
)

from ragschema.embeddings.wire import EmbeddingLike
from ragschema.models import Chunk
from ragschema.queries.arguments import (
    SEARCHED,
    QueryError,
    built_once,
    checked_count,
    checked_number,
    row_count,
)
from ragschema.queries.composable import composable
from ragschema.queries.conditions import Where, filled
from ragschema.queries.filters import Filters, find_filters, located
from ragschema.queries.planner_hints import ONE_BY_ONE, ZERO
from ragschema.queries.spaces import Space, find_space
from ragschema.queries.vector_hits import vector_hits
from ragschema.queries.word_hits import searchable, word_hits
from ragschema.queries.wording import worded
from ragschema.schema.embedding_models import EmbeddingModel
from ragschema.values import several

HybridHit: TypeAlias = Select[
    UUID,
    UUID,
    str,
    UUID,
    int,
    int,
    str | None,
    str | None,
    str,
    float | None,
    int | None,
    float | None,
    int | None,
    float,
    int | None,
    int | None,
    dict[str, Any] | None,
]


def hybrid_search(
    embedding: EmbeddingLike | None,
    text: str | None,
    *,
    model: str | EmbeddingModel | None = None,
    limit: int = 10,
    candidates: int = 40,
    rrf_k: int = 60,
    text_configs: Collection[str] = ("simple",),
    article_ids: Collection[str] | None = None,
    document_ids: Collection[UUID] | None = None,
    collection_ids: Collection[UUID] | None = None,
    metadata: Mapping[str, Any] | None = None,
    where: Where | None = None,
    max_distance: float | None = None,
    exact_fallback: bool = False,
) -> HybridHit:
    """Select the current chunks that are nearest to an embedding or share words with a text, best first.

    Two searches, each of ``candidates`` rows, are fused by reciprocal rank: a chunk's score is the sum of
    ``1 / (rrf_k + rank)`` over the searches that found it (Cormack, Clarke and Buettcher, SIGIR 2009). Either
    side may be missing: None, or a text without words.

    A chunk is found by any one of the text's first 32 words. It is ranked by those it holds, the rarer the more
    (``ln(1 + 5000 / chunks that hold it)`` each); of two alike the shorter comes first, by a number below 1. A word
    of more than 5,000 chunks is passed over while there is a rarer one: ranking every chunk that holds a common word
    takes 0.1 ms a chunk.

    Words are what the SQL functions ``rag_words`` and ``rag_query_words`` make of a text: in small letters, whichever
    way they are composed; ``GPT-4`` is GPT, 4 and GPT4; in scripts without spaces every two neighbouring letters are
    one.

    Args:
        embedding: Shape ``(dimensions,)``, not zero; None searches by words only.
        text: What the user typed, in no syntax; its first 16,384 characters count. None searches by embedding
            only.
        model: As in `nearest_chunks`, of the embedding; without one it says nothing.
        limit: Rows to return at most.
        candidates: Rows of each search before they are fused; ``limit`` at the least.
        rrf_k: The larger, the less the first ranks weigh.
        text_configs: ``simple`` finds exact words, in every document. Any other finds the chunks of documents with
            that ``text_config``, by the stems that it makes of the words.
        article_ids: As in `nearest_chunks`, for both searches.
        document_ids: The same.
        collection_ids: The same.
        metadata: The same.
        where: The same.
        max_distance: What is farther is not found by its embedding.
        exact_fallback: As in `nearest_chunks`.

    Returns:
        A statement of rows ``(chunk_id, document_id, article_id, version_id, version_number, ordinal, title, url,
        content, distance, distance_rank, text_score, text_rank, score, start_offset, end_offset, details)``, the last
        three as in `nearest_chunks`. The distance and its rank are None
        where the chunk was not found by embedding, text score and rank where it was not found by words.

    Raises:
        EmbeddingError: The embedding is none.
        QueryError: There is neither embedding nor text, a number is out of range, or the metadata no dict of JSON.
    """
    if embedding is None and text is None:
        raise QueryError("There is nothing to search for.", "Pass an embedding, a text or both.")
    if text is not None and not isinstance(text, str):
        raise QueryError(f"text is {type(text).__name__}, not str.", "Pass what is searched for as one text.")
    rrf_k = checked_number("rrf_k", rrf_k)  # type: ignore[assignment]  # an int stays one
    if not 0 <= rrf_k < 2**63:
        raise QueryError(f"rrf_k is {rrf_k}.", "Pass 0 or more; 60 is usual.")
    configs = several("text_configs", text_configs, QueryError, each=str)
    near = None if embedding is None else max_distance
    filters, values = find_filters(
        article_ids, document_ids, collection_ids, metadata, where, near, falls_back=exact_fallback
    )
    space, vector = (None, {}) if embedding is None else find_space(embedding, model)
    statement = _statement(
        checked_count("limit", limit),
        max(checked_count("candidates", candidates), limit),
        rrf_k,
        () if text is None else tuple(dict.fromkeys(configs)),
        filters,
        space,
        is_near=max_distance is not None,
    )
    if text is not None:
        values[SEARCHED.key] = searchable(text)
    return filled(statement, filters.where, values | vector)


def _built(
    limit: int,
    candidates: int,
    rrf_k: int,
    configs: tuple[str, ...],
    filters: Filters,
    space: Space | None,
    *,
    is_near: bool,
) -> HybridHit:
    near = _nothing("distance") if space is None else _near(candidates, filters, space, is_near=is_near)
    worded = word_hits(configs, candidates, filters) if configs else _nothing("text_score")
    fused = _fused(near, worded, rrf_k, limit)
    names = ("distance", "distance_rank", "text_score", "text_rank", "score")
    by_id = select(Chunk.version_id, Chunk.ordinal, Chunk.content).where(Chunk.id == fused.c.id)
    chunk = by_id.correlate(fused).offset(ONE_BY_ONE).lateral("chunk")
    hits = (
        select(fused.c.id, *chunk.c, *(fused.c[name] for name in names))
        .select_from(fused.join(chunk, true()))
        .subquery("hits")
    )
    columns, joined = located(hits, names)
    best = select(*columns).select_from(joined)
    return composable(best.order_by(hits.c.score.desc(), hits.c.id))


_statement = built_once(_built)


def _nothing(measure: str) -> FromClause:
    rank = measure.split("_")[0] + "_rank"
    return (
        select(
            cast(null(), Uuid()).label("id"),
            cast(null(), Double()).label(measure),
            cast(null(), Integer()).label(rank),
        )
        .where(false())
        .subquery()
    )


def _near(candidates: int, filters: Filters, space: Space, *, is_near: bool) -> FromClause:
    hits = vector_hits(candidates, filters, space, is_near=is_near)
    rank = func.row_number().over(order_by=(hits.c.distance + ZERO, hits.c.id))
    return worded(select(hits.c.id, hits.c.distance, rank.label("distance_rank")), "near")


def _fused(near: FromClause, worded: FromClause, rrf_k: int, limit: int) -> Subquery:
    identity = func.coalesce(near.c.id, worded.c.id)
    share = [
        func.coalesce(1.0 / (literal(rrf_k, Double()) + rank), 0.0)
        for rank in (near.c.distance_rank, worded.c.text_rank)
    ]
    score: ColumnElement[Any] = share[0] + share[1]
    statement = select(
        identity.label("id"),
        near.c.distance,
        near.c.distance_rank,
        worded.c.text_score,
        worded.c.text_rank,
        score.label("score"),
    ).select_from(near.outerjoin(worded, worded.c.id == near.c.id, full=True))
    return statement.order_by(score.desc(), identity).limit(row_count(limit)).subquery("fused")
