"""Files of an export: which format each has, in which order they are read, and by what they are known again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from ragschema.errors import ImportRefused
from ragschema.importing.neo4j.admin_csv import Header, read_header, read_rows
from ragschema.importing.neo4j.items import Item
from ragschema.importing.neo4j.json_lines import read_json_lines

_READ = 1 << 20


@dataclass(frozen=True)
class File:
    """A file of an export.

    Attributes:
        path: Where it is.
        header: Of CSV; None: it has JSON lines.
    """

    path: Path
    header: Header | None


def find_files(paths: Sequence[Path]) -> list[File]:
    """Return the files in the order to read them: those of nodes before those of relationships.

    Raises:
        ImportRefused: One cannot be read, or has another format.
    """
    files = [File(path, _find_header(path)) for path in paths]
    return sorted(files, key=lambda file: file.header is not None and not file.header.has_nodes)


def digest_of(files: Sequence[File], *choices: object) -> str:
    """Return what tells these files, and what is asked of them, from others: by their contents."""
    digest = hashlib.sha256(repr(choices).encode())
    for file in files:
        with file.path.open("rb") as stream:
            while part := stream.read(_READ):
                digest.update(part)
        digest.update(b"\0")
    return digest.hexdigest()[:32]


def read_files(files: Sequence[File], array_delimiter: str) -> Iterator[Item]:
    """Yield the nodes and relationships of files, numbered through."""
    place = 1
    for file in files:
        name = file.path.name
        with _opened(file.path) as stream:
            if file.header is None:
                items = read_json_lines(name, stream, place)
            else:
                stream.readline()
                items = read_rows(name, file.header, stream, place, array_delimiter)
            try:
                for item in items:
                    place = item.place + 1
                    yield item
            except UnicodeDecodeError as exc:
                raise _not_utf8(file.path) from exc


def _find_header(path: Path) -> Header | None:
    try:
        with _opened(path) as stream:
            first = stream.readline()
    except UnicodeDecodeError as exc:
        raise _not_utf8(path) from exc
    if first.lstrip().startswith("{"):
        return None
    if first.lstrip().startswith("[") or not first.strip():
        raise ImportRefused(
            f"{path.name} has no JSON lines." if first.strip() else f"{path.name} begins with an empty line.",
            "Export with jsonFormat JSON_LINES, which is the default of apoc.export.json, or as neo4j-admin's CSV.",
        )
    return read_header(path.name, first)


def _opened(path: Path) -> TextIO:
    try:
        return path.open(encoding="utf-8-sig", newline="\n")
    except OSError as exc:
        raise ImportRefused(f"{path} cannot be read: {exc.strerror}.", "Name a file that is there.") from exc


def _not_utf8(path: Path) -> ImportRefused:
    return ImportRefused(f"{path.name} is not in UTF-8.", "Export it again: Neo4j writes UTF-8.")
