"""Exports of a graph in the formats of Neo4j: JSON lines, or CSV of neo4j-admin import."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO, cast

from psycopg import IsolationLevel

from ragschema.database.connections import opened
from ragschema.database.options import Options
from ragschema.database.row_security import refuse_hidden
from ragschema.database.server import Connection
from ragschema.errors import UsageError
from ragschema.importing.neo4j.csv_files import CsvFiles
from ragschema.importing.neo4j.graph_rows import (
    ExportedNode,
    ExportedRelationship,
    nodes_of,
    relationships_of,
)
from ragschema.importing.neo4j.items import RECORDS
from ragschema.importing.neo4j.json_lines import write_node, write_relationship
from ragschema.revisions.manifest import read_manifest
from ragschema.state.status import behind, require_current

_FETCHED = 2_000

_ENTITIES = """
SELECT e.id, e.entity_type, e.name, e.description, e.properties,
    ARRAY(SELECT a.alias FROM rag_entity_aliases a WHERE a.entity_id = e.id ORDER BY a.alias_key) AS aliases
FROM rag_entities e WHERE e.is_current ORDER BY e.id
"""
_RELATIONS = f"""
SELECT r.id, r.relation_type, r.weight, r.description, r.properties,
    s.id AS source_id, s.entity_type AS source_type, s.properties -> '{RECORDS}' AS source_records,
    t.id AS target_id, t.entity_type AS target_type, t.properties -> '{RECORDS}' AS target_records
FROM rag_relations r
JOIN rag_entities s ON s.id = r.source_id AND s.is_current JOIN rag_entities t ON t.id = r.target_id AND t.is_current
WHERE r.is_current ORDER BY r.id
"""
# Two imports may have brought a node 0 each.
_HAS_TWINS = f"""
SELECT EXISTS (
    SELECT FROM rag_entities e CROSS JOIN LATERAL jsonb_array_elements(e.properties -> '{RECORDS}') n
    WHERE e.is_current GROUP BY n ->> 'space', n ->> 'id' HAVING count(*) > 1
)
"""


@dataclass(frozen=True)
class GraphExport:
    """What an export wrote.

    Attributes:
        files: The files; none where it went to standard output.
        nodes: Nodes in them.
        relationships: Relationships in them.
        has_own_ids: Whether nodes have the ids that they were imported with. False where two of them have the same, of
            two databases: then all have new ones.
    """

    files: tuple[str, ...]
    nodes: int
    relationships: int
    has_own_ids: bool


def export_graph(
    options: Options,
    *,
    json_lines: TextIO | None = None,
    directory: Path | None = None,
    name: str = "name",
    array_delimiter: str = ";",
) -> GraphExport:
    """Write the current entities and relations as Neo4j's own exports write nodes and relationships.

    What was imported is written as it was: ids, labels, properties, each of several nodes that are one entity. Of other
    entities the id is ours and the label their type, and name, description and aliases are properties; of relations the
    weight, where it is not 1. All of it is of one moment.

    Args:
        options: The database.
        json_lines: Where JSON lines go to, those of apoc.export.json; or
        directory: Where the files of neo4j-admin import go to: nodes and edges, of each space of ids.
        name: The property that the name of an entity becomes.
        array_delimiter: What divides the values of arrays, and labels, in CSV.

    Raises:
        ImportRefused: CSV cannot say a value.
        PendingRevisions: The database is not at head.
        RowsHidden: Row security hides rows of our tables from this role.
        UsageError: Neither or both of json_lines and directory are given.
    """
    if (json_lines is None) == (directory is None):
        raise UsageError("An export is of JSON lines or of CSV.", "Pass one of json_lines and directory.")
    with ExitStack() as stack:
        at = stack.enter_context(opened(options))
        current = require_current(at.connection, at.schemas.target)
        if read_manifest().pending(current):
            raise behind(current, read_manifest().head, "Run `rag migrate`.")
        refuse_hidden(at.connection, at.schemas.target)
        connection = at.connection
        connection.autocommit = False
        connection.isolation_level = IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        stack.callback(connection.rollback)
        has_own_ids = connection.execute(cast(Any, _HAS_TWINS)).fetchone() == (False,)

        def nodes() -> Iterator[ExportedNode]:
            return nodes_of(_rows(connection, _ENTITIES), name, has_own_ids=has_own_ids)

        def relationships() -> Iterator[ExportedRelationship]:
            return relationships_of(_rows(connection, _RELATIONS), has_own_ids=has_own_ids)

        if json_lines is not None:
            counts = _write_json_lines(json_lines, nodes, relationships)
            return GraphExport((), *counts, has_own_ids)
        files = stack.enter_context(CsvFiles(directory or Path(), array_delimiter))
        for node in nodes():
            files.know_node(node)
        for relationship in relationships():
            files.know_relationship(relationship)
        counts = (sum(map(files.write_node, nodes())), sum(map(files.write_relationship, relationships())))
        return GraphExport(files.names, *counts, has_own_ids)


def _write_json_lines(
    out: TextIO,
    nodes: Callable[[], Iterator[ExportedNode]],
    relationships: Callable[[], Iterator[ExportedRelationship]],
) -> tuple[int, int]:
    written, related = 0, 0
    for node in nodes():
        out.write(write_node(node.id, node.labels, node.properties))
        written += 1
    for each in relationships():
        ends = ((each.start.id, each.start.labels), (each.end.id, each.end.labels))
        out.write(write_relationship(each.id, each.type, *ends, each.properties))
        related += 1
    return written, related


def _rows(connection: Connection, statement: str) -> Iterator[tuple[Any, ...]]:
    with connection.cursor("rag_export") as cursor:
        cursor.itersize = _FETCHED
        cursor.execute(cast(Any, statement))
        yield from cursor
