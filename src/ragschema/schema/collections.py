"""The tables of collections: which there are, and which documents each has."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from ragschema.schema.base import Base, Id, Timestamp


class Collection(Base):
    """A part of the corpus that searches may be limited to; a document is in any number of them."""

    __tablename__ = "rag_collections"
    __table_args__ = (
        UniqueConstraint("name"),
        CheckConstraint(r"name ~ '\S' AND octet_length(name) <= 500", name="name"),
        CheckConstraint(r"description ~ '\S'", name="description"),
        CheckConstraint("jsonb_typeof(metadata) = 'object'", name="metadata"),
    )

    id: Mapped[Id] = mapped_column(comment="What searches are limited by; people use its name")
    name: Mapped[str] = mapped_column(comment="What people call it")
    description: Mapped[str] = mapped_column(comment="What is in it, for those who choose where to search")
    text_config: Mapped[str] = mapped_column(
        server_default=text("'simple'"),
        comment="Text search configuration of documents that are first published into it",
    )
    details: Mapped[dict[str, Any]] = mapped_column(
        "metadata", server_default=text("'{}'::jsonb"), comment="What a service keeps about it, an object"
    )
    created_at: Mapped[Timestamp]
    updated_at: Mapped[Timestamp] = mapped_column(
        comment="When anything of it last changed, its documents apart"
    )


class CollectionDocument(Base):
    """A document's place in a collection; it ends with either, and neither ends with it."""

    __tablename__ = "rag_collection_documents"
    __table_args__ = (Index(None, "document_id", "collection_id"),)

    collection_id: Mapped[UUID] = mapped_column(
        ForeignKey("rag_collections.id", ondelete="CASCADE"), primary_key=True
    )
    document_id: Mapped[UUID] = mapped_column(
        ForeignKey("rag_documents.id", ondelete="CASCADE"), primary_key=True
    )
    added_at: Mapped[Timestamp]
