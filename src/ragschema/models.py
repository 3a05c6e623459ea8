"""The five tables: documents, their immutable versions, chunks, the events between versions, and jobs.

Every default is the database's, so rows written in SQL and rows written here are alike. Relationships load
lazily; with AsyncSession use ``selectinload`` or ``await row.awaitable_attrs.name``. Deleting a document or a
version leaves what hangs from it to the database's ON DELETE CASCADE. A dict column is written when it is
assigned; a change inside the dict is not noticed.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

from sqlalchemy import Enum, ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from ragschema.base import Base
from ragschema.embedding import Embedding, Vector


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
Timestamp = Annotated[datetime | None, mapped_column(server_default=text("CURRENT_TIMESTAMP"))]


class Document(Base):
    """A document, known by the caller's ``article_id``; its text is in its versions."""

    __tablename__ = "rag_documents"

    id: Mapped[Id]
    article_id: Mapped[str] = mapped_column(unique=True)
    """The caller's own key for the document."""
    current_version_id: Mapped[UUID | None] = mapped_column(
        ForeignKey(
            "rag_document_versions.id",
            name="fk_current_version",
            use_alter=True,
            deferrable=True,
            initially="DEFERRED",
        )
    )
    """The version that search reads; None before the first is published."""
    created_at: Mapped[Timestamp]
    updated_at: Mapped[Timestamp]

    versions: Mapped[list[DocumentVersion]] = relationship(
        back_populates="document",
        foreign_keys="DocumentVersion.document_id",
        order_by="DocumentVersion.version_number",
        passive_deletes="all",
    )
    current_version: Mapped[DocumentVersion | None] = relationship(
        foreign_keys=[current_version_id],
        post_update=True,  # the document is inserted before the version it points at
    )


class DocumentVersion(Base):
    """One immutable state of a document: what it was cut from, and by which chunker and embedder."""

    __tablename__ = "rag_document_versions"
    __table_args__ = (UniqueConstraint("document_id", "version_number"),)

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

    document: Mapped[Document] = relationship(back_populates="versions", foreign_keys=[document_id])
    chunks: Mapped[list[Chunk]] = relationship(
        back_populates="version", order_by="Chunk.ordinal", passive_deletes="all"
    )
    events: Mapped[list[ChunkEvent]] = relationship(
        back_populates="version", order_by="ChunkEvent.ordinal", passive_deletes="all"
    )


class Chunk(Base):
    """A piece of a version's text, with its embedding.

    Many are written fastest by ``session.execute(insert(Chunk), rows)``: ``session.add`` takes a round trip for
    each, which brings its id and time back.
    """

    __tablename__ = "rag_chunks"
    __table_args__ = (
        UniqueConstraint("version_id", "ordinal"),
        Index(None, "embedding", postgresql_using="hnsw", postgresql_ops={"embedding": "vector_cosine_ops"}),
    )

    id: Mapped[Id]
    version_id: Mapped[UUID] = mapped_column(ForeignKey("rag_document_versions.id", ondelete="CASCADE"))
    ordinal: Mapped[int]
    """Place within the version, from 0."""
    content: Mapped[str]
    embedding: Mapped[Vector | None] = mapped_column(Embedding())
    """Shape ``(768,)``, float32; None until it has been computed."""
    created_at: Mapped[Timestamp]

    version: Mapped[DocumentVersion] = relationship(back_populates="chunks")
    events: Mapped[list[ChunkEvent]] = relationship(back_populates="chunk", passive_deletes="all")


class ChunkEvent(Base):
    """What a version did to one chunk, compared with the version before it."""

    __tablename__ = "rag_chunk_events"

    id: Mapped[Id]
    version_id: Mapped[UUID] = mapped_column(ForeignKey("rag_document_versions.id", ondelete="CASCADE"))
    chunk_id: Mapped[UUID | None] = mapped_column(ForeignKey("rag_chunks.id"))
    """The chunk itself; for a deleted one, the previous version's row if it is kept."""
    ordinal: Mapped[int | None]
    """Place of the chunk within this version."""
    event_type: Mapped[ChunkEventType] = mapped_column(Enum(ChunkEventType, name="chunk_event_type"))
    details: Mapped[dict[str, Any] | None] = mapped_column("metadata")
    """Column ``metadata``, a name that SQLAlchemy keeps for itself."""
    created_at: Mapped[Timestamp]

    version: Mapped[DocumentVersion] = relationship(back_populates="events")
    chunk: Mapped[Chunk | None] = relationship(back_populates="events")


class Job(Base):
    """A background task: backfilling, embedding, indexing."""

    __tablename__ = "rag_jobs"
    __table_args__ = (Index(None, "status", "created_at"),)

    id: Mapped[Id]
    job_type: Mapped[str]
    payload: Mapped[dict[str, Any]]
    status: Mapped[JobStatus] = mapped_column(Enum(JobStatus, name="job_status"), server_default="new")
    created_at: Mapped[Timestamp]
    updated_at: Mapped[Timestamp]
    error_message: Mapped[str | None]
