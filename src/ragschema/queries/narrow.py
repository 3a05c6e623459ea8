"""Narrow filters: the chunks of the few documents that pass, found before any embedding is looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Integer,
    Subquery,
    Uuid,
    and_,
    case,
    cast,
    func,
    literal_column,
    select,
    true,
    union_all,
)

from ragschema.models import Chunk, ChunkEvent
from ragschema.queries.filters import IS_LISTED, Filters
from ragschema.queries.planner_hints import ONE_BY_ONE, is_one

DOCUMENTS = 300
"""Documents that pass a narrow filter at most."""
CHUNKS = 3000
"""Chunks in the manifests of these at most: as many embeddings are compared in 25 ms."""
SQUARE = 150
"""The square of so many chunks is at most this many times all chunks.

To compare a chunk takes 8 us. An index hands over 40 chunks that pass, out of 40 divided by their share, and to follow
it to one takes 30 us: the two take as long where the chunks that pass, times their share, are 150.
"""

_IDS = ARRAY(Uuid())
# As many as the server's statistics say; without them, as on a standby, and of a view, the other bounds are enough.
# A function, because Citus takes a statement apart that reads a table of the catalogue too: five times as long.
_ALL: ColumnElement[float] = literal_column(
    f"coalesce(nullif(pg_stat_get_live_tuples('{Chunk.__tablename__}'::regclass), 0), 1e9)"
)


VERSIONS = 1000
"""Versions at most that a search by words reads of the documents that pass, beside the index of words.

To find a thousand of them in their index takes 2 ms for each word.
"""
ONE_BY_ONE_MOST = 1000
"""Chunks of these at most whose words are worked out one by one, which takes 65 us each."""
ONE_BY_ONE_LEAST = 100
"""So many are, however few chunks there are."""
ONE_BY_ONE_SHARE = 300
"""And no more than one of so many of all chunks: to read the index takes 0.13 us for each chunk with a word, and three
words of a question are in most of them."""


@dataclass(frozen=True)
class Narrow:
    """What a statement knows, when it runs, of the documents that pass.

    Attributes:
        holds: Whether they and their chunks are few enough to look at all of them; never NULL.
        chunk_ids: The ids of their chunks, an array; NULL where they are not few enough.
    """

    holds: ColumnElement[bool]
    chunk_ids: ColumnElement[Any]


def narrowed(filters: Filters) -> Narrow | None:
    """Return the parts of a statement that find out how many documents pass; None where the filters need none.

    How many rows a caller's condition lets through PostgreSQL can only guess, and where documents are few it reads an
    index of vectors through, or every chunk. So they are counted, no farther than to the bounds.

    A version's chunks are those of its manifest, or, where it has no events, those that were written with it. They
    are read version by version: a join would be planned by the average version, and read a table from end to end.
    """
    versions = filters.passing_versions()
    if versions is None:
        return None
    ids = _gathered("passing", versions, literal_column(str(DOCUMENTS)))
    version = _each(ids)
    manifest = select(ChunkEvent.chunk_id.label("id")).where(
        is_one(ChunkEvent.version_id, version.c.id), IS_LISTED
    )
    event = (
        select(ChunkEvent.id).where(is_one(ChunkEvent.version_id, version.c.id)).limit(literal_column("1"))
    )
    has_no_events = event.correlate(version).scalar_subquery().is_(None)
    written = select(Chunk.id).where(is_one(Chunk.version_id, version.c.id), has_no_events)
    of_version = union_all(manifest.correlate(version), written.correlate(version)).subquery("of_version")
    each = select(of_version.c.id).correlate(version).offset(ONE_BY_ONE).lateral("each_chunk")
    most = cast(
        func.least(literal_column(str(CHUNKS)), func.sqrt(literal_column(str(SQUARE)) * _ALL)), Integer()
    )
    chunks = select(each.c.id).select_from(version.join(each, true()))
    listed = _gathered("listed", chunks, most, ids.is_not(None))
    return Narrow(listed.is_not(None), listed)


@dataclass(frozen=True)
class Passing:
    """What a search by words knows, when it runs, of the documents that pass its filters.

    Attributes:
        chunk_ids: The ids of their chunks, an array; NULL where these are too many for their words to be worked out.
        version_ids: The ids of their versions, an array; NULL where these are too many to be looked up.
    """

    chunk_ids: ColumnElement[Any]
    version_ids: ColumnElement[Any]


def passing(filters: Filters) -> Passing | None:
    """Return the parts of a statement that find out how many documents and chunks pass; None where all do.

    The index of words has every chunk of any document that holds a word, and what a chunk's words are takes 65 us to
    work out. So the words of few chunks are worked out, each once for all words of the question; more chunks are found
    where the index of words and that of versions meet; and where documents are many, the chunks that hold a word are
    asked for their document. Which it is PostgreSQL could only guess: it worked out 2,000 chunks' words, once for each
    word (1.4 s, where the two indexes take 40 ms).
    """
    versions = filters.origins()
    if versions is None:
        return None
    origins = _gathered("origins", versions, literal_column(str(VERSIONS)))
    version = _each(origins)
    of_version = select(Chunk.id).where(is_one(Chunk.version_id, version.c.id)).correlate(version)
    each = of_version.offset(ONE_BY_ONE).lateral("each_written")
    share = _ALL / literal_column(str(ONE_BY_ONE_SHARE), Integer())
    few = func.least(
        literal_column(str(ONE_BY_ONE_MOST)), func.greatest(literal_column(str(ONE_BY_ONE_LEAST)), share)
    )
    most = cast(few, Integer())
    chunks = select(each.c.id).select_from(version.join(each, true()))
    return Passing(_gathered("few_written", chunks, most, origins.is_not(None)), origins)


def _gathered(
    name: str, rows: Any, most: ColumnElement[int], *conditions: ColumnElement[bool]
) -> ColumnElement[Any]:
    """Return the ids of rows as an array, found once, of up to so many; NULL where there are more."""
    taken = select(rows.subquery("each").c.id).limit(most + literal_column("1")).subquery("taken")
    are_few = and_(func.count() <= most, *conditions)
    ids = func.coalesce(func.array_agg(taken.c.id), literal_column("'{}'"), type_=_IDS)
    found = select(case((are_few, ids)).label("ids")).select_from(taken)
    once = found.cte(name).prefix_with("MATERIALIZED")
    return cast(select(once.c.ids).scalar_subquery(), _IDS)  # as it is, ANY would take its rows one by one


def _each(ids: ColumnElement[Any]) -> Subquery:
    return select(func.unnest(ids, type_=Uuid()).label("id")).subquery("version")
