"""The functions of the graph for async code; see `ragschema.graph`."""

from __future__ import annotations

from ragschema import graph
from ragschema.aio.calls import awaited

merge_entities = awaited(graph.merge_entities)
pending_extraction = awaited(graph.pending_extraction)
record_extraction = awaited(graph.record_extraction)
undo_merge = awaited(graph.undo_merge)

__all__ = ["merge_entities", "pending_extraction", "record_extraction", "undo_merge"]
