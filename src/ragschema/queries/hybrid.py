"""Search by embedding and by words, in one statement."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, TypeAlias
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    CTE,
    ColumnElement,
    Double,
    FromClause,
    Integer,
    Select,
    SmallInteger,
    Subquery,
    Text,
    Uuid,
    cast,
    column,
    false,
    func,
    literal,
    literal_column,
    null,
    or_,
    select,
    union_all,
)
from sqlalchemy.dialects.postgresql import REGCONFIG, TSQUERY

from ragschema.embeddings.column_type import Embedding
from ragschema.embeddings.wire import EmbeddingLike
from ragschema.models import Chunk
from ragschema.queries.arguments import (
    EMBEDDING,
    SEARCHED,
    QueryError,
    built_once,
    checked_count,
    row_count,
)
from ragschema.queries.filters import Filters, filter_values, located
from ragschema.queries.nearest import vector_hits
from ragschema.queries.planner_hints import ZERO
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
]

LEXEMES = 32
"""Lexemes of a text that are searched for, in each configuration: the first distinct ones."""
COMMON = 5000
"""Chunks from which on a lexeme is too common to tell them apart: searched for only if no other is rarer."""
_LENGTH = (
    16_384  # characters of a text that are looked at: to_tsvector takes 1 MB, and 32 lexemes need far less
)

# As tsquery reads it: quoted, whatever operators, quotes and backslashes it holds.
_QUOTED = r"'''' || replace(replace(word.lexeme, '\', '\\'), '''', '''''') || ''''"


def hybrid_search(
    embedding: EmbeddingLike | None,
    text: str | None,
    *,
    limit: int = 10,
    candidates: int = 40,
    rrf_k: int = 60,
    text_configs: Collection[str] = ("simple",),
    article_ids: Collection[str] | None = None,
    document_ids: Collection[UUID] | None = None,
    where: ColumnElement[bool] | None = None,
    max_distance: float | None = None,
) -> HybridHit:
    """Select the current chunks that are nearest to an embedding or share words with a text, best first.

    Two searches, each of ``candidates`` rows, are fused by reciprocal rank: a chunk's score is the sum of
    ``1 / (rrf_k + rank)`` over the searches that found it (Cormack, Clarke and Buettcher, SIGIR 2009). Either
    side may be missing: None, or a text without words.

    A chunk is found by any one of the text's first 32 lexemes. It is ranked by those it holds, the rarer the
    more (``ln(1 + 5000 / chunks that hold it)`` each), and among the best by ``ts_rank`` as well, a number below
    1. A lexeme of more than 5,000 chunks is passed over while there is a rarer one: ranking every chunk that
    holds a common word takes 0.1 ms a chunk.

    Args:
        embedding: Shape ``(dimension,)``, not zero; None searches by words only.
        text: What the user typed, in no syntax; its first 16,384 characters count. None searches by embedding
            only.
        limit: Rows to return at most.
        candidates: Rows of each search before they are fused; ``limit`` at the least.
        rrf_k: The larger, the less the first ranks weigh.
        text_configs: Each finds the chunks of documents with that ``text_config``, with the lexemes that it makes
            of the text.
        article_ids: As in `nearest_chunks`, for both searches.
        document_ids: The same.
        where: The same.
        max_distance: What is farther is not found by its embedding.

    Returns:
        A statement of rows ``(chunk_id, document_id, article_id, version_id, version_number, ordinal, title, url,
        content, distance, distance_rank, text_score, text_rank, score)``. The distance and its rank are None
        where the chunk was not found by embedding, text score and rank where it was not found by words.

    Raises:
        EmbeddingError: The embedding is none.
        QueryError: There is neither embedding nor text, or a number is out of range.
    """
    if embedding is None and text is None:
        raise QueryError("There is nothing to search for.", "Pass an embedding, a text or both.")
    if rrf_k < 0:
        raise QueryError(f"rrf_k is {rrf_k}.", "Pass 0 or more; 60 is usual.")
    configs = several("text_configs", text_configs, QueryError, each=str)
    filters = Filters(article_ids is not None, document_ids is not None, where)
    build = _statement if where is None else _built
    statement = build(
        checked_count("limit", limit),
        max(checked_count("candidates", candidates), limit),
        rrf_k,
        () if text is None else tuple(dict.fromkeys(configs)),
        filters,
        has_embedding=embedding is not None,
        is_near=max_distance is not None,
    )
    values = filter_values(article_ids, document_ids, None if embedding is None else max_distance)
    if embedding is not None:
        values[EMBEDDING.key] = Embedding().check(embedding)
    if text is not None:
        values[SEARCHED.key] = _searchable(text)
    return statement.params(values)


def _built(
    limit: int,
    candidates: int,
    rrf_k: int,
    configs: tuple[str, ...],
    filters: Filters,
    *,
    has_embedding: bool,
    is_near: bool,
) -> HybridHit:
    near = _near(candidates, filters, is_near=is_near) if has_embedding else _nothing("distance")
    worded = _worded(configs, candidates, filters) if configs else _nothing("text_score")
    fused = _fused(near, worded, rrf_k, limit)
    names = ("distance", "distance_rank", "text_score", "text_rank", "score")
    hits = (
        select(Chunk.id, Chunk.version_id, Chunk.ordinal, Chunk.content, *(fused.c[name] for name in names))
        .join(fused, fused.c.id == Chunk.id)
        .subquery("hits")
    )
    columns, joined = located(hits)
    found = select(*columns, *(hits.c[name] for name in names)).select_from(joined)
    return found.order_by(hits.c.score.desc(), hits.c.id)


_statement = built_once(_built)


def _searchable(text: str) -> str:
    """Return of a text what can be sent: no NUL, no lone surrogate."""
    return text[:_LENGTH].replace("\0", " ").encode(errors="replace").decode()


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


def _near(candidates: int, filters: Filters, *, is_near: bool) -> FromClause:
    hits = vector_hits(candidates, filters, is_near=is_near)
    rank = func.row_number().over(order_by=(hits.c.distance + ZERO, hits.c.id))
    return select(hits.c.id, hits.c.distance, rank.label("distance_rank")).subquery("near")


def _worded(configs: Sequence[str], candidates: int, filters: Filters) -> FromClause:
    words = _words(configs)
    matches = _matches(words, filters)
    rarest = select(func.min(matches.c.frequency)).scalar_subquery()
    weight = func.sum(func.ln(1 + COMMON / cast(matches.c.frequency, Double())))
    best = (
        select(matches.c.id, weight.label("weight"))
        .where(or_(matches.c.frequency <= COMMON, rarest > COMMON))
        .group_by(matches.c.id)
        .order_by(weight.desc(), matches.c.id)
        .limit(row_count(candidates))
        .subquery("best")
    )
    anyone = (
        select(words.c.config, cast(func.string_agg(words.c.quoted, literal(" | ")), TSQUERY).label("query"))
        .group_by(words.c.config)
        .subquery("anyone")
    )
    vector = func.rag_text_vector(Chunk.text_config, Chunk.content)
    score = best.c.weight + func.ts_rank(vector, anyone.c.query, 32)  # 32: from 0 to 1
    scored = (
        select(best.c.id, score.label("text_score"))
        .join(Chunk, Chunk.id == best.c.id)
        .join(anyone, anyone.c.config == Chunk.text_config)
        .cte("scored")
        .prefix_with("MATERIALIZED")  # the rank would work the score out again
    )
    rank = func.row_number().over(order_by=(scored.c.text_score.desc(), scored.c.id))
    return select(scored, rank.label("text_rank")).subquery("worded")


def _words(configs: Sequence[str]) -> CTE:
    """Return the lexemes that each configuration makes of the text: config, quoted and as a query."""
    made = []
    for config in configs:
        named = literal(config, Text())
        word = (
            func.unnest(func.to_tsvector(cast(named, REGCONFIG), SEARCHED))
            .table_valued(
                column("lexeme", Text()), column("positions", ARRAY(SmallInteger)), column("weights")
            )
            .render_derived(name="word")
        )
        quoted = literal_column(_QUOTED, Text())
        first = select(named.label("config"), quoted.label("quoted")).select_from(word)
        # in words: of a column of the function, params() of SQLAlchemy 2.0 keeps the function without its value
        first = first.order_by(literal_column("word.positions[1]")).limit(row_count(LEXEMES))
        made.append(select(first.subquery()))
    each = union_all(*made).subquery("each")
    words = select(each.c.config, each.c.quoted, cast(each.c.quoted, TSQUERY).label("query"))
    return words.cte("words").prefix_with("MATERIALIZED")


def _matches(words: CTE, filters: Filters) -> CTE:
    """Return the chunks that hold a lexeme, one row each, with the number of chunks that do: one more than
    `COMMON` where there are more."""
    vector = func.rag_text_vector(Chunk.text_config, Chunk.content)
    holders = select(Chunk.id).where(
        Chunk.is_current, Chunk.text_config == words.c.config, vector.bool_op("@@")(words.c.query)
    )
    holder = filters.apply(holders).limit(row_count(COMMON + 1)).correlate(words).lateral("holder")
    frequency = func.count().over(partition_by=(words.c.config, words.c.quoted))
    matches = select(holder.c.id, frequency.label("frequency")).select_from(words.join(holder, literal(True)))
    return matches.cte("matches").prefix_with("MATERIALIZED")


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
