"""Graphs for the tests: entities and relations by name, mentions of them in chunks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from ragschema.schema.base import Executor

Edges = Iterable[tuple[Any, ...]]
"""Source, type and target, and the weight where it is not 1."""


def add_graph(
    session: Executor,
    edges: Edges,
    *,
    names: Iterable[str] = (),
    entity_type: str = "thing",
    imported: bool = True,
) -> dict[str, UUID]:
    """Insert relations ``(source, type, target, weight)`` between entities of these names; return the entities' ids."""
    edges = [(*edge, 1.0)[:4] for edge in edges]
    wanted = {*names, *(edge[0] for edge in edges), *(edge[2] for edge in edges)}
    ids = {}
    for name in sorted(wanted):
        ids[name] = session.execute(
            sa.text(
                "INSERT INTO rag_entities (entity_type, name, is_current, is_imported) VALUES (:type, :name, :is, :is)"
                " RETURNING id"
            ),
            {"type": entity_type, "name": name, "is": imported},
        ).scalar_one()
    for source, relation_type, target, weight in edges:
        session.execute(
            sa.text(
                "INSERT INTO rag_relations (source_id, relation_type, target_id, weight, is_current, is_imported)"
                " VALUES (:source, :type, :target, :weight, :is, :is)"
            ),
            {
                "source": ids[source],
                "type": relation_type,
                "target": ids[target],
                "weight": weight,
                "is": imported,
            },
        )
    return ids


def mention(session: Executor, said: Mapping[UUID, Iterable[UUID]], table: str) -> None:
    """Say that chunks mention entities, or relations; these are current then.

    Args:
        session: In whose transaction.
        said: By chunk, what it mentions.
        table: ``entity`` or ``relation``.
    """
    for chunk_id, ids in said.items():
        for each in ids:
            session.execute(
                sa.text(f"INSERT INTO rag_{table}_mentions (chunk_id, {table}_id) VALUES (:chunk, :id)"),
                {"chunk": chunk_id, "id": each},
            )
            plural = {"entity": "rag_entities", "relation": "rag_relations"}[table]
            session.execute(sa.text(f"UPDATE {plural} SET is_current = true WHERE id = :id"), {"id": each})
