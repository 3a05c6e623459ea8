"""The tables of the knowledge graph: entities, relations between them, and which chunks mention either."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import REAL, CheckConstraint, Computed, ForeignKey, Index, UniqueConstraint, false, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from ragschema.schema.base import Base, Id, Timestamp


class Entity(Base):
    """A person, a place, a product, ...: of each type there is one of a name, however that is spelled.

    It is current while a current chunk mentions it, or where it was imported. One that was merged into another keeps
    its row, so that its name leads to the entity that was kept.
    """

    __tablename__ = "rag_entities"
    __table_args__ = (
        UniqueConstraint("entity_type", "name_key"),
        CheckConstraint(r"entity_type ~ '\S' AND octet_length(entity_type) <= 200", name="entity_type"),
        CheckConstraint(
            "octet_length(name) <= 1000 AND octet_length(name_key) >= 1 AND octet_length(name_key) <= 2000",
            name="name",
        ),
        CheckConstraint("jsonb_typeof(properties) = 'object'", name="properties"),
        CheckConstraint("merged_into IS NULL OR merged_into <> id AND NOT is_current", name="merged_into"),
        Index(None, "merged_into"),
    )

    id: Mapped[Id]
    entity_type: Mapped[str] = mapped_column(comment="person, place, product, ...: the extractor's own word")
    name: Mapped[str] = mapped_column(comment="As it was written first")
    name_key: Mapped[str] = mapped_column(
        Computed("rag_name_key(name)", persisted=True), comment="What spellings of the name have in common"
    )
    description: Mapped[str | None]
    properties: Mapped[dict[str, Any]] = mapped_column(
        JSONB(none_as_null=True), server_default=text("'{}'"), comment="An object of the caller's"
    )
    is_current: Mapped[bool] = mapped_column(
        server_default=false(), comment="Whether a current chunk mentions it, or it was imported"
    )
    is_imported: Mapped[bool] = mapped_column(
        server_default=false(), comment="Whether it is current without a chunk that mentions it"
    )
    merged_into: Mapped[UUID | None] = mapped_column(
        ForeignKey("rag_entities.id", ondelete="CASCADE"), comment="The entity that was kept in its place"
    )
    created_at: Mapped[Timestamp]


class EntityAlias(Base):
    """Another name of an entity: of a type, what is called so is that entity, unless one has it as its own name."""

    __tablename__ = "rag_entity_aliases"
    __table_args__ = (
        CheckConstraint(
            "octet_length(alias) <= 1000 AND octet_length(alias_key) >= 1 AND octet_length(alias_key) <= 2000",
            name="alias",
        ),
        Index(None, "entity_id"),
        Index(None, "document_id"),
    )

    entity_type: Mapped[str] = mapped_column(primary_key=True)
    alias_key: Mapped[str] = mapped_column(
        Computed("rag_name_key(alias)", persisted=True),
        primary_key=True,
        comment="What its spellings have in common",
    )
    entity_id: Mapped[UUID] = mapped_column(ForeignKey("rag_entities.id", ondelete="CASCADE"))
    alias: Mapped[str]
    document_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("rag_documents.id", ondelete="CASCADE"),
        comment="The document that said it first, and takes it along; null where none did",
    )


class Relation(Base):
    """What one entity is to another: of a type there is one from each to each.

    It is current while a current chunk mentions it, or where it was imported.
    """

    __tablename__ = "rag_relations"
    __table_args__ = (
        UniqueConstraint("source_id", "relation_type", "target_id"),
        CheckConstraint(r"relation_type ~ '\S' AND octet_length(relation_type) <= 200", name="relation_type"),
        CheckConstraint("weight >= 0 AND weight < 'Infinity'", name="weight"),
        CheckConstraint("jsonb_typeof(properties) = 'object'", name="properties"),
        Index(
            "rag_relations_current_source_idx",
            "source_id",
            text("weight DESC"),
            "id",
            postgresql_include=["target_id", "relation_type"],
            postgresql_where=text("is_current"),
        ),
        Index(
            "rag_relations_current_target_idx",
            "target_id",
            text("weight DESC"),
            "id",
            postgresql_include=["source_id", "relation_type"],
            postgresql_where=text("is_current"),
        ),
        Index(None, "target_id"),
    )

    id: Mapped[Id]
    source_id: Mapped[UUID] = mapped_column(ForeignKey("rag_entities.id", ondelete="CASCADE"))
    relation_type: Mapped[str] = mapped_column(comment="works_for, part_of, ...: the extractor's own word")
    target_id: Mapped[UUID] = mapped_column(ForeignKey("rag_entities.id", ondelete="CASCADE"))
    weight: Mapped[float] = mapped_column(
        REAL, server_default=text("1"), comment="How much it counts, 0 or more: the greatest that was said"
    )
    description: Mapped[str | None]
    properties: Mapped[dict[str, Any]] = mapped_column(
        JSONB(none_as_null=True), server_default=text("'{}'"), comment="An object of the caller's"
    )
    is_current: Mapped[bool] = mapped_column(
        server_default=false(), comment="Whether a current chunk mentions it, or it was imported"
    )
    is_imported: Mapped[bool] = mapped_column(
        server_default=false(), comment="Whether it is current without a chunk that mentions it"
    )
    created_at: Mapped[Timestamp]


class EntityMention(Base):
    """That a chunk mentions an entity: the evidence for it."""

    __tablename__ = "rag_entity_mentions"
    __table_args__ = (Index(None, "entity_id", "chunk_id"),)

    chunk_id: Mapped[UUID] = mapped_column(ForeignKey("rag_chunks.id", ondelete="CASCADE"), primary_key=True)
    entity_id: Mapped[UUID] = mapped_column(
        ForeignKey("rag_entities.id", ondelete="CASCADE"), primary_key=True
    )


class RelationMention(Base):
    """That a chunk says a relation: the evidence for it."""

    __tablename__ = "rag_relation_mentions"
    __table_args__ = (Index(None, "relation_id", "chunk_id"),)

    chunk_id: Mapped[UUID] = mapped_column(ForeignKey("rag_chunks.id", ondelete="CASCADE"), primary_key=True)
    relation_id: Mapped[UUID] = mapped_column(
        ForeignKey("rag_relations.id", ondelete="CASCADE"), primary_key=True
    )


class Extraction(Base):
    """That an extractor has read a chunk, whether or not it found something."""

    __tablename__ = "rag_extractions"
    __table_args__ = (
        CheckConstraint(
            r"extractor_version ~ '\S' AND octet_length(extractor_version) <= 200", name="extractor_version"
        ),
    )

    chunk_id: Mapped[UUID] = mapped_column(ForeignKey("rag_chunks.id", ondelete="CASCADE"), primary_key=True)
    extractor_version: Mapped[str] = mapped_column(
        primary_key=True, comment="The caller's own word for model, prompt and settings"
    )
    created_at: Mapped[Timestamp]


class EntityMerge(Base):
    """That an entity was merged into another, and what moved: by which it can be undone."""

    __tablename__ = "rag_entity_merges"
    __table_args__ = (
        UniqueConstraint("merged_id"),
        CheckConstraint("kept_id <> merged_id", name="kept_id"),
        CheckConstraint("jsonb_typeof(moved) = 'object'", name="moved"),
        Index(None, "kept_id"),
    )

    id: Mapped[Id]
    kept_id: Mapped[UUID] = mapped_column(ForeignKey("rag_entities.id", ondelete="CASCADE"))
    merged_id: Mapped[UUID] = mapped_column(ForeignKey("rag_entities.id", ondelete="CASCADE"))
    moved: Mapped[dict[str, Any]] = mapped_column(
        JSONB(none_as_null=True),
        comment="The mentions and relations that were the merged one's, by their ids",
    )
    created_at: Mapped[Timestamp]
