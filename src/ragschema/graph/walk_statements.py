"""Statements of walks: a level of entities for each hop, as SQL of so many levels.

A level is its own subquery, which PostgreSQL works out once, from the entities of the level before. In a recursive
query the levels share one: an entity is met again by every way that leads to it, and no level can be cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import sqlalchemy as sa

SOURCE, TARGET = "source", "target"


@dataclass(frozen=True)
class Shape:
    """What the SQL of a walk depends on; everything else is a parameter.

    Attributes:
        ends: From which end relations are followed: source, target or both.
        by_type: Whether only relations of some types are.
        is_capped: Whether the weightiest are, at most so many from each entity and so many entities of each level.
    """

    ends: tuple[str, ...] = (SOURCE, TARGET)
    by_type: bool = False
    is_capped: bool = True

    def reversed(self) -> Shape:
        """Return the shape of the walk that goes the other way along the same relations."""
        other = {SOURCE: TARGET, TARGET: SOURCE}
        return Shape(tuple(other[end] for end in self.ends), self.by_type, self.is_capped)


def start(name: str, ids: str) -> str:
    """Return a level of entities that are given; in place of one that was merged stands the one that was kept."""
    return f"""{name} AS MATERIALIZED (
    SELECT DISTINCT k.id FROM rag_entities e JOIN rag_entities k ON k.id = coalesce(e.merged_into, e.id)
    WHERE e.id = ANY({ids}) AND k.is_current
)"""


def level(name: str, before: str, seen: tuple[str, ...], shape: Shape) -> str:
    """Return a level: the entities one relation from those of the level before, that no level has seen.

    Rows are ``(id, from_id, relation_id, relation_type, weight, is_outgoing)``, of several relations that lead to an
    entity the weightiest. The ends of a current relation are current, unless somebody's own SQL has made one otherwise:
    so an entity is asked whether it is after the cut, where there are few.
    """
    sides = [_side(end, shape) for end in shape.ends]
    followed = (
        sides[0] if len(sides) == 1 else "\n        UNION ALL\n        ".join(f"({each})" for each in sides)
    )
    if shape.is_capped and len(sides) > 1:
        followed = f"{followed}\n        ORDER BY weight DESC, relation_id LIMIT :fanout"
    known = " AND ".join(f"s.id NOT IN (SELECT id FROM {each})" for each in seen)
    limit = " LIMIT :frontier" if shape.is_capped else ""
    return f"""{name} AS MATERIALIZED (
    SELECT w.* FROM (
        SELECT s.* FROM (
            SELECT DISTINCT ON (f.id) f.id, b.id AS from_id, f.relation_id, f.relation_type, f.weight, f.is_outgoing
            FROM {before} b CROSS JOIN LATERAL (
            {followed}
            ) f
            ORDER BY f.id, f.weight DESC, f.relation_id
        ) s
        WHERE {known}
        ORDER BY s.weight DESC, s.relation_id{limit}
    ) w
    WHERE (SELECT e.is_current FROM rag_entities e WHERE e.id = w.id)
)"""


def _side(end: str, shape: Shape) -> str:
    other = TARGET if end == SOURCE else SOURCE
    of_type = " AND r.relation_type = ANY(CAST(:relation_types AS text[]))" if shape.by_type else ""
    order = " ORDER BY r.weight DESC, r.id LIMIT :fanout" if shape.is_capped else ""
    return (
        f"SELECT r.{other}_id AS id, r.id AS relation_id, r.relation_type, r.weight, {end == SOURCE} AS is_outgoing"
        f" FROM rag_relations r WHERE r.is_current AND r.{end}_id = b.id{of_type}{order}"
    )


@lru_cache(64)
def neighbours_statement(hops: int, shape: Shape) -> sa.TextualSelect:
    """Return the statement of the entities up to so many hops from some, nearest first."""
    names = [f"level_{number}" for number in range(hops + 1)]
    levels = [start(names[0], "CAST(:ids AS uuid[])")]
    levels += [level(names[hop], names[hop - 1], tuple(names[:hop]), shape) for hop in range(1, hops + 1)]
    found = "\n    UNION ALL ".join(
        f"SELECT {hop} AS hops, * FROM {names[hop]}" for hop in range(1, hops + 1)
    )
    sql = f"""
WITH {", ".join(levels)}
SELECT f.id AS entity_id, e.entity_type, e.name, e.description, f.hops, f.from_id, f.relation_id, f.relation_type,
    f.weight, f.is_outgoing
FROM (
    {found}
) f CROSS JOIN LATERAL (
    SELECT e.entity_type, e.name, e.description FROM rag_entities e WHERE e.id = f.id OFFSET 0
) e
ORDER BY f.hops, f.weight DESC, f.relation_id
"""
    return sa.text(sql).columns(entity_id=sa.Uuid(), from_id=sa.Uuid(), relation_id=sa.Uuid())


@lru_cache(64)
def paths_statement(hops: int, shape: Shape) -> sa.TextualSelect:
    """Return the statement of the shortest paths between two entities, of up to so many relations.

    From both ends at once, a level each in turn: where the levels meet, the way from the one end and the way from the
    other are a path. A level is looked at where the ones before it have not met, so that what is near costs little.
    """
    here, there = ["here_0"], ["there_0"]
    parts = [start("here_0", "ARRAY[CAST(:a AS uuid)]"), start("there_0", "ARRAY[CAST(:b AS uuid)]")]
    meetings: list[str] = []
    for length in range(1, hops + 1):
        side, walked = (here, shape) if length % 2 else (there, shape.reversed())
        prefix = side[0].removesuffix("_0")
        parts.append(_gated(level(f"{prefix}_{len(side)}", side[-1], tuple(side), walked), meetings))
        side.append(f"{prefix}_{len(side)}")
        meetings.append(f"meeting_{length}")
        parts.append(
            f"meeting_{length} AS MATERIALIZED (SELECT h.id FROM {here[-1]} h JOIN {there[-1]} t ON t.id = h.id"
            " ORDER BY h.id LIMIT :limit)"
        )
    found = "\nUNION ALL ".join(
        _traced(meeting, here[: (number + 1) // 2 + 1], there[: number // 2 + 1])
        for number, meeting in enumerate(meetings, 1)
    )
    sql = f"WITH {', '.join(parts)}\n{found}"
    return sa.text(sql).columns(entity_ids=sa.ARRAY(sa.Uuid()), relation_ids=sa.ARRAY(sa.Uuid()))


def _gated(part: str, meetings: list[str]) -> str:
    """Let a level be empty where one of those before it has met the other side."""
    if not meetings:
        return part
    conditions = "".join(f"NOT EXISTS (SELECT FROM {each}) AND " for each in meetings)
    return part.replace("\n        WHERE ", f"\n        WHERE {conditions}", 1)


def _traced(meeting: str, here: list[str], there: list[str]) -> str:
    """Return the paths through the entities of a meeting: back from each to both ends, level by level."""
    joins, ids = "", ["m.id"]
    relations: list[str] = []
    before = "m.id"
    for name in reversed(here[1:]):
        joins += f" JOIN {name} ON {name}.id = {before}"
        before = f"{name}.from_id"
        ids.insert(0, before)
        relations.insert(0, f"{name}.relation_id")
    before = "m.id"
    for name in reversed(there[1:]):
        joins += f" JOIN {name} ON {name}.id = {before}"
        before = f"{name}.from_id"
        ids.append(before)
        relations.append(f"{name}.relation_id")
    return (
        f"SELECT ARRAY[{', '.join(ids)}] AS entity_ids, ARRAY[{', '.join(relations)}] AS relation_ids"
        f" FROM {meeting} m{joins}"
    )
