"""The rows that a planned version writes, column by column."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from ragschema.models import ChunkEventType
from ragschema.publishing.version_plan import Place, VersionPlan
from ragschema.schema.ids import uuid7s


def version_rows(plan: VersionPlan, slots: Mapping[str, int], *, copy_unchanged: bool) -> dict[str, Any]:
    """Return the rows to write, column by column: parameters of the statements that publish.

    Args:
        plan: What to write.
        slots: Which of the embeddings that are sent is that of a text.
        copy_unchanged: Whether unchanged chunks get rows of their own.
    """
    new: list[tuple[UUID, Place, UUID | None]] = []
    marked: list[tuple[UUID, bool]] = [(id_, False) for id_ in plan.hidden]
    filled: list[tuple[UUID, int | None, UUID | None]] = []
    chunk_ids = []
    ids = iter(uuid7s(2 * len(plan.places) + len(plan.gone)))
    for place in plan.places:
        if place.chunk_id is None or copy_unchanged:
            new.append((next(ids), place, place.embedding_from or place.chunk_id))
            chunk_ids.append(new[-1][0])
        if place.chunk_id is None:
            continue
        if copy_unchanged:
            marked.append((place.chunk_id, False))
            continue
        chunk_ids.append(place.chunk_id)
        slot = slots.get(place.content) if place.is_pending else None
        if slot is None and place.embedding_from is None:
            marked.append((place.chunk_id, True))
        else:
            filled.append((place.chunk_id, slot, place.embedding_from))
    events = [
        *(
            (chunk_id, place.ordinal, place.event_type)
            for chunk_id, place in zip(chunk_ids, plan.places, strict=True)
        ),
        *((gone.chunk_id, gone.ordinal, ChunkEventType.deleted) for gone in plan.gone),
    ]
    sources = {place.chunk_id for place in plan.places} | {place.embedding_from for place in plan.places}
    return {
        "needed": list(sources - {None}),
        "new_ids": [id_ for id_, _, _ in new],
        "new_ordinals": [place.ordinal for _, place, _ in new],
        "new_contents": [place.content for _, place, _ in new],
        "new_slots": [slots.get(place.content) for _, place, _ in new],
        "new_sources": [source for _, _, source in new],
        "marked_ids": [id_ for id_, _ in marked],
        "marked_current": [is_current for _, is_current in marked],
        "filled_ids": [id_ for id_, _, _ in filled],
        "filled_slots": [slot for _, slot, _ in filled],
        "filled_sources": [source for _, _, source in filled],
        "event_ids": [next(ids) for _ in events],
        "event_chunk_ids": [chunk_id for chunk_id, _, _ in events],
        "event_ordinals": [ordinal for _, ordinal, _ in events],
        "event_types": [event_type.value for _, _, event_type in events],
    }
