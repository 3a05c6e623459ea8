"""Inspection of the graph: what there is, and what is not as it should be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from uuid import UUID

import sqlalchemy as sa

from ragschema.graph.arguments import check_number
from ragschema.schema.base import Executor
from ragschema.schema.fact_rules import broken_facts

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
class BrokenFact:
    """An entity or relation that is not as it should be.

    Attributes:
        kind: Which of the two it is.
        id: Its id.
        name: Its name; of a relation its type.
        problem: ``wrongly current`` or ``wrongly not current``, as of `BrokenFacts`, or that it is a current relation
            of an entity that is not: walks do not go there.
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


def find_broken(session: Executor, *, limit: int = 100) -> list[BrokenFact]:
    """Return entities and relations that are marked otherwise than their mentions say; reads all of them.

    Raises:
        GraphError: The limit is no whole number from 1 to 100,000.
    """
    check_number("limit", limit, 1, _MOST)
    problems = {id_: row.problem for row in session.execute(broken_facts()) for id_ in row.ids}
    wrong = [*problems][:limit]
    found = [
        BrokenFact(row.kind, row.id, row.name, problems[row.id])
        for row in session.execute(_NAMES, {"ids": wrong})
    ]
    if len(found) < limit:
        found += [BrokenFact(*row) for row in session.execute(_LOOSE, {"limit": limit - len(found)})]
    return found


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
_NAMES = sa.text("""
SELECT 'entity' AS kind, id, name FROM rag_entities WHERE id = ANY(CAST(:ids AS uuid[]))
UNION ALL SELECT 'relation', id, relation_type FROM rag_relations WHERE id = ANY(CAST(:ids AS uuid[]))
ORDER BY kind, id
""").columns(id=sa.Uuid())
_LOOSE = sa.text("""
SELECT 'relation' AS kind, r.id, r.relation_type, 'of an entity that is not current'
FROM rag_relations r JOIN rag_entities s ON s.id = r.source_id JOIN rag_entities t ON t.id = r.target_id
WHERE r.is_current AND NOT (s.is_current AND t.is_current)
ORDER BY r.id LIMIT :limit
""").columns(id=sa.Uuid())
