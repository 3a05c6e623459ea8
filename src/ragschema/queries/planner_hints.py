"""Hints to the planner and to pgvector, in the text of a search: conditions that are always true, orders that are not.

Each was measured with PostgreSQL 18 and pgvector 0.8.6.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import (
    Boolean,
    ColumnElement,
    Integer,
    and_,
    any_,
    func,
    literal_column,
    or_,
)
from sqlalchemy.dialects.postgresql import TSVECTOR
from sqlalchemy.orm import InstrumentedAttribute

from ragschema.models import Chunk, ChunkEmbedding, ChunkEvent

EF_SEARCH = 80
"""Candidates kept while an HNSW index is walked, where the session has not chosen.

pgvector's default is 40. Twice as many cost 1.15 to 1.18 of a whole search statement's time, and find more of what an
index that rows have come to and gone from still reaches: docs/index-health.md.
"""

EF_SEARCH_MOST = 1000
"""The most candidates that pgvector takes."""

CHOICE = "ragschema.ef_search"
"""A setting of ours: who set ``hnsw.ef_search``. ``chosen`` by `search_settings`, else the number that a search set."""

_SCAN = f"""(CASE current_setting('hnsw.iterative_scan', true)
 WHEN 'off' THEN set_config('hnsw.iterative_scan', 'relaxed_order', true) ELSE '' END
 || CASE WHEN current_setting('hnsw.ef_search', true) <> '%s' AND current_setting('{CHOICE}', true) IS DISTINCT FROM
 'chosen' AND current_setting('hnsw.ef_search', true) IN ('40', current_setting('{CHOICE}', true))
 THEN set_config('hnsw.ef_search', '%s', true) || set_config('{CHOICE}', '%s', true)
 ELSE '' END) IS NOT NULL"""


def scan_settings(limit: int) -> ColumnElement[bool]:
    """Return a condition that is true, and sets how its statement reads an HNSW index.

    The scan goes on until enough rows have passed the filters. An index gives ef_search candidates and ends, unless it
    is told to go on: with a filter that one row of a hundred passes, 1.8 of 10 rows came. pgvector before 0.8 cannot go
    on, and has no such setting.

    And it keeps `EF_SEARCH` candidates, or as many as rows are wanted, where the session has not chosen: where their
    number is pgvector's default, or was set by a search before this one. PostgreSQL says cheaply what a setting is, and
    not who set it (the view pg_settings takes 0.3 ms), so a 40 by ``SET`` is taken for the default, and one by
    `search_settings` is not.

    It holds for its own statement, whatever engine runs it, where the statement evaluates it before its scans begin.
    The settings end with the transaction.
    """
    candidates = min(EF_SEARCH_MOST, max(EF_SEARCH, limit))
    return literal_column(_SCAN % (candidates, candidates, candidates), Boolean())


_WORDS = func.rag_text_vector(Chunk.text_config, Chunk.content, type_=TSVECTOR())
READING_COSTS = or_(Chunk.is_current, _WORDS.concat(_WORDS).concat(_WORDS).concat(_WORDS).is_not(None))
"""A condition that is true beside ``is_current``, is never evaluated, and costs 1.0 a row in the planner's eyes.

An embedding is stored out of line, and reading one takes 5 us that the planner does not reckon with: it would
rather read 10,000 chunks one by one (53 ms) than use the index (0.9 ms). The partial index implies the condition
and is not charged for it; every other way is.
"""

WORDING_COSTS: ColumnElement[bool] = or_(
    Chunk.is_current,
    literal_column(
        f"(SELECT count(*) FROM generate_series(1, 400) WHERE {Chunk.__tablename__}.ordinal >= 0) IS NOT NULL"
    ),
)
"""A condition that is true beside ``is_current``, is never evaluated, and costs 5 a row in the planner's eyes.

To work the words of a chunk of 600 characters out takes 65 us that the planner does not reckon with, so it would rather
do so than read the index of words: with another index, or where a corpus has few pages (55 chunks of 20,000 characters:
900 ms instead of 10). It is charged for the rows that the index of words finds too, whose words nobody works out, so it
is no more than that: a search of 100,000 chunks would be thought to cost enough to be compiled (``jit_above_cost``).
"""

VERSION_OF_CHUNK: ColumnElement[UUID] = func.coalesce(Chunk.version_id, Chunk.version_id)
"""A chunk's version, in a form that no index has: where it is joined, chunks are found by something else."""

VERSION_OF_EVENT: ColumnElement[UUID] = func.coalesce(ChunkEvent.version_id, ChunkEvent.version_id)
"""An event's version, in the same way: the events of a chunk are few, those of a version may be any number."""

_REFUSAL = func.rag_text_vector(
    ChunkEmbedding.embedding_error, ChunkEmbedding.embedding_error, type_=TSVECTOR()
)
READING_PARTITION_COSTS = or_(
    ChunkEmbedding.is_current, _REFUSAL.concat(_REFUSAL).concat(_REFUSAL).concat(_REFUSAL).is_not(None)
)
"""The same of a partition, whose rows have no other text than why a model will not embed a chunk.

With `of_dimensions` beside it, PostgreSQL takes the index of 1,024 dimensions from 500 rows on; without it from 2,000
on, where reading all takes 50 ms and the index 1.
"""

_REPEATED = 60


def of_dimensions(dimensions: int) -> ColumnElement[bool]:
    """Return a condition that is true of a model's own embeddings, and rules out at once the partitions of others.

    Which partition a search is of is known when the statement runs, so it is planned for all of them. One of other
    dimensions has no index for the search: its rows would be sorted, at a cost that made PostgreSQL read all 20,000
    embeddings of the right one too (200 ms, instead of 1) where four others were live. Its CHECK contradicts this
    condition, so that PostgreSQL leaves it out of the plan.

    The number stands there several times because PostgreSQL takes any one of them for true of a two hundredth of the
    rows: with one alone it expects so few that it reads all of up to 5,000 (150 ms).
    """
    same = func.array_fill(literal_column(str(dimensions)), literal_column(f"ARRAY[{_REPEATED}]"))
    return func.vector_dims(ChunkEmbedding.embedding, type_=Integer()) == any_(same)


def is_one(
    column: InstrumentedAttribute[Any], key: ColumnElement[Any] | InstrumentedAttribute[Any]
) -> ColumnElement[bool]:
    """Return the condition that a column equals a key, for an index that begins with the column: see `index_reads`."""
    return and_(column == key, column.between(key, key))


ZERO: ColumnElement[int] = literal_column("0")
"""What is added to a distance to sort by it: an order that no index has.

PostgreSQL takes rows of an HNSW index to be in the order of the distance, and their order is loose.
"""

ONE_BY_ONE: ColumnElement[int] = literal_column("0")
"""The offset of a lateral subquery that is to be asked for each row, by its key.

PostgreSQL does not merge a subquery with an offset into the statement around it. Merged, a join of a few rows with a
table reads all of the table where averages let it expect many.
"""
