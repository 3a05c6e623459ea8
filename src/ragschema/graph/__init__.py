"""The graph: who and what the texts speak of, and what they are to each other."""

from __future__ import annotations

from ragschema.graph.duplicates import DuplicatePair, Duplicates, duplicates
from ragschema.graph.errors import GraphError
from ragschema.graph.inspection import BrokenPart, GraphStats, TypeCount, find_broken, read_stats
from ragschema.graph.local_search import (
    Evidence,
    LocalEntity,
    LocalRelation,
    LocalSearch,
    NearestChunk,
    local_search,
)
from ragschema.graph.walks import Neighbour, Path, PathEntity, PathRelation, neighbours, paths

__all__ = [
    "BrokenPart",
    "DuplicatePair",
    "Duplicates",
    "Evidence",
    "GraphError",
    "GraphStats",
    "LocalEntity",
    "LocalRelation",
    "LocalSearch",
    "NearestChunk",
    "Neighbour",
    "Path",
    "PathEntity",
    "PathRelation",
    "TypeCount",
    "duplicates",
    "find_broken",
    "local_search",
    "neighbours",
    "paths",
    "read_stats",
]
