"""Nodes and relationships of Neo4j, as they are read and as they are kept.

What Neo4j knows of a node or relationship, and a column of ours does not, is kept beside its properties: a list under
the key `RECORDS`, an object for each node that is this entity, with its ``id`` and, where they are not what everybody
would expect, its ``space``, ``labels``, ``types`` and ``properties``. So what was imported is exported as it was, also
where several nodes are one entity here.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

RECORDS = ":neo4j"
"""The key of the list of records, among properties."""
NO_LABEL = "Node"
"""The type of entities whose node has no label."""

Properties: TypeAlias = dict[str, Any]


class Node(NamedTuple):
    """A node.

    Attributes:
        place: Which of all that are read it is, from 1.
        id: Its id.
        space: The space of ids that this is one of; empty where there is but one.
        labels: Its labels, in their order.
        properties: Its properties.
        types: Of properties that have another type than JSON says.
    """

    place: int
    id: str
    space: str
    labels: tuple[str, ...]
    properties: Properties
    types: dict[str, str]


class Relationship(NamedTuple):
    """A relationship.

    Attributes:
        place: Which of all that are read it is, from 1.
        id: Its id; None where the format has none.
        type: Its type.
        start: The key of the node that it leads from, see `key_of`.
        end: The key of the node that it leads to.
        properties: Its properties.
        types: Of properties that have another type than JSON says.
    """

    place: int
    id: str | None
    type: str
    start: str
    end: str
    properties: Properties
    types: dict[str, str]


class Unreadable(NamedTuple):
    """What is read and cannot be kept.

    Attributes:
        place: Which of all that are read it is.
        where: The file and line.
        reason: Why not.
    """

    place: int
    where: str
    reason: str


Item: TypeAlias = Node | Relationship | Unreadable


def key_of(id_: str, space: str) -> str:
    """Return what tells a node from all others: its id, and the space of that."""
    return f"{space}\t{id_}" if space else id_


def node_record(node: Node) -> dict[str, Any]:
    """Return what is kept of a node beside its properties."""
    record: dict[str, Any] = {"id": node.id}
    if node.space:
        record["space"] = node.space
    if len(node.labels) != 1:
        record["labels"] = list(node.labels)
    if node.types:
        record["types"] = node.types
    return record


def relationship_record(relationship: Relationship, file: str) -> dict[str, Any]:
    """Return what is kept of a relationship beside its properties; ``of`` tells a file whose rows have no ids."""
    record = {"of": file} if relationship.id is None else {"id": relationship.id}
    return record | {"types": relationship.types} if relationship.types else record


def plain(properties: Properties) -> Properties:
    """Return properties without the records."""
    return {name: value for name, value in properties.items() if name != RECORDS}


def with_records(properties: Properties) -> list[tuple[dict[str, Any], Properties]]:
    """Return each record with its own properties."""
    shared = plain(properties)
    return [(record, record.get("properties", shared)) for record in properties.get(RECORDS, ())]


def merge(stored: Properties, read: Properties) -> Properties:
    """Return stored properties with those of one more record, or of one that is there and may have changed.

    No value is lost: where two nodes differ in a property, the entity has that of the first, and each record its own.
    """
    own, given = plain(stored), plain(read)
    ((record, _),) = with_records(read)
    records = with_records(stored)
    place = next(
        (each for each, (kept, its) in enumerate(records) if _is_same(kept, its, record, given)), None
    )
    if place is None:
        records.append((record, given))
        shared = given | own
    else:
        before = records[place][1]
        records[place] = (record, given)
        gone = {name for name in before if name not in given and own.get(name) == before[name]}
        shared = {name: value for name, value in own.items() if name not in gone}
        shared = shared | given if place == 0 else given | shared
    kept = [{name: value for name, value in each.items() if name != "properties"} for each, _ in records]
    listed = [
        each if its == shared else each | {"properties": its}
        for each, (_, its) in zip(kept, records, strict=True)
    ]
    return shared | {RECORDS: listed}


def _is_same(kept: dict[str, Any], its: Properties, record: dict[str, Any], given: Properties) -> bool:
    """Say whether a record was kept before: by its id; without one, of another file or with equal properties."""
    if "id" in record or "id" in kept:
        return (kept.get("id"), kept.get("space")) == (record.get("id"), record.get("space"))
    return kept["of"] != record["of"] or its == given
