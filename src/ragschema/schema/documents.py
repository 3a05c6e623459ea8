"""The tables of documents: documents, their immutable versions, chunks, and the events between versions."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
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

from ragschema.embeddings.column_type import Embedding
from ragschema.embeddings.wire import Vector
from ragschema.schema.base import Base, Id, Timestamp, storage_parameters


class ChunkEventType(StrEnum):
    """What became of a chunk between the previous version and this one."""

    added = "added"
    updated = "updated"
    deleted = "deleted"
    unchanged = "unchanged"


TextConfig = Annotated[str, mapped_column(server_default=text("'simple'"))]


class Document(Base):
    """A document, known by the caller's ``article_id``; its text is in its versions.

    One that is deleted keeps them, and none of its chunks is current, until it is undeleted or purged.
    """

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
        Index(None, "deleted_at", postgresql_where=text("deleted_at IS NOT NULL")),
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
    deleted_at: Mapped[datetime | None] = mapped_column(
        comment="Since when search does not find it, whatever its current version is"
    )

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

    A trigger refuses every UPDATE but of title, url and metadata. The content of a version is its manifest: the
    chunks of its events other than ``deleted``, in the order of their ordinals; a version that has no events at
    all consists of the chunks whose ``version_id`` it is.
    """

    __tablename__ = "rag_document_versions"
    __table_args__ = (
        UniqueConstraint("document_id", "version_number"),
        UniqueConstraint("document_id", "id"),  # what fk_current_version refers to
        CheckConstraint("version_number > 0", name="version_number"),
        CheckConstraint("jsonb_typeof(metadata) = 'object'", name="metadata"),
        CheckConstraint("byte_size >= 0", name="byte_size"),
        Index(
            None,
            "metadata",
            postgresql_using="gin",
            postgresql_ops={"metadata": "jsonb_path_ops"},
        ),
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
    details: Mapped[dict[str, Any]] = mapped_column("metadata", server_default=text("'{}'"))
    """Column ``metadata``, a name that SQLAlchemy keeps for itself: an object of whatever searches filter by."""
    file_name: Mapped[str | None]
    """Of the source: what it was called."""
    mime_type: Mapped[str | None]
    """Of the source, such as ``application/pdf``."""
    byte_size: Mapped[int | None] = mapped_column(BigInteger())
    """Of the source: how many bytes it had."""
    content_hash: Mapped[str | None]
    """Of the source: hash of its bytes, where `source_hash` is of the text that was read from it."""
    language: Mapped[str | None]
    """Of the source: tag of the language it is written in, such as ``nl`` or ``pt-BR``."""

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
        UniqueConstraint("id", "is_current"),  # what rag_chunk_embeddings refers to
        CheckConstraint("ordinal >= 0", name="ordinal"),
        CheckConstraint("vector_norm(embedding) > 0", name="embedding"),
        CheckConstraint("token_count >= 0", name="token_count"),
        Index(
            "rag_chunks_current_embedding_idx",
            "embedding",
            postgresql_using="hnsw",
            postgresql_ops={"embedding": "vector_cosine_ops"},
            postgresql_where=text("is_current"),
        ),
        Index(
            "rag_chunks_current_words_idx",
            text('(rag_words(text_config, content)) COLLATE "C"'),
            postgresql_using="gin",
            postgresql_where=text("is_current"),
        ),
        Index(
            "rag_chunks_pending_idx",
            "created_at",
            "id",
            postgresql_where=text("is_current AND embedding IS NULL"),
        ),
        storage_parameters(
            fillfactor=80,
            autovacuum_vacuum_scale_factor=0.1,
            autovacuum_vacuum_threshold=500,
            autovacuum_vacuum_cost_limit=2000,
        ),
    )

    id: Mapped[Id]
    version_id: Mapped[UUID] = mapped_column(ForeignKey("rag_document_versions.id", ondelete="CASCADE"))
    ordinal: Mapped[int]
    """Place within the version it was written with, from 0; its place in another one is its event's ordinal."""
    content: Mapped[str]
    embedding: Mapped[Vector | None] = mapped_column(Embedding())
    """Shape ``(EMBEDDING_DIMENSION,)``, float32, not zero; None until it has been computed."""
    created_at: Mapped[Timestamp]
    is_current: Mapped[bool] = mapped_column(server_default=false())
    """Whether search reads it: it is in the manifest of its document's current version, and the document is not
    deleted. Kept by triggers."""
    text_config: Mapped[TextConfig]
    """Its document's, once it is current."""
    embedding_error: Mapped[str | None]
    """Why it will not be embedded, where it has no embedding: then it waits for none."""
    token_count: Mapped[int | None]
    """How many tokens a model counts in it; None where nobody said."""

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
        CheckConstraint(
            "(start_offset IS NULL) = (end_offset IS NULL) AND start_offset >= 0 AND start_offset <= end_offset",
            name="offsets",
        ),
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
    """Column ``metadata``, a name that SQLAlchemy keeps for itself: the page and headings it stands under, ..."""
    created_at: Mapped[Timestamp]
    start_offset: Mapped[int | None]
    """Where the chunk begins within the text that this version was cut from, in characters from 0."""
    end_offset: Mapped[int | None]
    """Where it ends: before the character of this offset."""

    version: Mapped[DocumentVersion] = relationship(back_populates="events")
    chunk: Mapped[Chunk | None] = relationship(back_populates="events")
