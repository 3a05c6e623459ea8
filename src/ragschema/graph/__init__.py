"""The knowledge graph: entities, what they are to each other, and which chunks say so.

    for chunk in pending_extraction(session, "gpt-x 1"):
        record_extraction(session, chunk.id, "gpt-x 1", entities, relations)

Every function takes part in the caller's transaction and commits nothing; those for async code are in
`ragschema.aio.graph`. What is current follows what search finds: publishing sees to it.
"""

from ragschema.graph.errors import GraphError, UnknownChunk, UnknownEntity
from ragschema.graph.merging import EntityMerge, merge_entities, undo_merge
from ragschema.graph.recording import pending_extraction, record_extraction
from ragschema.graph.records import (
    EntityName,
    NewEntity,
    NewRelation,
    PendingChunk,
    RecordedExtraction,
)

__all__ = [
    "EntityMerge",
    "EntityName",
    "GraphError",
    "NewEntity",
    "NewRelation",
    "PendingChunk",
    "RecordedExtraction",
    "UnknownChunk",
    "UnknownEntity",
    "merge_entities",
    "pending_extraction",
    "record_extraction",
    "undo_merge",
]
