"""Rows of entities and relations as the nodes and relationships that they came from, or become."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from ragschema.importing.neo4j.items import RECORDS, key_of, plain, with_records


@dataclass(frozen=True)
class End:
    """An end of a relationship: a node's id, the space of that, and its labels."""

    id: str
    space: str
    labels: list[str]


@dataclass(frozen=True)
class ExportedNode:
    """A node as it is written."""

    id: str
    space: str
    labels: list[str]
    properties: dict[str, Any]
    types: dict[str, str]


@dataclass(frozen=True)
class ExportedRelationship:
    """A relationship as it is written."""

    id: str
    type: str
    start: End
    end: End
    properties: dict[str, Any]
    types: dict[str, str]


def nodes_of(
    rows: Iterable[tuple[Any, ...]], name_property: str, *, has_own_ids: bool
) -> Iterator[ExportedNode]:
    """Yield the nodes of entities: one for each that was imported as it, or one for an entity that was not."""
    for id_, entity_type, name, description, properties, aliases in rows:
        more = {"description": description, "aliases": aliases or None}
        more = {key: value for key, value in more.items() if value is not None}
        records = with_records(properties)
        if not records:
            own = {**more, **plain(properties), name_property: name}
            yield ExportedNode(str(id_), "", [entity_type], own, {})
            continue
        for (record, its), end in zip(
            records, _ends(id_, entity_type, properties[RECORDS], has_own_ids=has_own_ids), strict=True
        ):
            types = record.get("types", {})
            yield ExportedNode(end.id, end.space, end.labels, its, types)


def relationships_of(rows: Iterable[tuple[Any, ...]], *, has_own_ids: bool) -> Iterator[ExportedRelationship]:
    """Yield the relationships of relations, likewise."""
    for id_, type_, weight, description, properties, *ends in rows:
        start_id, start_type, start_records, end_id, end_type, end_records = ends
        more = {"description": description, "weight": None if weight == 1 else weight}
        more = {key: value for key, value in more.items() if value is not None}
        records = with_records(properties)
        for number, (record, its) in enumerate(records or [({}, {**more, **plain(properties)})]):
            own = record["id"] if "id" in record else str(id_) if number == 0 else f"{id_}/{number}"
            yield ExportedRelationship(
                own,
                type_,
                _end(start_id, start_type, start_records, record.get("start"), has_own_ids=has_own_ids),
                _end(end_id, end_type, end_records, record.get("end"), has_own_ids=has_own_ids),
                its,
                record.get("types", {}),
            )


def _end(
    id_: UUID, entity_type: str, records: list[dict[str, Any]] | None, key: str | None, *, has_own_ids: bool
) -> End:
    """Return which node of an entity a relationship is of: the first, where its record names none."""
    ends = _ends(id_, entity_type, records or [], has_own_ids=has_own_ids)
    for record, end in zip(records or [], ends, strict=False):
        if key is not None and key_of(record["id"], record.get("space", "")) == key:
            return end
    return ends[0]


def _ends(id_: UUID, entity_type: str, records: list[dict[str, Any]], *, has_own_ids: bool) -> list[End]:
    """Return the nodes that an entity is."""
    if not records:
        return [End(str(id_), "", [entity_type])]
    return [
        End(
            record["id"] if has_own_ids else str(id_) if number == 0 else f"{id_}/{number}",
            record.get("space", "") if has_own_ids else "",
            record.get("labels", [entity_type]),
        )
        for number, record in enumerate(records)
    ]
