"""The five tables: documents, their immutable versions, chunks, the events between versions, and jobs.

Every default is the database's, so rows written in SQL and rows written here are alike. Functions and triggers
that belong to the tables stand in ``alembic/routines``; `ragschema.routines` declares them. Relationships load
lazily; with AsyncSession use ``selectinload`` or ``await row.awaitable_attrs.name``. Deleting a document or a
version leaves what hangs from it to the database's ON DELETE CASCADE. A dict column is written when it is
assigned; a change inside the dict is not noticed.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

from sqlalchemy import (
    CheckConstraint,
    Enum,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column, relationship

from ragschema import routines
from ragschema.base import Base
from ragschema.embedding import Embedding, Vector

routines.declare(Base.metadata)


class ChunkEventType(StrEnum):
    """What became of a chunk between the previous version and this one."""

    added = "added"
    updated = "updated"
    deleted = "deleted"
    unchanged = "unchanged"


class JobStatus(StrEnum):
    """Where a job stands."""

    new = "new"
    processing = "processing"
    completed = "completed"
    failed = "failed"


Id = Annotated[UUID, mapped_column(primary_key=True, server_default=text("gen_random_uuid()"))]
Timestamp = Annotated[datetime, mapped_column(server_default=text("CURRENT_TIMESTAMP"))]
TextConfig = Annotated[str, mapped_column(server_default=text("'simple'"))]


class Document(Base):
    """A document, known by the caller's ``article_id``; its text is in its versions."""

    __tablename__ = "rag_documents"
    __table_args__ = (
        ForeignKeyConstraint(
            ["id", "current_version_id"],
            ["rag_document_versions.document_id", "rag_document_versions.id"],
            name="fk_current_version",
            use_alter=True,
            deferrable=True,
            initially="DEFERRED",
        ),
        Index(None, "current_version_id", "id"),
    )

    id: Mapped[Id]
    article_id: Mapped[str] = mapped_column(unique=True)
    """The caller's own key for the document."""
    current_version_id: Mapped[UUID | None]
    """The version that search reads, one of the document's own; None before the first is published."""
    created_at: Mapped[Timestamp]
    updated_at: Mapped[Timestamp]
    """Kept by a trigger, where an UPDATE does not set it."""
    text_config: Mapped[TextConfig]
    """Name of the text search configuration of its chunks: ``simple``, ``english``, ...; any installed one."""

    versions: Mapped[list[DocumentVersion]] = relationship(
        back_populates="document",
        primaryjoin="Document.id == DocumentVersion.document_id",
        foreign_keys="DocumentVersion.document_id",
        order_by="DocumentVersion.version_number",
        passive_deletes="all",
    )
    current_version: Mapped[DocumentVersion | None] = relationship(
        primaryjoin="Document.current_version_id == DocumentVersion.id",
        foreign_keys="Document.current_version_id",
        post_update=True,  # the document is inserted before the version it points at
    )


class DocumentVersion(Base):
    """One immutable state of a document: what it was cut from, and by which chunker and embedder.

    A trigger refuses every UPDATE but of title and url. The content of a version is its manifest: the chunks of
    its events other than ``deleted``, in the order of their ordinals; a version that has no events at all
    consists of the chunks whose ``version_id`` it is.
    """

    __tablename__ = "rag_document_versions"
    __table_args__ = (
        UniqueConstraint("document_id", "version_number"),
        UniqueConstraint("document_id", "id"),  # what fk_current_version refers to
        CheckConstraint("version_number > 0", name="version_number"),
    )

    id: Mapped[Id]
    document_id: Mapped[UUID] = mapped_column(ForeignKey("rag_documents.id", ondelete="CASCADE"))
    version_number: Mapped[int]
    """Counts up from 1 within the document."""
    source_hash: Mapped[str]
    """Hash of the text before chunking: the same hash needs no new version."""
    chunker_version: Mapped[str]
    embedder_version: Mapped[str]
    created_at: Mapped[Timestamp]
    title: Mapped[str | None]
    url: Mapped[str | None]

    document: Mapped[Document] = relationship(
        back_populates="versions",
        primaryjoin="Document.id == DocumentVersion.document_id",
        foreign_keys=[document_id],
    )
    chunks: Mapped[list[Chunk]] = relationship(
        back_populates="version", order_by="Chunk.ordinal", passive_deletes="all"
    )
    events: Mapped[list[ChunkEvent]] = relationship(
        back_populates="version", order_by="ChunkEvent.ordinal", passive_deletes="all"
    )


class Chunk(Base):
    """A piece of a document's text, with its embedding.

    It is written with the version it first appears in; a later version with the same text has an event that
    points at it, instead of a copy.

    Many are written fastest by ``session.execute(insert(Chunk), rows)``: ``session.add`` takes a round trip for
    each, which brings its id and time back.
    """

    __tablename__ = "rag_chunks"
    __table_args__ = (
        UniqueConstraint("version_id", "ordinal"),
        CheckConstraint("ordinal >= 0", name="ordinal"),
        CheckConstraint("vector_norm(embedding) > 0", name="embedding"),
        Index(
            "rag_chunks_current_embedding_idx",
            "embedding",
            postgresql_using="hnsw",
            postgresql_ops={"embedding": "vector_cosine_ops"},
            postgresql_where=text("is_current"),
        ),
        Index(
            "rag_chunks_current_text_idx",
            text("rag_text_vector(text_config, content)"),
            postgresql_using="gin",
            postgresql_where=text("is_current"),
        ),
        Index(
            "rag_chunks_pending_idx",
            "created_at",
            "id",
            postgresql_where=text("is_current AND embedding IS NULL"),
        ),
        {
            "postgresql_with": {
                "fillfactor": 80,
                "autovacuum_vacuum_scale_factor": 0.1,
                "autovacuum_vacuum_threshold": 500,
                "autovacuum_vacuum_cost_limit": 2000,
            }
        },
    )

    id: Mapped[Id]
    version_id: Mapped[UUID] = mapped_column(ForeignKey("rag_document_versions.id", ondelete="CASCADE"))
    ordinal: Mapped[int]
    """Place within the version it was written with, from 0; its place in another one is its event's ordinal."""
    content: Mapped[str]
    embedding: Mapped[Vector | None] = mapped_column(Embedding())
    """Shape ``(768,)``, float32, not zero; None until it has been computed."""
    created_at: Mapped[Timestamp]
    is_current: Mapped[bool] = mapped_column(server_default=false())
    """Whether it is in the manifest of its document's current version: what search reads. Kept by triggers."""
    text_config: Mapped[TextConfig]
    """Its document's, once it is current."""

    version: Mapped[DocumentVersion] = relationship(back_populates="chunks")
    events: Mapped[list[ChunkEvent]] = relationship(back_populates="chunk", passive_deletes="all")


class ChunkEvent(Base):
    """What a version did to one chunk, compared with the version before it.

    A version's events other than ``deleted`` are its manifest: each has a chunk, and a place of its own.
    """

    __tablename__ = "rag_chunk_events"
    __table_args__ = (
        CheckConstraint("ordinal >= 0", name="ordinal"),
        CheckConstraint("event_type = 'deleted' OR chunk_id IS NOT NULL", name="chunk_id"),
        Index(None, "version_id"),
        Index(None, "chunk_id"),
        Index(
            "rag_chunk_events_manifest_idx",
            "version_id",
            "ordinal",
            unique=True,
            postgresql_where=text("event_type <> 'deleted'"),
        ),
    )

    id: Mapped[Id]
    version_id: Mapped[UUID] = mapped_column(ForeignKey("rag_document_versions.id", ondelete="CASCADE"))
    chunk_id: Mapped[UUID | None] = mapped_column(ForeignKey("rag_chunks.id"))
    """The chunk itself; for a deleted one, the previous version's row as long as it is kept."""
    ordinal: Mapped[int | None]
    """Place of the chunk within this version, from 0; of a deleted one, within the version before."""
    event_type: Mapped[ChunkEventType] = mapped_column(Enum(ChunkEventType, name="chunk_event_type"))
    details: Mapped[dict[str, Any] | None] = mapped_column("metadata")
    """Column ``metadata``, a name that SQLAlchemy keeps for itself."""
    created_at: Mapped[Timestamp]

    version: Mapped[DocumentVersion] = relationship(back_populates="events")
    chunk: Mapped[Chunk | None] = relationship(back_populates="events")


class Job(Base):
    """A background task: backfilling, embedding, indexing. The functions ``rag_jobs_*`` work the queue."""

    __tablename__ = "rag_jobs"
    __table_args__ = (
        # status >= 'completed': the order of the enum is the life of a job
        CheckConstraint(
            "(status = 'processing') = (lease_expires_at IS NOT NULL)"
            " AND (status >= 'completed') = (finished_at IS NOT NULL)"
            " AND (worker IS NOT NULL OR lease_expires_at IS NULL)"
            " AND (NOT enqueued_again OR lease_expires_at IS NOT NULL)",
            name="status",
        ),
        CheckConstraint(
            "attempts >= attempts_before"
            " AND attempts - attempts_before + (status = 'new')::integer <= max_attempts",
            name="attempts",
        ),
        Index(
            "rag_jobs_ready_idx", "job_type", "priority", "run_at", postgresql_where=text("status = 'new'")
        ),
        Index(None, "created_at", postgresql_where=text("status = 'new'")),
        Index(None, "status", "job_type", postgresql_where=text("status IN ('processing', 'failed')")),
        Index(None, "finished_at", postgresql_where=text("finished_at IS NOT NULL")),
        Index(
            "rag_jobs_dedupe_key_idx",
            "job_type",
            "dedupe_key",
            unique=True,
            postgresql_where=text("dedupe_key IS NOT NULL AND status IN ('new', 'processing')"),
        ),
        {
            "postgresql_with": {
                "fillfactor": 50,
                "autovacuum_vacuum_scale_factor": 0,
                "autovacuum_vacuum_threshold": 2000,
                "autovacuum_analyze_scale_factor": 0,
                "autovacuum_analyze_threshold": 20000,
            }
        },
    )

    id: Mapped[Id] = mapped_column(comment="Names the job; a claim of it is named by id and attempts")
    job_type: Mapped[str] = mapped_column(comment="Which workers it is for")
    payload: Mapped[dict[str, Any]] = mapped_column(
        comment="What to do; the newest, where a job with its key was enqueued again"
    )
    status: Mapped[JobStatus] = mapped_column(
        Enum(JobStatus, name="job_status"),
        server_default="new",
        comment="new: waits for run_at; processing: claimed; completed, failed: nothing more happens by itself",
    )
    created_at: Mapped[Timestamp] = mapped_column(comment="When it was enqueued")
    updated_at: Mapped[Timestamp] = mapped_column(
        comment="When anything of it last changed, a heartbeat included"
    )
    error_message: Mapped[str | None] = mapped_column(comment="The last error, or that it was cancelled")
    priority: Mapped[int] = mapped_column(
        server_default=text("0"), comment="Smaller numbers first; 0 is usual"
    )
    run_at: Mapped[Timestamp] = mapped_column(comment="Not claimed before")
    attempts: Mapped[int] = mapped_column(
        server_default=text("0"),
        comment="Claims so far; never goes down, so it tells one claim from the next",
    )
    attempts_before: Mapped[int] = mapped_column(
        server_default=text("0"),
        comment="How many of them do not count, for they were before a retry or a newer payload",
    )
    max_attempts: Mapped[int] = mapped_column(server_default=text("10"), comment="How many may count")
    lease_expires_at: Mapped[datetime | None] = mapped_column(
        comment="While processing: when others may take it over"
    )
    worker: Mapped[str | None] = mapped_column(comment="Who claimed it last")
    started_at: Mapped[datetime | None] = mapped_column(comment="When it was claimed last")
    finished_at: Mapped[datetime | None] = mapped_column(comment="When it was completed, or failed for good")
    dedupe_key: Mapped[str | None] = mapped_column(comment="No two unfinished jobs of a type have the same")
    enqueued_again: Mapped[bool] = mapped_column(
        server_default=false(),
        comment="While processing: payload is newer than what runs, so run it again afterwards",
    )
    progress: Mapped[dict[str, Any] | None] = mapped_column(
        comment="How far it has come, for the next attempt to go on from"
    )
