"""Rows of a batch, as text of COPY: what a node or relationship becomes, or why it cannot."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ragschema.importing.neo4j.items import (
    NO_LABEL,
    RECORDS,
    Node,
    Relationship,
    key_of,
    node_record,
    relationship_record,
)
from ragschema.importing.neo4j.values import write_properties
from ragschema.values import as_real, find_problem

_TYPE_BYTES, _NAME_BYTES, _KEY_BYTES = 200, 1000, 2000
_INVISIBLE = re.compile("[\u00ad\u200b\u2060\ufeff\\s]+")
_FLOAT_MOST = 3.4e38  # of real
_ESCAPED = re.compile(r"[\\\t\n\r]")
_ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}


@dataclass(frozen=True)
class Naming:
    """How nodes are called here.

    Attributes:
        names: Properties that may be the name, the first that a node has.
        file: Tells the files of this import from others.
    """

    names: Sequence[str]
    file: str


def node_row(node: Node, naming: Naming) -> str:
    """Return a row of ``rag_read_nodes`` but for its last column, the id.

    Raises:
        ValueError: The node cannot be kept.
    """
    type_ = node.labels[0] if node.labels else NO_LABEL
    _check_type(type_, "label")
    name = _find_name(node, naming)
    properties = _written(node.properties, node_record(node))
    description = node.properties.get("description")
    described = _field(description) if isinstance(description, str) else "\\N"
    fields = (_field(key_of(node.id, node.space)), _field(type_), _field(name), described, properties)
    return f"{node.place}\t" + "\t".join(fields)


def relationship_row(relationship: Relationship, naming: Naming) -> str:
    """Return a row of ``rag_read_relationships`` but for its last column, the id.

    Raises:
        ValueError: The relationship cannot be kept.
    """
    _check_type(relationship.type, "type")
    given = relationship.properties
    properties = _written(given, relationship_record(relationship, naming.file))
    description = given.get("description")
    described = _field(description) if isinstance(description, str) else "\\N"
    return (
        f"{relationship.place}\t{_field(relationship.start)}\t{_field(relationship.end)}\t{_field(relationship.type)}"
        f"\t{_weight(given.get('weight'))}\t{described}\t{properties}"
    )


def _find_name(node: Node, naming: Naming) -> str:
    for each in naming.names:
        found = node.properties.get(each)
        if isinstance(found, str | int | float) and not isinstance(found, bool):
            name = str(found)
            if _INVISIBLE.sub("", name):
                break
    else:
        raise ValueError(f"it has no property {' or '.join(naming.names)} for its name")
    if problem := find_problem(name):
        raise ValueError(f"its name {problem}")
    key = unicodedata.normalize("NFKC", name).lower()
    if len(name.encode()) > _NAME_BYTES or len(key.encode()) > _KEY_BYTES:
        raise ValueError(f"its name has more than {_NAME_BYTES:,} bytes")
    return name


def _check_type(type_: object, what: str) -> None:
    if not isinstance(type_, str) or not type_.strip() or len(type_.encode()) > _TYPE_BYTES:
        raise ValueError(f"its {what} is blank, no text, or longer than {_TYPE_BYTES} bytes")


def _written(properties: dict[str, Any], record: dict[str, Any]) -> str:
    if RECORDS in properties:
        raise ValueError(f"it has a property {RECORDS!r}, which this package keeps for itself")
    written = write_properties({**properties, RECORDS: [record]})
    written.encode()
    return written.replace("\\", "\\\\")


def _weight(weight: Any) -> str:
    is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
    return repr(as_real(weight)) if is_number and 0 <= weight <= _FLOAT_MOST else "1"


def _field(text: str) -> str:
    if problem := find_problem(text):
        raise ValueError(f"a text of it {problem}")
    return _ESCAPED.sub(lambda found: _ESCAPES[found[0]], text) if _ESCAPED.search(text) else text
