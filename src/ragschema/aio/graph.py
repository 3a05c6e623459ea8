"""The functions of the graph for async code; see `ragschema.graph`."""

from __future__ import annotations

from ragschema import graph
from ragschema.aio.calls import awaited

duplicates = awaited(graph.duplicates)
find_broken = awaited(graph.find_broken)
local_search = awaited(graph.local_search)
neighbours = awaited(graph.neighbours)
paths = awaited(graph.paths)
read_stats = awaited(graph.read_stats)

__all__ = [
    "duplicates",
    "find_broken",
    "local_search",
    "neighbours",
    "paths",
    "read_stats",
]
