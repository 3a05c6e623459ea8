"""The tables of embedding models: which models there are, and their embeddings of chunks."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, TypeAlias
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKeyConstraint, Identity, Index, SmallInteger, text
from sqlalchemy.orm import Mapped, mapped_column

from ragschema.embeddings.half_column_type import HalfEmbedding
from ragschema.embeddings.wire import Vector
from ragschema.schema.base import Base, Timestamp

Distance: TypeAlias = Literal["cosine", "l2", "inner_product"]
IndexType: TypeAlias = Literal["vector", "halfvec", "bit", "none"]
ModelState: TypeAlias = Literal["building", "active", "standby", "retired"]

COLUMN_MODEL = 1
"""Id of the model whose embeddings are the column ``rag_chunks.embedding``."""
COLUMN_KEY = "default"
"""Its key, where no model is registered."""


class EmbeddingModel(Base):
    """An embedding model whose embeddings of the chunks are kept, all of one dimension.

    Model 1 is the column ``rag_chunks.embedding``; it has a row where the column is used beside another model. Every
    other one has a partition of ``rag_chunk_embeddings``. Where no model has a row, the column is the only one.
    """

    __tablename__ = "rag_embedding_models"
    __table_args__ = (
        CheckConstraint(r"key ~ '\S' AND octet_length(key) <= 200", name="key"),
        CheckConstraint("dimensions >= 1 AND dimensions <= 16000", name="dimensions"),
        CheckConstraint("distance = ANY (ARRAY['cosine', 'l2', 'inner_product'])", name="distance"),
        CheckConstraint(
            "CASE index_type WHEN 'vector' THEN dimensions <= 2000 WHEN 'halfvec' THEN dimensions <= 4000"
            " WHEN 'bit' THEN distance = 'cosine' ELSE index_type = 'none' END",
            name="index_type",
        ),
        CheckConstraint(
            "hnsw_m >= 2 AND hnsw_m <= 100 AND hnsw_ef_construction >= 2 * hnsw_m AND hnsw_ef_construction <= 1000",
            name="hnsw",
        ),
        CheckConstraint("state = ANY (ARRAY['building', 'active', 'standby', 'retired'])", name="state"),
        CheckConstraint(
            "id <> 1 OR dimensions = 768 AND distance = 'cosine' AND index_type = 'vector'", name="column"
        ),
        Index(
            "rag_embedding_models_active_idx",
            "state",
            unique=True,
            postgresql_where=text("state = 'active'"),
        ),
    )

    id: Mapped[int] = mapped_column(
        SmallInteger,
        Identity(start=2),
        primary_key=True,
        comment="1 is the column rag_chunks.embedding, n the partition rag_chunk_embeddings_n",
    )
    key: Mapped[str] = mapped_column(unique=True, comment="What services and commands call it")
    dimensions: Mapped[int]
    distance: Mapped[str] = mapped_column(
        server_default=text("'cosine'"), comment="cosine, l2 or inner_product"
    )
    index_type: Mapped[str] = mapped_column(
        server_default=text("'halfvec'"),
        comment="What its HNSW index holds: vector, halfvec or bit; none: no index",
    )
    hnsw_m: Mapped[int] = mapped_column(
        server_default=text("16"), comment="Neighbours that an element keeps a layer"
    )
    hnsw_ef_construction: Mapped[int] = mapped_column(
        server_default=text("64"), comment="Candidates kept while an element is inserted"
    )
    state: Mapped[str] = mapped_column(
        server_default=text("'building'"),
        comment="building: being filled; active: what new text is embedded for first; standby: kept up beside it;"
        " retired: its embeddings are gone",
    )
    created_at: Mapped[Timestamp]
    activated_at: Mapped[datetime | None] = mapped_column(comment="When it last became the active one")


class ChunkEmbedding(Base):
    """A model's embedding of a chunk, or why it will have none; model 1's are in ``rag_chunks.embedding``.

    The foreign key carries ``is_current`` from the chunk in the statement that changes it there.
    """

    __tablename__ = "rag_chunk_embeddings"
    __table_args__ = (
        ForeignKeyConstraint(
            ["chunk_id", "is_current"],
            ["rag_chunks.id", "rag_chunks.is_current"],
            onupdate="CASCADE",
            ondelete="CASCADE",
        ),
        CheckConstraint("(embedding IS NULL) = (embedding_error IS NOT NULL)", name="embedding_error"),
        {"postgresql_partition_by": "LIST (model_id)"},
    )

    chunk_id: Mapped[UUID] = mapped_column(primary_key=True)
    model_id: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    embedding: Mapped[Vector | None] = mapped_column(HalfEmbedding())
    """Shape ``(dimensions,)`` of its model, float32 here and float16 in the database."""
    is_current: Mapped[bool] = mapped_column(comment="The chunk's, by the foreign key")
    embedding_error: Mapped[str | None] = mapped_column(comment="Why the model will not embed the chunk")
