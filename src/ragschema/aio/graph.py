"""The functions of the graph for async code; see `ragschema.graph`."""

from __future__ import annotations

from ragschema import graph
from ragschema.aio.calls import awaited

duplicates = awaited(graph.duplicates)
find_broken = awaited(graph.find_broken)
local_search = awaited(graph.local_search)
merge_entities = awaited(graph.merge_entities)
neighbours = awaited(graph.neighbours)
paths = awaited(graph.paths)
pending_extraction = awaited(graph.pending_extraction)
read_stats = awaited(graph.read_stats)
record_extraction = awaited(graph.record_extraction)
undo_merge = awaited(graph.undo_merge)

__all__ = [
    "duplicates",
    "find_broken",
    "local_search",
    "merge_entities",
    "neighbours",
    "paths",
    "pending_extraction",
    "read_stats",
    "record_extraction",
    "undo_merge",
]
