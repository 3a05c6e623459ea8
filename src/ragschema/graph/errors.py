"""Errors of the graph."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy.exc import DontWrapMixin

from ragschema.errors import RagSchemaError


class GraphError(RagSchemaError, ValueError, DontWrapMixin):
    """What is said of the graph cannot be kept, or done. Nothing was written."""


class UnknownChunk(RagSchemaError, LookupError):
    """There is no chunk of this id: it was pruned or purged since."""


class UnknownEntity(RagSchemaError, LookupError):
    """There is no entity of this id."""


def unknown_chunk(chunk_id: UUID) -> UnknownChunk:
    return UnknownChunk(
        f"There is no chunk {chunk_id}: it may have been pruned or purged since it was read.",
        "Drop what was extracted from it, and ask pending_extraction for what is current now.",
    )


def unknown_entity(entity_id: UUID) -> UnknownEntity:
    return UnknownEntity(
        f"There is no entity {entity_id}.",
        "Look it up again: an entity goes with the last chunk that mentioned it.",
    )
