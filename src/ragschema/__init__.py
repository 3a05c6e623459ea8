"""The PostgreSQL schema of a retrieval-augmented-generation system.

Names below are loaded on first use: importing one model pays for neither Typer nor Alembic.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ragschema.database.engines import create_async_engine, create_engine, session_factory
    from ragschema.database.settings import Database, find_database
    from ragschema.embeddings.column_type import EMBEDDING_DIMENSION, Embedding, EmbeddingError
    from ragschema.errors import RagSchemaError
    from ragschema.jobs import ClaimedJob, JobError, NewJob, PermanentFailure, work
    from ragschema.models import Chunk, ChunkEvent, ChunkEventType, Document, DocumentVersion, Job, JobStatus
    from ragschema.publishing import (
        BulkDocument,
        BulkLoad,
        ContentError,
        PublishedVersion,
        PublishingError,
        StalePlan,
        UnknownDocument,
        VersionPlan,
        activate_version,
        deferred_index,
        plan_version,
        prune_versions,
        publish,
        publish_many,
        purge_document,
        retire_document,
    )
    from ragschema.queries import (
        QueryError,
        chunk_history,
        hybrid_search,
        nearest_chunks,
        pending_embeddings,
        search_settings,
        version_chunks,
        version_diff,
    )
    from ragschema.schema.base import Base

_MODULES = {
    "database.engines": ("create_async_engine", "create_engine", "session_factory"),
    "embeddings.column_type": ("EMBEDDING_DIMENSION", "Embedding", "EmbeddingError"),
    "errors": ("RagSchemaError",),
    "jobs": ("ClaimedJob", "JobError", "NewJob", "PermanentFailure", "work"),
    # Base with them: its metadata is empty before they are imported
    "models": (
        "Base",
        "Chunk",
        "ChunkEvent",
        "ChunkEventType",
        "Document",
        "DocumentVersion",
        "Job",
        "JobStatus",
    ),
    "publishing": (
        "BulkDocument",
        "BulkLoad",
        "ContentError",
        "PublishedVersion",
        "PublishingError",
        "StalePlan",
        "UnknownDocument",
        "VersionPlan",
        "activate_version",
        "deferred_index",
        "plan_version",
        "prune_versions",
        "publish",
        "publish_many",
        "purge_document",
        "retire_document",
    ),
    "queries": (
        "QueryError",
        "chunk_history",
        "hybrid_search",
        "nearest_chunks",
        "pending_embeddings",
        "search_settings",
        "version_chunks",
        "version_diff",
    ),
    "database.settings": ("Database", "find_database"),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "EMBEDDING_DIMENSION",
    "Base",
    "BulkDocument",
    "BulkLoad",
    "Chunk",
    "ChunkEvent",
    "ChunkEventType",
    "ClaimedJob",
    "ContentError",
    "Database",
    "Document",
    "DocumentVersion",
    "Embedding",
    "EmbeddingError",
    "Job",
    "JobError",
    "JobStatus",
    "NewJob",
    "PermanentFailure",
    "PublishedVersion",
    "PublishingError",
    "QueryError",
    "RagSchemaError",
    "StalePlan",
    "UnknownDocument",
    "VersionPlan",
    "activate_version",
    "chunk_history",
    "create_async_engine",
    "create_engine",
    "deferred_index",
    "find_database",
    "hybrid_search",
    "nearest_chunks",
    "pending_embeddings",
    "plan_version",
    "prune_versions",
    "publish",
    "publish_many",
    "purge_document",
    "retire_document",
    "search_settings",
    "session_factory",
    "version_chunks",
    "version_diff",
    "work",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
