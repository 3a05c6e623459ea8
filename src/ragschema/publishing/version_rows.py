"""The rows that a planned version writes, column by column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import numpy as np
import sqlalchemy as sa

from ragschema.database.arrays import Integers, SmallIntegers, Texts, Uuids
from ragschema.embeddings.wire import HalfVectors, Vector
from ragschema.models import ChunkEventType
from ragschema.publishing.given_embeddings import Given
from ragschema.publishing.live_models import half_oid
from ragschema.publishing.version_plan import Place, VersionPlan
from ragschema.schema.ids import uuid7s


def version_rows(plan: VersionPlan, given: Sequence[Given], *, copy_unchanged: bool) -> dict[str, Any]:
    """Return the rows to write, column by column: parameters of the statements that publish.

    Args:
        plan: What to write.
        given: The embeddings of each model; of the column's here.
        copy_unchanged: Whether unchanged chunks get rows of their own.
    """
    column = next((each for each in given if each.needs.model.is_column), None)
    new: list[tuple[UUID, Place, int | None, UUID | None]] = []
    marked = Uuids()
    filled: list[tuple[UUID, int | None, UUID | None]] = []
    chunk_ids = []
    written = len(plan.places) if copy_unchanged else sum(place.chunk_id is None for place in plan.places)
    ids = iter(uuid7s(1 + written + len(plan.places) + len(plan.gone)))
    version_id = next(ids)
    for place in plan.places:
        slot, source = _embedding_of(place, column)
        if place.chunk_id is None or copy_unchanged:
            kept = source or (place.chunk_id if column else None)
            new.append((next(ids), place, column.slots.get(place.content) if column else None, kept))
            chunk_ids.append(new[-1][0])
        if place.chunk_id is None:
            continue
        if copy_unchanged:
            continue
        chunk_ids.append(place.chunk_id)
        if slot is None and source is None:
            marked.append(place.chunk_id)
        else:
            filled.append((place.chunk_id, slot, source))
    events = [
        *(
            (chunk_id, place.ordinal, place.event_type)
            for chunk_id, place in zip(chunk_ids, plan.places, strict=True)
        ),
        *((gone.chunk_id, gone.ordinal, ChunkEventType.deleted) for gone in plan.gone),
    ]
    needed = {place.chunk_id for place in plan.places}.union(*(each.needs.sources for each in given))
    return {
        "version_id": version_id,
        "needed": Uuids(needed - {None}),
        "model_ids": SmallIntegers(
            each.needs.model.id for each in given if each.slots or any(each.needs.sources)
        ),
        "new_ids": Uuids(id_ for id_, _, _, _ in new),
        "new_ordinals": Integers(place.ordinal for _, place, _, _ in new),
        "new_contents": Texts(place.content for _, place, _, _ in new),
        "new_slots": Integers(slot for _, _, slot, _ in new),
        "new_sources": Uuids(source for _, _, _, source in new),
        "marked_ids": marked,
        "filled_ids": Uuids(id_ for id_, _, _ in filled),
        "filled_slots": Integers(slot for _, slot, _ in filled),
        "filled_sources": Uuids(source for _, _, source in filled),
        "event_ids": Uuids(next(ids) for _ in events),
        "event_chunk_ids": Uuids(chunk_id for chunk_id, _, _ in events),
        "event_ordinals": Integers(ordinal for _, ordinal, _ in events),
        "event_types": Texts(event_type.value for _, _, event_type in events),
    }


def location_rows(plan: VersionPlan, rows: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was said of chunks beside their texts, column by column.

    Args:
        plan: What is written.
        rows: By `version_rows`: what these columns stand beside.
    """
    places = [plan.places[ordinal] for ordinal in rows["new_ordinals"]]
    nothing = [None] * len(plan.gone)
    locations = [place.location for place in plan.places]
    return {
        "new_tokens": Integers(place.location.token_count for place in places),
        "new_alike": Uuids(place.chunk_id or place.embedding_from for place in places),
        "event_starts": Integers([*(location.start for location in locations), *nothing]),
        "event_ends": Integers([*(location.end for location in locations), *nothing]),
        "event_details": Texts([*(location.details for location in locations), *nothing]),
    }


def _embedding_of(place: Place, given: Given | None) -> tuple[int | None, UUID | None]:
    """Return which given embedding a reused row gets, and from which row it takes one."""
    if given is None:
        return None, None
    waits = given.needs.is_pending[place.ordinal]
    return given.slots.get(place.content) if waits else None, given.needs.sources[place.ordinal]


def embedding_rows(
    connection: sa.Connection, plan: VersionPlan, given: Sequence[Given], chunk_ids: Sequence[UUID]
) -> dict[str, Any]:
    """Return the rows of embeddings to write for models that have a partition, column by column; empty: none.

    Args:
        connection: To the database, whose oid of ``halfvec`` they are sent by.
        plan: What is written.
        given: The embeddings of each model.
        chunk_ids: The rows of the chunks, by place.
    """
    sent: list[tuple[int, UUID]] = []
    blocks: list[Vector] = []
    kept: list[tuple[int, UUID, UUID]] = []
    for each in given:
        model = each.needs.model
        if model.is_column:
            continue
        slots = []
        for place, chunk_id in zip(plan.places, chunk_ids, strict=True):
            slot, source = _embedding_of(place, each)
            if place.chunk_id != chunk_id:  # a new row
                slot, source = each.slots.get(place.content), source or place.chunk_id
            if slot is not None:
                slots.append(slot)
                sent.append((model.id, chunk_id))
            elif source is not None:
                kept.append((model.id, chunk_id, source))
        blocks.append(each.vectors[np.array(slots, np.intp)])
    if not sent and not kept:
        return {}
    return {
        "sent_models": SmallIntegers(model_id for model_id, _ in sent),
        "sent_ids": Uuids(chunk_id for _, chunk_id in sent),
        "embeddings": HalfVectors(half_oid(connection), blocks),
        "kept_models": SmallIntegers(model_id for model_id, _, _ in kept),
        "kept_ids": Uuids(chunk_id for _, chunk_id, _ in kept),
        "kept_sources": Uuids(source for _, _, source in kept),
        "reused_ids": Uuids({place.chunk_id for place in plan.places}.intersection(chunk_ids)),
    }
