"""The statement of a local search: from the nearest chunks to entities, to relations, and to what says them."""

from __future__ import annotations

from typing import Any, TypeAlias

from sqlalchemy import (
    CTE,
    Select,
    SQLColumnExpression,
    and_,
    cast,
    func,
    literal_column,
    select,
    true,
    union_all,
)
from sqlalchemy.dialects.postgresql import JSONB, aggregate_order_by
from sqlalchemy.orm import aliased

from ragschema.graph.limits import Limits
from ragschema.models import Chunk, Entity, EntityMention, Relation, RelationMention
from ragschema.queries.arguments import built_once, row_count
from ragschema.queries.filters import Filters, Rows, located
from ragschema.queries.planner_hints import ONE_BY_ONE, ZERO
from ragschema.queries.spaces import Space
from ragschema.queries.vector_hits import vector_hits
from ragschema.queries.wording import worded

Found: TypeAlias = Select[Any, Any, Any, Any]

_SOURCE, _TARGET = aliased(Entity, name="source"), aliased(Entity, name="target")


@built_once
def local_statement(limits: Limits, filters: Filters, space: Space, *, is_near: bool) -> Found:
    """Return the statement: one row of four JSON arrays, the chunks, entities, relations and evidence."""
    hits = _nearest(limits, filters, space, is_near=is_near)
    entities = _entities(hits, limits)
    relations = _relations(entities, filters, limits)
    evidence = _evidence(relations, filters, limits)
    return select(
        _gathered(hits, "chunks", hits.c.distance + ZERO, hits.c.chunk_id),
        _gathered(entities, "entities", entities.c.chunks.desc(), entities.c.distance, entities.c.entity_id),
        _gathered(
            relations,
            "relations",
            relations.c.is_inner.desc(),
            relations.c.weight.desc(),
            relations.c.relation_id,
        ),
        _gathered(evidence, "evidence", evidence.c.chunk_id),
    )


def _nearest(limits: Limits, filters: Filters, space: Space, *, is_near: bool) -> CTE:
    hits = vector_hits(limits.chunks, filters, space, is_near=is_near)
    columns, joined = located(hits, ["distance"])
    found = worded(select(*columns).select_from(joined), "found")
    return select(*found.c).cte("nearest").prefix_with("MATERIALIZED")


def _entities(hits: CTE, limits: Limits) -> CTE:
    """Return the current entities that the nearest chunks mention: those that most of them do first."""
    mention = (
        select(EntityMention.entity_id)
        .where(EntityMention.chunk_id == hits.c.chunk_id)
        .correlate(hits)
        .offset(ONE_BY_ONE)
        .lateral("mention")
    )
    mentioned = (
        select(
            mention.c.entity_id,
            func.count().label("chunks"),
            func.min(hits.c.distance).label("distance"),
        )
        .select_from(hits.join(mention, true()))
        .group_by(mention.c.entity_id)
        .subquery("mentioned")
    )
    entity = (
        select(Entity.entity_type, Entity.name, Entity.description)
        .where(Entity.id == mentioned.c.entity_id, Entity.is_current)
        .correlate(mentioned)
        .offset(ONE_BY_ONE)
        .lateral("entity")
    )
    return (
        select(*mentioned.c, *entity.c)
        .select_from(mentioned.join(entity, true()))
        .order_by(mentioned.c.chunks.desc(), mentioned.c.distance, mentioned.c.entity_id)
        .limit(row_count(limits.entities))
        .cte("entities")
        .prefix_with("MATERIALIZED")
    )


def _relations(entities: CTE, filters: Filters, limits: Limits) -> CTE:
    """Return the current relations of these entities, those between two of them first, then the weightiest."""
    sides = [
        select(each).correlate(entities)
        for each in (
            _side(entities, Relation.source_id, limits).subquery("from_it"),
            _side(entities, Relation.target_id, limits).subquery("to_it"),
        )
    ]
    each = union_all(*sides).lateral("each_relation")
    followed = select(each).select_from(entities.join(each, true())).distinct().subquery("followed")
    names = [select(entities.c.entity_id).scalar_subquery() for _ in range(2)]
    is_inner = and_(followed.c.source_id.in_(names[0]), followed.c.target_id.in_(names[1]))
    rows = (
        select(
            followed.c.id.label("relation_id"),
            followed.c.relation_type,
            followed.c.source_id,
            _SOURCE.name.label("source_name"),
            followed.c.target_id,
            _TARGET.name.label("target_name"),
            followed.c.weight,
            followed.c.description,
            is_inner.label("is_inner"),
        )
        .select_from(followed)
        .join(_SOURCE, and_(_SOURCE.id == followed.c.source_id, _SOURCE.is_current))
        .join(_TARGET, and_(_TARGET.id == followed.c.target_id, _TARGET.is_current))
    )
    if filters.are_given:
        rows = rows.where(_saying(filters, followed.c.id, literal_column("1")).exists())
    return (
        rows.order_by(is_inner.desc(), followed.c.weight.desc(), followed.c.id)
        .limit(row_count(limits.relations))
        .cte("relations")
        .prefix_with("MATERIALIZED")
    )


def _side(entities: CTE, end: Any, limits: Limits) -> Rows:
    return (
        select(
            Relation.id,
            Relation.relation_type,
            Relation.source_id,
            Relation.target_id,
            Relation.weight,
            Relation.description,
        )
        .where(end == entities.c.entity_id, Relation.is_current)
        .correlate(entities)
        .order_by(Relation.weight.desc(), Relation.id)
        .limit(row_count(limits.fanout))
    )


def _saying(filters: Filters, relation_id: SQLColumnExpression[Any], *columns: Any) -> Any:
    """Return the current chunks that say a relation and pass the filters."""
    saying = (
        select(*columns)
        .select_from(RelationMention)
        .join(Chunk, and_(Chunk.id == RelationMention.chunk_id, Chunk.is_current))
        .where(RelationMention.relation_id == relation_id)
    )
    return filters.apply(saying)


def _evidence(relations: CTE, filters: Filters, limits: Limits) -> CTE:
    """Return the current chunks that say the relations and pass the filters, some of the newest of each relation."""
    saying = (
        _saying(filters, relations.c.relation_id, Chunk.id, Chunk.version_id, Chunk.ordinal, Chunk.content)
        .correlate(relations)
        .order_by(Chunk.id.desc())
        .limit(row_count(limits.evidence))
        .lateral("saying")
    )
    said = (
        select(relations.c.relation_id, *saying.c)
        .select_from(relations.join(saying, true()))
        .subquery("said")
    )
    whole = (
        select(
            said.c.id,
            said.c.version_id,
            said.c.ordinal,
            said.c.content,
            func.array_agg(said.c.relation_id).label("relation_ids"),
        )
        .group_by(said.c.id, said.c.version_id, said.c.ordinal, said.c.content)
        .subquery("whole")
    )
    columns, joined = located(whole, ["relation_ids"])
    return select(*columns).select_from(joined).cte("evidence").prefix_with("MATERIALIZED")


def _gathered(rows: CTE, name: str, *order: Any) -> Any:
    """Return rows as one JSON array, in order."""
    own = func.to_jsonb(literal_column(rows.name))
    listed = func.coalesce(func.jsonb_agg(aggregate_order_by(own, *order)), literal_column("'[]'::jsonb"))
    return select(cast(listed, JSONB)).select_from(rows).scalar_subquery().label(name)
