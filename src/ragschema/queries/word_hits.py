"""Hits by words: the chunks that hold words of a text, ranked by how rare these are."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import (
    ARRAY,
    CTE,
    ColumnElement,
    Double,
    FromClause,
    Text,
    any_,
    cast,
    column,
    func,
    literal,
    literal_column,
    or_,
    select,
    union_all,
)

from ragschema.models import Chunk
from ragschema.queries.arguments import SEARCHED, row_count
from ragschema.queries.filters import Filters, Rows
from ragschema.queries.narrow import passing
from ragschema.queries.planner_hints import VERSION_OF_CHUNK, WORDING_COSTS

WORDS = 32
"""Words of a text that are searched for, in each configuration: the first distinct ones."""
COMMON = 5000
"""Chunks from which on a word is too common to tell them apart: searched for only if no other is rarer."""
_LENGTH = 16_384  # characters of a text that are looked at: 32 words need far less
_EXACT: ColumnElement[str] = literal_column("'simple'")  # the configuration that makes no stems


def searchable(text: str) -> str:
    """Return of a text what can be sent: no NUL, no lone surrogate."""
    return text[:_LENGTH].replace("\0", " ").encode(errors="replace").decode()


def word_hits(configs: Sequence[str], candidates: int, filters: Filters) -> FromClause:
    """Return the best chunks by the words that they hold: their ids, ``text_score`` and ``text_rank``."""
    words = _words(configs)
    matches = _matches(words, filters)
    rarest = select(func.min(matches.c.frequency)).scalar_subquery()
    each = (
        select(
            matches.c.id,
            func.max(func.ln(1 + COMMON / cast(matches.c.frequency, Double()))).label("weight"),
        )
        .where(or_(matches.c.frequency <= COMMON, rarest > COMMON))
        .group_by(matches.c.id, matches.c.word)
        .subquery("each")
    )
    weight = func.sum(each.c.weight)
    best = (
        select(each.c.id, weight.label("weight"))
        .group_by(each.c.id)
        .order_by(weight.desc(), each.c.id)
        .limit(row_count(candidates))
        .subquery("best")
    )
    length = select(func.length(Chunk.content)).where(Chunk.id == best.c.id).scalar_subquery()
    score = best.c.weight + 1 / (1 + func.ln(1.0 + length))  # of two alike, the shorter
    scored = (
        select(best.c.id, cast(score, Double()).label("text_score"))
        .cte("scored")
        .prefix_with("MATERIALIZED")  # the rank would work the score out again
    )
    rank = func.row_number().over(order_by=(scored.c.text_score.desc(), scored.c.id))
    return select(scored, rank.label("text_rank")).subquery("worded")


def _words(configs: Sequence[str]) -> CTE:
    """Return the words that each configuration makes of the text, and the lexemes that a chunk may have them by."""
    made = []
    for config in configs:
        named = literal(config, Text())
        word = (
            func.rag_query_words(named, SEARCHED, row_count(WORDS))
            .table_valued(column("word", Text()), column("term", Text()), column("lexemes", ARRAY(Text())))
            .alias("word")
        )
        # in words: of a column of the function, params() of SQLAlchemy 2.0 keeps the function without its value
        terms = (
            literal_column("word.word", Text()).label("word"),
            literal_column("word.term", Text()).label("term"),
            literal_column("word.lexemes", ARRAY(Text())).label("lexemes"),
        )
        made.append(select(named.label("config"), *terms).select_from(word))
    each = union_all(*made).subquery("each")
    numbered = select(  # sorted and grouped by for every match: numbers are cheaper than texts
        each.c.config,
        func.dense_rank().over(order_by=each.c.word).label("word"),
        func.dense_rank().over(order_by=(each.c.config, each.c.term)).label("term"),
        each.c.lexemes,
    )
    return numbered.cte("words").prefix_with("MATERIALIZED")


def _matches(words: CTE, filters: Filters) -> CTE:
    """Return the chunks that have a word, a row for each term, with the number of chunks that the term is found
    in: more than `COMMON` where there are more."""
    # text[], but SQLAlchemy knows a collation of text only
    held = func.rag_words(Chunk.text_config, Chunk.content, type_=Text()).collate("C")
    current = select(Chunk.id).where(Chunk.is_current)
    holders = current.where(
        or_(words.c.config == _EXACT, Chunk.text_config == words.c.config),
        held.bool_op("@>")(words.c.lexemes),
        WORDING_COSTS,
    )
    narrow = passing(filters)
    each: list[FromClause]
    if narrow is None:
        each = [_first(filters.apply(holders), words, "holder")]
    else:
        wide = holders.where(narrow.version_ids.is_(None))
        asked = filters.apply(wide, version_id=VERSION_OF_CHUNK)
        met = holders.where(narrow.chunk_ids.is_(None), Chunk.version_id == any_(narrow.version_ids))
        few = current.add_columns(Chunk.text_config, held.label("words"))
        few = filters.apply_to_chunks(few.where(Chunk.id == any_(narrow.chunk_ids)))
        worked_out = few.cte("worked_out").prefix_with("MATERIALIZED")
        having = select(worked_out.c.id).where(
            or_(words.c.config == _EXACT, worked_out.c.text_config == words.c.config),
            worked_out.c.words.bool_op("@>")(words.c.lexemes),
        )
        each = [
            _first(asked, words, "asked"),
            _first(filters.apply_to_chunks(met), words, "met"),
            _first(having, words, "having"),
        ]
    parts = [
        select(holder.c.id, words.c.word, words.c.term).select_from(words.join(holder, literal(True)))
        for holder in each
    ]
    found = union_all(*parts).subquery("found")
    frequency = func.count().over(partition_by=found.c.term)
    matches = select(found.c.id, found.c.word, frequency.label("frequency"))
    return matches.cte("matches").prefix_with("MATERIALIZED")


def _first(rows: Rows, words: CTE, name: str) -> FromClause:
    """Return of a word's chunks as many as tell whether it is too common."""
    return rows.limit(row_count(COMMON + 1)).correlate(words).lateral(name)
