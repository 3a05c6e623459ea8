"""Walks through the graph: the neighbourhood of entities, and the paths between two."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

import sqlalchemy as sa

from ragschema.graph.arguments import check_id, check_number, check_types
from ragschema.graph.errors import GraphError
from ragschema.graph.walk_statements import SOURCE, TARGET, Shape, neighbours_statement, paths_statement
from ragschema.schema.base import Executor
from ragschema.values import check_choice, several

Direction = Literal["both", "out", "in"]

_ENDS = {"both": (SOURCE, TARGET), "out": (SOURCE,), "in": (TARGET,)}
_MOST = 100_000
_MOST_HOPS = 3
_LONGEST = 6


@dataclass(frozen=True)
class Neighbour:
    """An entity that a walk has come to, and the relation by which it did.

    Attributes:
        entity_id: The entity.
        entity_type: Its type.
        name: Its name.
        description: What is said of it.
        hops: How many relations away it is, by the shortest way that was walked.
        from_id: The entity one hop before.
        relation_id: The relation between the two: of several the weightiest.
        relation_type: Its type.
        weight: Its weight.
        is_outgoing: Whether it leads from the entity one hop before to this one, and not the other way round.
    """

    entity_id: UUID
    entity_type: str
    name: str
    description: str | None
    hops: int
    from_id: UUID
    relation_id: UUID
    relation_type: str
    weight: float
    is_outgoing: bool


@dataclass(frozen=True)
class PathEntity:
    """An entity on a path."""

    entity_id: UUID
    entity_type: str
    name: str


@dataclass(frozen=True)
class PathRelation:
    """A relation on a path, which may be walked against its direction.

    Attributes:
        relation_id: The relation.
        relation_type: Its type.
        source_id: Where it leads from.
        target_id: Where it leads to.
        weight: Its weight.
    """

    relation_id: UUID
    relation_type: str
    source_id: UUID
    target_id: UUID
    weight: float


@dataclass(frozen=True)
class Path:
    """A way from one entity to another.

    Attributes:
        entities: From the first to the last, one more than relations.
        relations: Between each entity and the next.
    """

    entities: tuple[PathEntity, ...]
    relations: tuple[PathRelation, ...]


def neighbours(
    session: Executor,
    ids: Collection[UUID],
    *,
    hops: int = 1,
    fanout: int = 25,
    frontier: int = 500,
    relation_types: Collection[str] | None = None,
    direction: Direction = "both",
) -> list[Neighbour]:
    """Return the entities around some, nearest first and the weightiest relations first, without these themselves.

    Only current relations and entities are walked. At each hop the weightiest are: so a hub with a hundred thousand
    relations costs what any entity costs.

    Args:
        session: Reads only.
        ids: The entities to begin at. One that was merged stands for the one that was kept; others that are not
            current, or not there, have no neighbours.
        hops: How many relations to follow, 1 to 3.
        fanout: How many relations of each entity are followed at most, the weightiest.
        frontier: How many entities of each hop are kept at most, those of the weightiest relations.
        relation_types: Follow only relations of these types; an empty one follows none.
        direction: ``out`` follows relations from their source, ``in`` from their target, ``both`` either way.

    Raises:
        GraphError: An argument cannot be used.
    """
    begun = several("ids", ids, GraphError, each=UUID)
    check_number("hops", hops, 1, _MOST_HOPS)
    shape, values = _shape(fanout, frontier, relation_types, direction, is_capped=True)
    statement = neighbours_statement(hops, shape)
    rows = session.execute(statement, values | {"ids": begun}).mappings()
    return [Neighbour(**row) for row in rows]


def paths(
    session: Executor,
    a: UUID,
    b: UUID,
    *,
    max_hops: int = 4,
    fanout: int = 25,
    frontier: int = 500,
    relation_types: Collection[str] | None = None,
    direction: Direction = "both",
    exhaustive: bool = False,
    limit: int = 10,
) -> list[Path]:
    """Return the shortest paths found from one entity to another: all of one length, one for each entity midway.

    **Under its caps a path is not guaranteed to be the shortest, nor to be found at all**: the walk passes over the
    lighter relations of an entity that has more than ``fanout``, and over the lighter entities of a level that has more
    than ``frontier``. With ``exhaustive`` no relation is passed over, and there is no shorter path, at the cost of
    every relation within half of the hops of either end: of all relations there are, where a hub is near.

    Args:
        session: Reads only.
        a: Where the paths begin; one that was merged stands for the one that was kept.
        b: Where they end.
        max_hops: How many relations a path has at most, 1 to 6.
        fanout: How many relations of each entity are followed at most, the weightiest.
        frontier: How many entities of each level are kept at most.
        relation_types: Follow only relations of these types.
        direction: ``out`` follows relations from source to target, ``in`` the other way, ``both`` either way.
        exhaustive: Whether to follow all relations; fanout and frontier say nothing then.
        limit: How many paths at most.

    Returns:
        The paths; none where none was found, or where both are the same entity.

    Raises:
        GraphError: An argument cannot be used.
    """
    check_id("a", a)
    check_id("b", b)
    check_number("max_hops", max_hops, 1, _LONGEST)
    check_number("limit", limit, 1, _MOST)
    shape, values = _shape(fanout, frontier, relation_types, direction, is_capped=not exhaustive)
    if a == b:
        return []
    found = session.execute(paths_statement(max_hops, shape), values | {"a": a, "b": b, "limit": limit}).all()
    found = [row for row in found if row.entity_ids[0] != row.entity_ids[-1]]
    return _read_paths(session, found)


def _shape(
    fanout: int,
    frontier: int,
    relation_types: Collection[str] | None,
    direction: str,
    *,
    is_capped: bool,
) -> tuple[Shape, dict[str, Any]]:
    check_number("fanout", fanout, 1, _MOST)
    check_number("frontier", frontier, 1, _MOST)
    check_choice("direction", direction, tuple(_ENDS), GraphError)
    types = check_types("relation_types", relation_types)
    values: dict[str, Any] = {"fanout": fanout, "frontier": frontier} if is_capped else {}
    if types is not None:
        values["relation_types"] = types
    return Shape(_ENDS[direction], types is not None, is_capped), values


def _read_paths(session: Executor, found: Sequence[sa.Row[Any]]) -> list[Path]:
    """Return paths with what is said of their entities and relations."""
    if not found:
        return []
    entity_ids = {each for row in found for each in row.entity_ids}
    relation_ids = {each for row in found for each in row.relation_ids}
    entities = {row.id: PathEntity(*row) for row in session.execute(_ENTITIES, {"ids": [*entity_ids]})}
    relations = {row.id: PathRelation(*row) for row in session.execute(_RELATIONS, {"ids": [*relation_ids]})}
    return [
        Path(
            tuple(entities[each] for each in row.entity_ids),
            tuple(relations[each] for each in row.relation_ids),
        )
        for row in found
        if entities.keys() >= {*row.entity_ids} and relations.keys() >= {*row.relation_ids}
    ]


_ENTITIES = sa.text(
    "SELECT id, entity_type, name FROM rag_entities WHERE id = ANY(CAST(:ids AS uuid[]))"
).columns(id=sa.Uuid())
_RELATIONS = sa.text("""
SELECT id, relation_type, source_id, target_id, weight FROM rag_relations WHERE id = ANY(CAST(:ids AS uuid[]))
""").columns(id=sa.Uuid(), source_id=sa.Uuid(), target_id=sa.Uuid())
