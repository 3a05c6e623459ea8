"""The models: documents, versions, chunks, events between versions, collections, embedding models, jobs, chats, graph.

Every default is the database's, so rows written in SQL and rows written here are alike. Functions and triggers
that belong to the tables stand in ``alembic/routines``; `ragschema.schema.routines` declares them. Relationships
load lazily; with AsyncSession use ``selectinload`` or ``await row.awaitable_attrs.name``. Deleting a document or a
version leaves what hangs from it to the database's ON DELETE CASCADE. A dict column is written when it is
assigned; a change inside the dict is not noticed.
"""

from ragschema.schema import routines
from ragschema.schema.base import Base
from ragschema.schema.chat import ChatCitation, ChatFeedback, ChatMessage, ChatSession
from ragschema.schema.collections import Collection, CollectionDocument
from ragschema.schema.documents import Chunk, ChunkEvent, ChunkEventType, Document, DocumentVersion
from ragschema.schema.embedding_models import ChunkEmbedding, EmbeddingModel
from ragschema.schema.graph import (
    Entity,
    EntityAlias,
    EntityMention,
    EntityMerge,
    Extraction,
    Relation,
    RelationMention,
)
from ragschema.schema.jobs import Job, JobStatus
from ragschema.schema.schedules import JobSchedule

__all__ = [
    "Base",
    "ChatCitation",
    "ChatFeedback",
    "ChatMessage",
    "ChatSession",
    "Chunk",
    "ChunkEmbedding",
    "ChunkEvent",
    "ChunkEventType",
    "Collection",
    "CollectionDocument",
    "Document",
    "DocumentVersion",
    "EmbeddingModel",
    "Entity",
    "EntityAlias",
    "EntityMention",
    "EntityMerge",
    "Extraction",
    "Job",
    "JobSchedule",
    "JobStatus",
    "Relation",
    "RelationMention",
]

routines.declare(Base.metadata)
