"""Tables of other libraries that `rag import` reads: how they are known, and where they are."""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ragschema.database.server import Connection

ANY = "*"
"""The name of a table that its owner has chosen: it is known by its columns."""

SHAPES: Mapping[str, Mapping[str, str]] = {
    "langchain": {
        "langchain_pg_embedding": "collection_id embedding document cmetadata",
        "langchain_pg_collection": "uuid name",
    },
    "langchain-v2": {ANY: "langchain_id content embedding langchain_metadata"},
    "llama-index": {ANY: "id text metadata_ node_id embedding"},
    "haystack": {ANY: "id embedding content blob_data blob_meta blob_mime_type meta"},
    "localrag": {
        "documents": "id file_path file_name created_at",
        "chunks": "id document_id content chunk_index embedding",
    },
    "rag-corp": {
        "documents": "id deleted_at",
        "chunks": "id document_id content",
    },
    "rag-memory": {
        "source_documents": "id filename",
        "document_chunks": "id source_document_id chunk_index content embedding",
        "chunk_collections": "chunk_id collection_id",
        "collections": "id name description",
    },
}
"""By preset, the columns that each of its tables has at least."""

_NAMED = sorted({table for tables in SHAPES.values() for table in tables} - {ANY})
_TABLES = r"""
SELECT n.nspname::text, c.relname::text, a.attname::text, t.typname::text
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_type t ON t.oid = a.atttypid
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relname::text NOT LIKE 'rag\_%%'
AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\_%%'
AND (c.relname = ANY (%s::text[]) OR EXISTS (
    SELECT FROM pg_attribute e WHERE e.attrelid = c.oid AND e.attname = 'embedding' AND NOT e.attisdropped
))
ORDER BY n.nspname = current_schema() DESC, 1, 2, a.attnum
"""

Columns = Mapping[str, str]
"""The type of each column of a table, in its order."""


@dataclass(frozen=True)
class Importable:
    """Tables of another library.

    Attributes:
        preset: The preset of `rag import` that reads them.
        schema: Their schema.
        tables: Their names.
        command: How to look what an import would do.
    """

    preset: str
    schema: str
    tables: tuple[str, ...]
    command: str

    def __str__(self) -> str:
        return f"{', '.join(f'{self.schema}.{table}' for table in self.tables)} of {self.preset}"


def find_importable(connection: Connection) -> tuple[Importable, ...]:
    """Find the tables that a preset reads, those of the current schema first; reads the catalogue only."""
    found = []
    for schema, tables in read_tables(connection).items():
        for preset, shape in SHAPES.items():
            for names in match_shape(shape, tables):
                which = f" --table {shlex.quote(f'{schema}.{names[0]}')}" if ANY in shape else ""
                named = "" if which else f" --from-schema {shlex.quote(schema)}"
                command = f"rag import {preset}{which or named} --dry-run"
                found.append(Importable(preset, schema, names, command))
    return tuple(found)


def read_tables(connection: Connection) -> dict[str, dict[str, Columns]]:
    """Return the tables that may be such: by schema and name, their columns."""
    found: defaultdict[str, defaultdict[str, dict[str, str]]] = defaultdict(lambda: defaultdict(dict))
    for schema, table, column, type_ in connection.execute(_TABLES.encode(), (_NAMED,)):
        found[schema][table][column] = type_
    return {schema: dict(tables) for schema, tables in found.items()}


def match_shape(shape: Mapping[str, str], tables: Mapping[str, Columns]) -> Iterator[tuple[str, ...]]:
    """Yield the names of the tables of one schema that have a shape."""
    for name, columns in shape.items():
        if name == ANY:
            yield from ((table,) for table, has in tables.items() if {*columns.split()} <= has.keys())
            return
        if not {*columns.split()} <= tables.get(name, {}).keys():
            return
    yield tuple(shape)
