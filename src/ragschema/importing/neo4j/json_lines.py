"""JSON lines of ``apoc.export.json``: a node or a relationship each."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from ragschema.importing.neo4j.items import Item, Node, Relationship, Unreadable


def read_json_lines(name: str, lines: Iterable[str], first: int) -> Iterator[Item]:
    """Yield what stands on each line.

    Args:
        name: The file, for what cannot be read.
        lines: Its lines.
        first: The place of what comes first.
    """
    place = first
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield _read(place, json.loads(line))
        except (ValueError, KeyError, TypeError, RecursionError) as exc:
            reason = f"it has no {exc}" if isinstance(exc, KeyError) else str(exc)
            yield Unreadable(place, f"{name}, line {number}", reason)
        place += 1


def _read(place: int, given: Any) -> Node | Relationship:
    if not isinstance(given, dict):
        raise ValueError("it is no JSON object, as each line of apoc.export.json is with its default format")
    properties = given.get("properties") or {}
    if not isinstance(properties, dict):
        raise ValueError("its properties are no JSON object")
    kind = given.get("type")
    if kind == "node":
        return Node(place, str(given["id"]), "", tuple(given.get("labels") or ()), properties, {})
    if kind == "relationship":
        id_ = given.get("id")
        return Relationship(
            place,
            None if id_ is None else str(id_),
            given["label"],
            str(given["start"]["id"]),
            str(given["end"]["id"]),
            properties,
            {},
        )
    raise ValueError(f"its type is {kind!r}, and neither node nor relationship")


def write_node(id_: str, labels: Iterable[str], properties: dict[str, Any]) -> str:
    """Return a node as a line."""
    node: dict[str, Any] = {"type": "node", "id": id_}
    if labels := list(labels):
        node["labels"] = labels
    return _line(node | {"properties": properties} if properties else node)


def write_relationship(
    id_: str,
    type_: str,
    start: tuple[str, list[str]],
    end: tuple[str, list[str]],
    properties: dict[str, Any],
) -> str:
    """Return a relationship as a line; its ends are ids and labels of nodes."""
    given: dict[str, Any] = {"id": id_, "type": "relationship", "label": type_}
    if properties:
        given["properties"] = properties
    given |= {side: {"id": at, "labels": labels} for side, (at, labels) in (("start", start), ("end", end))}
    return _line(given)


def _line(given: dict[str, Any]) -> str:
    return json.dumps(given, ensure_ascii=False, separators=(",", ":")) + "\n"
