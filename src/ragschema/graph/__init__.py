"""The knowledge graph: entities, what they are to each other, and which chunks say so.

    for chunk in pending_extraction(session, "gpt-x 1"):
        record_extraction(session, chunk.id, "gpt-x 1", entities, relations)
    found = local_search(session, embedding)

Every function takes part in the caller's transaction and commits nothing; those for async code are in
`ragschema.aio.graph`. What is current follows what search finds: publishing sees to it.
"""

from ragschema.graph.duplicates import DuplicatePair, Duplicates, duplicates
from ragschema.graph.errors import GraphError, UnknownChunk, UnknownEntity
from ragschema.graph.inspection import BrokenFact, GraphStats, TypeCount, find_broken, read_stats
from ragschema.graph.local_search import (
    Evidence,
    LocalEntity,
    LocalRelation,
    LocalSearch,
    NearestChunk,
    local_search,
)
from ragschema.graph.merging import EntityMerge, merge_entities, undo_merge
from ragschema.graph.recording import pending_extraction, record_extraction
from ragschema.graph.records import (
    EntityName,
    NewEntity,
    NewRelation,
    PendingChunk,
    RecordedExtraction,
)
from ragschema.graph.walks import Neighbour, Path, PathEntity, PathRelation, neighbours, paths

__all__ = [
    "BrokenFact",
    "DuplicatePair",
    "Duplicates",
    "EntityMerge",
    "EntityName",
    "Evidence",
    "GraphError",
    "GraphStats",
    "LocalEntity",
    "LocalRelation",
    "LocalSearch",
    "NearestChunk",
    "Neighbour",
    "NewEntity",
    "NewRelation",
    "Path",
    "PathEntity",
    "PathRelation",
    "PendingChunk",
    "RecordedExtraction",
    "TypeCount",
    "UnknownChunk",
    "UnknownEntity",
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
