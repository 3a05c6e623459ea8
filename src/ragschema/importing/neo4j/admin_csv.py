"""CSV of ``neo4j-admin database import``: a header that says what each column is, then a node or relationship a row."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ragschema.errors import ImportRefused
from ragschema.importing.neo4j.items import Item, Node, Relationship, Unreadable, key_of
from ragschema.importing.neo4j.values import TYPES, parse
from ragschema.words import counted

_COLUMN = re.compile(
    r"(?P<name>[^:]*)(?::(?P<type>[A-Za-z_]+)(?P<array>\[\])?(?:\((?P<space>[^)]*)\))?(?:\{.*\})?)?"
)
_FIELD = re.compile(r'(?:"((?:[^"]|"")*)"|([^,"\r\n]*))(,|\r?\n?$)')
_SPECIAL = {"ID", "LABEL", "START_ID", "END_ID", "TYPE", "IGNORE"}
_UNLIKE_JSON = {type_ for type_ in TYPES if type_ not in ("string", "long", "double", "boolean")}


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
        name: The property; empty where it is none.
        type: Of the property; of others ID, LABEL, START_ID, END_ID, TYPE or IGNORE.
        is_array: Whether its values are arrays.
        space: The space of its ids.
    """

    name: str
    type: str
    is_array: bool
    space: str


@dataclass(frozen=True)
class Header:
    """What the columns of a file are.

    Attributes:
        columns: All of them, in their order.
        has_nodes: Whether the rows are nodes, and not relationships.
    """

    columns: tuple[Column, ...]
    has_nodes: bool


def read_header(name: str, line: str) -> Header:
    """Return what the columns of a file are.

    Raises:
        ImportRefused: It is no header of nodes or of relationships.
    """
    columns = []
    for field in split(line):
        found = _COLUMN.fullmatch((field or "").strip())
        type_ = (found["type"] or "string") if found else "string"
        type_ = type_.upper() if type_.upper() in _SPECIAL else type_.lower()
        if found is None or (type_ not in _SPECIAL and type_ not in TYPES):
            raise ImportRefused(
                f"{name} has a column {field!r}, whose type nobody knows.",
                f"Write one of {', '.join(TYPES)}, with [] for arrays, or :IGNORE.",
            )
        columns.append(Column(found["name"], type_, bool(found["array"]), found["space"] or ""))
    types = {each.type for each in columns}
    if {"START_ID", "END_ID", "TYPE"} <= types:
        return Header(tuple(columns), False)
    if "ID" in types and not types & {"START_ID", "END_ID"}:
        return Header(tuple(columns), True)
    raise ImportRefused(
        f"The first line of {name} is no header of neo4j-admin import.",
        "Nodes have a column :ID, relationships :START_ID, :END_ID and :TYPE; put the line of the header file first.",
    )


def read_rows(
    name: str, header: Header, lines: Iterable[str], first: int, array_delimiter: str
) -> Iterator[Item]:
    """Yield what stands in each row.

    Args:
        name: The file, for what cannot be read.
        header: What its columns are.
        lines: Its lines behind the header.
        first: The place of what comes first.
        array_delimiter: What divides the values of an array, and labels.
    """
    make = _node if header.has_nodes else _relationship
    for place, (number, row) in enumerate(_rows(lines), first):
        try:
            fields = split(row)
            if len(fields) != len(header.columns):
                raise ValueError(
                    f"it has {counted(len(fields), 'field')}, and the header {len(header.columns):,}"
                )
            yield make(place, header.columns, fields, array_delimiter)
        except ValueError as exc:
            yield Unreadable(place, f"{name}, line {number}", str(exc))


def split(row: str) -> list[str | None]:
    """Return the fields of a row; None for one that is empty without quotes, which stands for no value.

    Raises:
        ValueError: Its quotes do not match.
    """
    if '"' not in row:
        return [field or None for field in row.rstrip("\r\n").split(",")]
    fields: list[str | None] = []
    at = 0
    while True:
        found = _FIELD.match(row, at)
        if found is None:
            raise ValueError(f"its quotes do not match behind {row[max(0, at - 20) : at]!r}")
        quoted = found[1]
        fields.append(quoted.replace('""', '"') if quoted is not None else found[2] or None)
        at = found.end()
        if found[3] != ",":
            return fields


def join(fields: Sequence[str | None]) -> str:
    """Return a row of fields."""
    return (
        ",".join("" if each is None else f'"{each.replace(chr(34), chr(34) * 2)}"' for each in fields) + "\n"
    )


def _rows(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Yield each row with the number of its first line: one with an open quote goes on."""
    row, begun = "", 0
    for number, line in enumerate(lines, 2):
        if not row:
            begun = number
        row += line
        if row.count('"') % 2 == 0:
            if row.strip():
                yield begun, row
            row = ""
    if row:
        yield begun, row


def _node(place: int, columns: Sequence[Column], fields: Sequence[str | None], delimiter: str) -> Node:
    id_, space, labels = None, "", []
    for column, field in zip(columns, fields, strict=True):
        if field is not None and column.type == "ID":
            id_, space = field, column.space
        elif field is not None and column.type == "LABEL":
            labels += [each for each in field.split(delimiter) if each]
    if id_ is None:
        raise ValueError("it has no id")
    properties, types = _properties(columns, fields, delimiter)
    return Node(place, id_, space, tuple(labels), properties, types)


def _relationship(
    place: int, columns: Sequence[Column], fields: Sequence[str | None], delimiter: str
) -> Relationship:
    ends: dict[str, str] = {}
    type_ = None
    for column, field in zip(columns, fields, strict=True):
        if field is not None and column.type in ("START_ID", "END_ID"):
            ends[column.type] = key_of(field, column.space)
        elif field is not None and column.type == "TYPE":
            type_ = field
    if type_ is None or len(ends) != 2:
        raise ValueError("it has no type, or not both ends")
    properties, types = _properties(columns, fields, delimiter)
    return Relationship(place, None, type_, ends["START_ID"], ends["END_ID"], properties, types)


def _properties(
    columns: Sequence[Column], fields: Sequence[str | None], delimiter: str
) -> tuple[dict[str, object], dict[str, str]]:
    """Return the properties of a row, and the types of those whose JSON does not say them."""
    properties: dict[str, object] = {}
    types: dict[str, str] = {}
    for column, field in zip(columns, fields, strict=True):
        if field is None or not column.name or column.type in (_SPECIAL - {"ID"}):
            continue
        type_ = "string" if column.type == "ID" else column.type
        if column.is_array:
            properties[column.name] = [parse(each, type_) for each in field.split(delimiter)] if field else []
        else:
            properties[column.name] = parse(field, type_)
        if type_ in _UNLIKE_JSON or (column.is_array and not field):
            types[column.name] = f"{type_}[]" if column.is_array else type_
    return properties, types
