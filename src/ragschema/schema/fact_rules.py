"""The rule of the graph that only all rows together can break, as a statement that lists what breaks it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from ragschema.words import counted

FACTS_SINCE = "20261128170100"
"""The revision from which on facts are kept current, whoever writes."""


@dataclass(frozen=True)
class BrokenFacts:
    """Facts of the graph that are current and should not be, or the other way.

    Attributes:
        kind: Whether they are entities or relations.
        problem: ``wrongly current``: no current chunk mentions them, and they were not imported. ``wrongly not
            current``: one does, or they were.
        ids: Of the entities or relations.
    """

    kind: Literal["entity", "relation"]
    problem: Literal["wrongly current", "wrongly not current"]
    ids: tuple[UUID, ...]

    def __str__(self) -> str:
        count = len(self.ids)
        what = "entities" if self.kind == "entity" and count != 1 else None
        return f"{f'{count:,} {what}' if what else counted(count, self.kind)} {self.problem}"


# The tables are joined as wholes: a full join is never a nested loop, which the planner would take where it expects
# few rows.
_COMPARED = """
    SELECT '{kind}' AS kind, f.id, f.is_current
    FROM {table} f FULL JOIN (
        SELECT DISTINCT m.{kind}_id AS id FROM {mentions} m JOIN rag_chunks c ON c.id = m.chunk_id WHERE c.is_current
    ) said ON said.id = f.id
    WHERE f.is_current <> (f.is_imported OR said.id IS NOT NULL)
"""
_BROKEN = f"""
WITH wrong AS (
    {_COMPARED.format(kind="entity", table="rag_entities", mentions="rag_entity_mentions")}
    UNION ALL
    {_COMPARED.format(kind="relation", table="rag_relations", mentions="rag_relation_mentions")}
)
SELECT kind, CASE WHEN is_current THEN 'wrongly current' ELSE 'wrongly not current' END AS problem,
    array_agg(id ORDER BY id) AS ids
FROM wrong GROUP BY kind, is_current ORDER BY kind, is_current DESC
"""


def broken_facts() -> sa.TextualSelect:
    """Select the facts whose stored flag is not what the chunks say; reads every fact and mention once.

    Returns:
        A statement of rows ``(kind, problem, ids)``, as of `BrokenFacts`.
    """
    return sa.text(_BROKEN).columns(kind=sa.Text, problem=sa.Text, ids=ARRAY(sa.Uuid))
