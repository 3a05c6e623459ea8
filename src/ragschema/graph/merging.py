"""Merging of entities that are one, and the way back."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

import sqlalchemy as sa

from ragschema.graph.errors import GraphError, unknown_entity
from ragschema.graph.records import check_id
from ragschema.schema.base import Executor


@dataclass(frozen=True)
class EntityMerge:
    """A merge of an entity into another one.

    Attributes:
        kept_id: The entity that was kept.
        merged_id: The other one, whose name and aliases lead to it now.
        mentions: How many chunks mentioned the other one.
        relations: How many of its relations, with evidence, are the kept one's now.
    """

    kept_id: UUID
    merged_id: UUID
    mentions: int
    relations: int


def merge_entities(session: Executor, keep: UUID, *others: UUID) -> list[EntityMerge]:
    """Merge entities into one that is kept, in the caller's transaction; `undo_merge` takes each back.

    The others' mentions and relations are the kept one's from now on; their names and aliases lead to it, for
    extractions to come as well. Description, properties and weights of what is kept stay as they are. They may be of
    other types. Locks all of them, in the order of their ids.

    Raises:
        GraphError: One is the kept one itself, is named twice, or was merged before.
        UnknownEntity: One is not there.
    """
    check_id("keep", keep)
    for place, other in enumerate(others):
        check_id(f"others[{place}]", other)
    if not others or len({keep, *others}) <= len(others):
        raise GraphError(
            "The entity that is kept, and those that are merged into it, are not so many different ones.",
            "Pass one to keep, and one or more others, each once.",
        )
    found = session.execute(_LOCK, {"ids": [keep, *others]}).all()
    into = {row.id: row.merged_into for row in found}
    for each in (keep, *others):
        if each not in into:
            raise unknown_entity(each)
        if into[each] is not None:
            raise GraphError(
                f"The entity {each} was merged into {into[each]} before.",
                "Merge that one, or take the merge back by undo_merge.",
            )
    merges = []
    for other in others:
        session.execute(_MERGE, {"kept": keep, "merged": other})
        merges.append(EntityMerge(*session.execute(_LOGGED, {"merged": other}).one()))
    return merges


def undo_merge(session: Executor, merged_id: UUID) -> EntityMerge:
    """Make an entity that was merged one of its own again, in the caller's transaction.

    Its mentions and relations are its own again, as far as their chunks are kept; its name and aliases lead to it.
    What was read since under one of these names stays with the entity that was kept: nobody can tell whose it is. Only
    in a chunk that mentioned the merged one alone before, the mention is one and goes back, whoever has read it again.

    Raises:
        GraphError: It was not merged; or the one that was kept was merged itself since, which is undone first.
    """
    check_id("merged_id", merged_id)
    logged = session.execute(_LOCK_LOGGED, {"merged": merged_id}).one_or_none()
    if logged is None:
        raise GraphError(
            f"The entity {merged_id} was not merged, or went with the last chunk that mentioned it.",
            "Pass the merged_id of a merge that was not taken back.",
        )
    [(_, since)] = session.execute(_LOCK, {"ids": [logged.kept_id]}).all()
    if since is not None:
        raise GraphError(
            f"The entity {logged.kept_id}, which was kept, was merged into {since} since.",
            f"Undo that merge first: undo_merge(session, UUID('{logged.kept_id}')).",
        )
    session.execute(_UNDO, {"merged": merged_id})
    return EntityMerge(*logged)


_LOCK = sa.text(
    "SELECT id, merged_into FROM rag_entities WHERE id = ANY(CAST(:ids AS uuid[])) ORDER BY id FOR UPDATE"
)
_MERGE = sa.text("SELECT rag_merge_entity(:kept, :merged)")
_UNDO = sa.text("SELECT rag_undo_merge(:merged)")
_READ_LOG = """
SELECT kept_id, merged_id, jsonb_array_length(moved -> 'chunks') AS mentions,
    jsonb_array_length(moved -> 'relations') AS relations
FROM rag_entity_merges WHERE merged_id = :merged
"""
_LOGGED, _LOCK_LOGGED = sa.text(_READ_LOG), sa.text(f"{_READ_LOG} FOR UPDATE")
