"""Inspection of the graph: what there is, and what is not as it should be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from uuid import UUID

import sqlalchemy as sa

from ragschema.graph.arguments import check_number
from ragschema.schema.base import Executor

_MOST = 100_000


@dataclass(frozen=True)
class TypeCount:
    """How many entities or relations there are of a type.

    Attributes:
        type: The type.
        number: How many there are, those that were merged left out.
        current: How many of them are current.
        imported: How many were imported, and need no chunk to be current.
    """

    type: str
    number: int
    current: int
    imported: int


@dataclass(frozen=True)
class GraphStats:
    """What there is.

    Attributes:
        entities: Entities by their types, the most frequent first.
        relations: Relations by theirs.
        entity_mentions: Mentions of entities in chunks.
        relation_mentions: Mentions of relations.
        extractions: Readings of chunks by extractors.
        aliases: Other names of entities.
        merged: Entities that were merged into others.
    """

    entities: tuple[TypeCount, ...]
    relations: tuple[TypeCount, ...]
    entity_mentions: int
    relation_mentions: int
    extractions: int
    aliases: int
    merged: int


@dataclass(frozen=True)
class BrokenPart:
    """An entity or relation that is not as its mentions say.

    Attributes:
        kind: Which of the two it is.
        id: Its id.
        name: Its name; of a relation its type.
        problem: ``wrongly current``, ``wrongly not current``, or ``of an entity that is not current``.
    """

    kind: Literal["entity", "relation"]
    id: UUID
    name: str
    problem: Literal["wrongly current", "wrongly not current", "of an entity that is not current"]


def read_stats(session: Executor) -> GraphStats:
    """Return how many entities, relations and mentions there are; reads all of them."""
    entities = [TypeCount(*row) for row in session.execute(_ENTITY_TYPES)]
    relations = [TypeCount(*row) for row in session.execute(_RELATION_TYPES)]
    return GraphStats(tuple(entities), tuple(relations), *session.execute(_COUNTS).one())


def find_broken(session: Executor, *, limit: int = 100) -> list[BrokenPart]:
    """Return entities and relations that are marked otherwise than their mentions say; reads all of them.

    Raises:
        GraphError: The limit is no whole number from 1 to 100,000.
    """
    check_number("limit", limit, 1, _MOST)
    return [BrokenPart(*row) for row in session.execute(_BROKEN, {"limit": limit})]


_BY_TYPE = """
SELECT {type}, count(*), count(*) FILTER (WHERE is_current), count(*) FILTER (WHERE is_imported)
FROM {table} GROUP BY 1 ORDER BY 2 DESC, 1
"""
_ENTITY_TYPES = sa.text(
    _BY_TYPE.format(type="entity_type", table="(SELECT * FROM rag_entities WHERE merged_into IS NULL) e")
)
_RELATION_TYPES = sa.text(_BY_TYPE.format(type="relation_type", table="rag_relations"))
_COUNTS = sa.text("""
SELECT (SELECT count(*) FROM rag_entity_mentions), (SELECT count(*) FROM rag_relation_mentions),
    (SELECT count(*) FROM rag_extractions), (SELECT count(*) FROM rag_entity_aliases),
    (SELECT count(*) FROM rag_entities WHERE merged_into IS NOT NULL)
""")
# Who is mentioned is found from the mentions, once, and not asked of each.
_BROKEN = sa.text("""
WITH entities AS MATERIALIZED (
    SELECT DISTINCT m.entity_id AS id FROM rag_entity_mentions m JOIN rag_chunks c ON c.id = m.chunk_id AND c.is_current
), relations AS MATERIALIZED (
    SELECT DISTINCT m.relation_id AS id FROM rag_relation_mentions m
    JOIN rag_chunks c ON c.id = m.chunk_id AND c.is_current
)
SELECT * FROM (
    SELECT 'entity', e.id, e.name,
        CASE WHEN e.is_current THEN 'wrongly current' ELSE 'wrongly not current' END
    FROM rag_entities e LEFT JOIN entities m ON m.id = e.id
    WHERE e.is_current <> (e.merged_into IS NULL AND (e.is_imported OR m.id IS NOT NULL))
    UNION ALL
    SELECT 'relation', r.id, r.relation_type,
        CASE WHEN r.is_current THEN 'wrongly current' ELSE 'wrongly not current' END
    FROM rag_relations r LEFT JOIN relations m ON m.id = r.id
    WHERE r.is_current <> (r.is_imported OR m.id IS NOT NULL)
    UNION ALL
    SELECT 'relation', r.id, r.relation_type, 'of an entity that is not current'
    FROM rag_relations r JOIN rag_entities s ON s.id = r.source_id JOIN rag_entities t ON t.id = r.target_id
    WHERE r.is_current AND NOT (s.is_current AND t.is_current)
) broken (kind, id, name, problem)
ORDER BY kind, id LIMIT :limit
""").columns(id=sa.Uuid())
