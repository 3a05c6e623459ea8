"""Hits of a search by embedding: the nearest current chunks, by the column or by a model's partition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

from pgvector.sqlalchemy import BIT, HALFVEC, VECTOR
from sqlalchemy import (
    CTE,
    ColumnElement,
    Double,
    FromClause,
    Select,
    SQLColumnExpression,
    any_,
    bindparam,
    case,
    cast,
    func,
    literal_column,
    not_,
    select,
    true,
    union_all,
)

from ragschema.embeddings.column_type import Embedding
from ragschema.embeddings.half_column_type import HalfEmbedding
from ragschema.models import Chunk, ChunkEmbedding
from ragschema.queries.arguments import EMBEDDING, MAX_DISTANCE, row_count
from ragschema.queries.filters import Filters, Rows
from ragschema.queries.model_choice import searched_model
from ragschema.queries.narrow import Narrow, narrowed
from ragschema.queries.planner_hints import (
    ONE_BY_ONE,
    READING_COSTS,
    READING_PARTITION_COSTS,
    ZERO,
    of_dimensions,
    scan_settings,
)
from ragschema.queries.spaces import Space
from ragschema.schema.embedding_models import COLUMN_MODEL

EXAMINED = 4
"""How many times the wanted rows a filtered search takes from the index before it keeps the nearest.

An HNSW index hands over what passes a filter in a loose order: with a tenth of 20,000 chunks passing, recall@10
was 0.89 without, and 0.97 with four times as many.
"""

EXAMINED_BITS = 10
"""How many times the wanted rows are taken from an index of bits, which knows the signs only; then compared in full.

Of 20,000 chunks and 1,024 dimensions recall@10 is 0.893 with as many as are wanted, 0.967 with four times as many,
0.997 with ten, which takes the server 1.7 ms, and 1.0 with twenty, which takes 2.9; of 5,000 it is 1.0 with ten.
"""

RERANKED_MOST = 10_000
"""The most that are taken from an index of bits: above 1,000 its scan goes on from where it ended, as with filters."""

_OPERATORS = {"cosine": "<=>", "l2": "<->", "inner_product": "<#>"}


def vector_hits(
    limit: int, filters: Filters, space: Space, *, is_near: bool, rerank: int | None = None
) -> FromClause:
    """Return the ``limit`` nearest current chunks that pass: id, version_id, ordinal, content and distance.

    The order of the index is loose, so whoever wants them in order sorts by ``distance + 0``: PostgreSQL takes
    the rows to be sorted by ``distance`` already.
    """
    wanted = row_count(limit)
    narrow = narrowed(filters)
    examined = _examined(limit, filters, space, rerank)
    source = _Sources(space, filters, limit, examined)
    wide = [] if narrow is None else [not_(narrow.holds)]
    parts: list[Rows] = []
    if narrow is not None:
        parts.append(select(source.few(wanted, narrow)))
    if space.index_type == "none":
        parts.append(select(source.exact(wanted, *wide)))
    else:
        indexed = source.indexed(*wide)
        if filters.are_given:
            count = select(func.count()).select_from(indexed).scalar_subquery()
            parts.append(select(indexed).where(count >= wanted))
            parts.append(select(source.exact(wanted, count < wanted, *wide)))
        else:
            parts.append(select(indexed))
    hits: FromClause = (
        parts[0].get_final_froms()[0] if len(parts) == 1 else union_all(*parts).subquery("every")
    )
    if examined > limit or narrow is not None:
        hits = select(hits).order_by(hits.c.distance + ZERO, hits.c.id).limit(wanted).subquery("nearest")
    if "content" not in hits.c:
        hits = _with_chunks(hits).subquery("whole")
    conditions: list[ColumnElement[bool]] = []
    # a search of no model is an error, also where no table is left to look at; the column's part has asked already
    if filters.are_given or not space.has_column:
        conditions.append(source.model_id > literal_column("0"))
    if is_near:  # after the limit: the nearest are the same, and the index is read no farther
        conditions.append(hits.c.distance <= MAX_DISTANCE)
    return select(hits).where(*conditions).subquery("hits") if conditions else hits


def _examined(limit: int, filters: Filters, space: Space, rerank: int | None) -> int:
    if space.index_type == "bit":
        return max(limit, rerank or EXAMINED_BITS * limit)
    return EXAMINED * limit if filters.are_given else limit


class _Source(NamedTuple):
    """Embeddings of a table: those that may be hits, their distance, and what the index is in the order of.

    ``current`` are all that may be hits without filters, with no hint of what reading them costs.
    """

    chunk_id: SQLColumnExpression[UUID]
    current: Rows
    passing: Rows
    distance: ColumnElement[float]
    order: ColumnElement[float]


class _Sources:
    """Tables that a search may be of, each read if the model turns out to be the one it holds."""

    def __init__(self, space: Space, filters: Filters, limit: int, examined: int) -> None:
        self.space = space
        self.filters = filters
        self.examined = examined
        # of bits all of them are compared: the tenth nearest by signs may be the nearest
        self.gate = _gate(space, examined if space.index_type == "bit" else limit)
        self.each: list[_Source] = []
        if space.has_column:
            self._add_column()
        if space.has_partition:
            self._add_partition()

    @property
    def model_id(self) -> ColumnElement[int]:
        """The model that the search is of: a plan is made for any, and it is read before the plan's scans begin."""
        return select(self.gate.c.id).scalar_subquery()

    def few(self, wanted: ColumnElement[int], narrow: Narrow) -> CTE:
        """Return the nearest of all that pass, where these are known to be few."""
        rows = []
        for each in self.each:
            found = each.current.where(each.chunk_id == any_(narrow.chunk_ids))
            rows.append(self.filters.apply_to_chunks(found).order_by(each.distance + ZERO).limit(wanted))
        return _materialized("few", rows)

    def indexed(self, *conditions: ColumnElement[bool]) -> CTE:
        """Return what the index hands over first: so many rows, which may be more than are wanted."""
        taken = row_count(self.examined)
        rows = [each.passing.where(*conditions).order_by(each.order).limit(taken) for each in self.each]
        return _materialized("indexed", rows)

    def exact(self, wanted: ColumnElement[int], *conditions: ColumnElement[bool]) -> CTE:
        """Return the nearest of all that pass, in an order that no index has."""
        rows = [
            each.passing.where(*conditions).order_by(each.distance + ZERO).limit(wanted) for each in self.each
        ]
        return _materialized("exact", rows)

    def _add_column(self) -> None:
        distance: ColumnElement[float] = Chunk.embedding.cosine_distance(EMBEDDING)
        rows = select(
            Chunk.id, Chunk.version_id, Chunk.ordinal, Chunk.content, distance.label("distance")
        ).where(Chunk.is_current, Chunk.embedding.is_not(None))
        rows = rows.where(self.model_id == literal_column(str(COLUMN_MODEL)))
        self._add(Chunk.id, rows, READING_COSTS, distance, distance)

    def _add_partition(self) -> None:
        space, query = self.space, self._query()
        stored = cast(
            ChunkEmbedding.embedding, (VECTOR if space.index_type == "vector" else HALFVEC)(space.dimensions)
        )
        distance: ColumnElement[float] = stored.op(_OPERATORS[space.distance], return_type=Double())(query)
        if self.filters.are_given:
            rows: Rows = select(
                Chunk.id, Chunk.version_id, Chunk.ordinal, Chunk.content, distance.label("distance")
            )
            rows = rows.join_from(ChunkEmbedding, Chunk, Chunk.id == ChunkEmbedding.chunk_id)
        else:
            rows = select(ChunkEmbedding.chunk_id.label("id"), distance.label("distance"))
        rows = rows.where(ChunkEmbedding.is_current, ChunkEmbedding.embedding.is_not(None))
        if space.model_id is None:
            rows = rows.where(ChunkEmbedding.model_id == self.model_id, of_dimensions(space.dimensions))
        else:
            rows = rows.where(ChunkEmbedding.model_id == literal_column(str(space.model_id)))
        # once, before any scan: where one partition is left, each of its rows would be asked
        rows = rows.where(self.model_id > literal_column(str(COLUMN_MODEL)))
        order = distance
        if space.index_type == "bit":
            signs = [cast(func.binary_quantize(each), BIT(space.dimensions)) for each in (stored, query)]
            order = signs[0].op("<~>", return_type=Double())(signs[1])
        self._add(ChunkEmbedding.chunk_id, rows, READING_PARTITION_COSTS, distance, order)

    def _add(
        self,
        chunk_id: SQLColumnExpression[UUID],
        current: Rows,
        costs: ColumnElement[bool],
        distance: ColumnElement[float],
        order: ColumnElement[float],
    ) -> None:
        passing = self.filters.apply(current.where(costs))
        self.each.append(_Source(chunk_id, current, passing, distance, order))

    def _query(self) -> ColumnElement[Any]:
        """Return the query as it is compared with a partition's embeddings."""
        dimensions = self.space.dimensions
        if "query" in self.gate.c:
            return select(self.gate.c.query).scalar_subquery()
        if self.space.has_column:
            return EMBEDDING
        own = Embedding(dimensions) if self.space.is_full else HalfEmbedding(dimensions)
        return bindparam(EMBEDDING.key, type_=own)


def _gate(space: Space, limit: int) -> CTE:
    """Return the id of the model that a search is of, asked once, by the statement itself; or an error.

    Every part of a search asks it before its scan begins, and so how an index is read is set there too. Where the query
    is sent in full because the column may be meant, it stands there in half precision as well: with length 1, which no
    cosine distance notices, so that float16 can hold it.
    """
    model_id = searched_model(space)
    if space.index_type != "none":
        model_id = case((scan_settings(limit), model_id))
    columns: list[ColumnElement[Any]] = [model_id.label("id")]
    if space.has_column and space.has_partition:
        half = HALFVEC(space.dimensions)
        columns.append(cast(func.l2_normalize(EMBEDDING), half).label("query"))
    return select(*columns).cte("gate").prefix_with("MATERIALIZED")


def _materialized(name: str, rows: Sequence[Rows]) -> CTE:
    """Return the rows of each, of which one at most has any."""
    if len(rows) == 1:
        return rows[0].cte(name).prefix_with("MATERIALIZED")
    each = [part.subquery(f"{name}_{number}") for number, part in enumerate(rows)]
    whole = [select(part) if "content" in part.c else _with_chunks(part) for part in each]
    return union_all(*whole).cte(name).prefix_with("MATERIALIZED")


def _with_chunks(hits: FromClause) -> Select[*tuple[Any, ...]]:
    """Return hits with their chunks, each read by its key."""
    chunk = (
        select(Chunk.version_id, Chunk.ordinal, Chunk.content)
        .where(Chunk.id == hits.c.id)
        .correlate(hits)
        .offset(ONE_BY_ONE)
        .lateral("chunk")
    )
    return select(hits.c.id, *chunk.c, hits.c.distance).select_from(hits.join(chunk, true()))
