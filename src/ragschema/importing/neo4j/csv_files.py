"""Files of neo4j-admin import: one of nodes for each space of ids, one of relationships for each pair of these."""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO, TypeAlias

from ragschema.errors import ImportRefused
from ragschema.importing.neo4j.admin_csv import join
from ragschema.importing.neo4j.graph_rows import ExportedNode, ExportedRelationship
from ragschema.importing.neo4j.values import cell, type_of

Group: TypeAlias = tuple[str, ...]
"""The space of nodes, or those of both ends."""

_UNFIT = re.compile(r"[^\w.-]+")
_REMEDY = "Write JSON lines: `rag graph export FILE.jsonl`."


class CsvFiles:
    """Files that are written: first every node and relationship is made known, then written, in any order."""

    def __init__(self, directory: Path, array_delimiter: str) -> None:
        self.directory = directory
        self.delimiter = array_delimiter
        self.columns: dict[Group, dict[str, str]] = {}
        self.open: dict[Group, TextIO] = {}
        self.stack = ExitStack()

    def __enter__(self) -> CsvFiles:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stack.close()

    @property
    def names(self) -> tuple[str, ...]:
        """The files, those of nodes first."""
        return tuple(
            str(self._path(group)) for group in sorted(self.columns, key=lambda each: (len(each), each))
        )

    def know_node(self, node: ExportedNode) -> None:
        """Take note of the columns of a node."""
        self._know((node.space,), node.properties, node.types)

    def know_relationship(self, relationship: ExportedRelationship) -> None:
        """Take note of the columns of a relationship."""
        spaces = (relationship.start.space, relationship.end.space)
        self._know(spaces, relationship.properties, relationship.types)

    def write_node(self, node: ExportedNode) -> int:
        """Write a row; return 1."""
        group = (node.space,)
        labels = cell(node.labels, self.delimiter)
        head = [f":ID{_of(node.space)}", ":LABEL"]
        return self._write(group, head, [node.id, labels or None], node.properties)

    def write_relationship(self, relationship: ExportedRelationship) -> int:
        """Write a row; return 1."""
        start, end = relationship.start, relationship.end
        head = [f":START_ID{_of(start.space)}", f":END_ID{_of(end.space)}", ":TYPE"]
        fields: list[str | None] = [start.id, end.id, relationship.type]
        return self._write((start.space, end.space), head, fields, relationship.properties)

    def _know(self, group: Group, properties: dict[str, Any], types: dict[str, str]) -> None:
        columns = self.columns.setdefault(group, {})
        for name, value in properties.items():
            if ":" in name:
                raise ImportRefused(f"CSV has no column for the property {name!r}.", _REMEDY)
            if value == []:
                raise ImportRefused(f"CSV has no value for the empty array {name!r}.", _REMEDY)
            if value is None:
                continue
            type_ = types.get(name) or type_of(value)
            if columns.setdefault(name, type_) != type_:
                raise ImportRefused(
                    f"The property {name!r} is of the types {columns[name]} and {type_}, and a column of CSV has one.",
                    _REMEDY,
                )

    def _write(
        self, group: Group, head: list[str], fields: list[str | None], properties: dict[str, Any]
    ) -> int:
        columns = self.columns[group]
        out = self.open.get(group)
        if out is None:
            out = self.stack.enter_context(self._path(group).open("w", encoding="utf-8", newline="\n"))
            self.open[group] = out
            out.write(join([*head, *(f"{name}:{type_}" for name, type_ in columns.items())]).replace('"', ""))
        values = (properties.get(name) for name in columns)
        out.write(join([*fields, *(None if each is None else cell(each, self.delimiter) for each in values)]))
        return 1

    def _path(self, group: Group) -> Path:
        spaces = "".join(f"-{_UNFIT.sub('_', space)}" for space in group if space)
        return self.directory / f"{'nodes' if len(group) == 1 else 'edges'}{spaces}.csv"


def _of(space: str) -> str:
    return f"({space})" if space else ""
