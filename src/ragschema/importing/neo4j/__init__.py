"""Graphs of Neo4j: read from what its own exports write, and written in the same formats."""

from __future__ import annotations

from ragschema.importing.neo4j.exporting import GraphExport, export_graph
from ragschema.importing.neo4j.reports import GraphImport, GraphRefusal
from ragschema.importing.neo4j.running import GraphWishes, import_graph

__all__ = ["GraphExport", "GraphImport", "GraphRefusal", "GraphWishes", "export_graph", "import_graph"]
