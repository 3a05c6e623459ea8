"""Facts of the graph: what is current of it follows what publishing makes current, in the same transaction.

Who changes is_current of chunks says so first, by `SETTLING`, so that the trigger that does this for everybody else's
SQL has nothing to do; then calls `settle_facts`, which takes the word back. Where there is no graph, publishing calls
nothing: the last of its statements asks.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from ragschema.database.citus import is_on_citus
from ragschema.models import ChunkEventType
from ragschema.publishing.transactions import connection_of
from ragschema.publishing.version_plan import VersionPlan
from ragschema.schema.base import Executor

SETTLING = "set_config('ragschema.settling', 'on', true)"
"""Says that facts are settled by us, until the transaction ends or `SETTLED`."""
SETTLED = "set_config('ragschema.settling', '', true)"
HAS_FACTS = (
    "coalesce((SELECT true FROM rag_entity_mentions LIMIT 1), (SELECT true FROM rag_extractions LIMIT 1),"
    " (SELECT true FROM rag_relation_mentions LIMIT 1), false)"
)


@dataclass(frozen=True)
class FactChanges:
    """What has become of chunks, as far as the graph is concerned.

    Attributes:
        changed: Those that became current, or ceased to be.
        copies: New ones with the text of another one of their document, whose facts they inherit.
        originals: These others, in the order of `copies`.
    """

    changed: Sequence[UUID] = ()
    copies: Sequence[UUID] = ()
    originals: Sequence[UUID] = ()

    def __bool__(self) -> bool:
        return bool(self.changed or self.copies)


def planned_changes(
    plan: VersionPlan, rows: Mapping[str, Any], hidden: Sequence[UUID], *, undeleted: bool
) -> FactChanges:
    """Return what the publication of a plan changes.

    Args:
        plan: What was written.
        rows: Of it, by `version_rows`.
        hidden: Chunks that are current no more.
        undeleted: Whether none of the document's chunks was current before.
    """
    written = {*rows["new_ordinals"]}
    changed = [*hidden]
    changed += [
        place.chunk_id
        for place in plan.places
        if place.chunk_id is not None
        and place.ordinal not in written
        and (undeleted or place.event_type is not ChunkEventType.unchanged)
    ]
    copied = [
        (new_id, original)
        for new_id, ordinal in zip(rows["new_ids"], rows["new_ordinals"], strict=True)
        if (original := plan.places[ordinal].same_text) is not None
    ]
    return FactChanges(changed, [new_id for new_id, _ in copied], [original for _, original in copied])


def settle_facts(session: Executor, changes: Iterable[FactChanges]) -> None:
    """Make current what current chunks mention, and nothing else but what was imported, in one statement.

    Locks the entities and relations that the chunks mention, in the order of their ids, until the transaction ends: the
    chunks are locked, and nothing of the transaction locks more of them.
    """
    changes = list(changes)
    parameters = {
        name: [each for change in changes for each in getattr(change, name)]
        for name in ("changed", "copies", "originals")
    }
    connection = connection_of(session)
    if parameters["copies"] and is_on_citus(connection):  # it makes no generic plan of these statements
        for statement in _INHERIT:
            connection.execute(statement, parameters)
        parameters["copies"] = []
    connection.execute(_SETTLE, parameters)


def forget_facts(session: Executor, chunks: str, parameters: Mapping[str, Collection[UUID]]) -> None:
    """Take from the graph what only chunks say that are about to be deleted.

    Their mentions and extractions go, and so does every entity and relation that no other chunk mentions and nobody
    has imported. Locks the chunks, then what they mention.

    Args:
        session: A session or connection.
        chunks: A query of their ids.
        parameters: Of the query.
    """
    connection = connection_of(session)
    if is_on_citus(connection):  # a function that is handed to a node beside a table can read none itself
        ids = connection.scalars(sa.text(chunks), parameters).all()
        connection.execute(_FORGET, {"ids": ids})
    else:
        connection.execute(sa.text(f"SELECT rag_forget_facts(ARRAY({chunks}))"), parameters)


_COPIED = "unnest(CAST(:copies AS uuid[]), CAST(:originals AS uuid[])) AS n (copy, original)"
_CHUNKS = "ANY(CAST(:changed AS uuid[]) || CAST(:originals AS uuid[]))"
# What rag_settle_facts does for copies, in the same order.
_INHERIT = (
    sa.text("SELECT id FROM rag_chunks WHERE id = ANY(CAST(:originals AS uuid[])) ORDER BY id FOR SHARE"),
    *(
        sa.text(f"""
        SELECT f.id FROM rag_{facts} f
        WHERE f.id = ANY(ARRAY(SELECT m.{fact}_id FROM rag_{fact}_mentions m WHERE m.chunk_id = {_CHUNKS}))
        ORDER BY f.id FOR NO KEY UPDATE
        """)
        for fact, facts in (("entity", "entities"), ("relation", "relations"))
    ),
    sa.text(f"""
        INSERT INTO rag_extractions (chunk_id, extractor_version, created_at)
        SELECT n.copy, x.extractor_version, x.created_at
        FROM {_COPIED} JOIN rag_extractions x ON x.chunk_id = n.original ON CONFLICT DO NOTHING
    """),
    *(
        sa.text(f"""
        INSERT INTO rag_{fact}_mentions (chunk_id, {fact}_id)
        SELECT n.copy, m.{fact}_id
        FROM {_COPIED} JOIN rag_{fact}_mentions m ON m.chunk_id = n.original ON CONFLICT DO NOTHING
        """)
        for fact in ("entity", "relation")
    ),
)
_FORGET = sa.text("SELECT rag_forget_facts(CAST(:ids AS uuid[]))")
_SETTLE = sa.text(
    f"SELECT {SETTLED}, rag_settle_facts(CAST(:changed AS uuid[]), CAST(:copies AS uuid[]), CAST(:originals AS uuid[]))"
)
