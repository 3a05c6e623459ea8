"""Keep embeddings of several models

One partition a model, made when the model is added: each with its own dimension and index.

Locks: SHARE ROW EXCLUSIVE on rag_chunks for a moment, so that writers wait, for the foreign key.
Data: none.
Deploy: expand (before the code that embeds by several models).
Downgrade: drops the table with the embeddings of every model but the column's.
"""

import sqlalchemy as sa
from alembic import op
from pgvector.sqlalchemy import HALFVEC

revision = "20261128130120"
down_revision = "20261128130110"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "rag_chunk_embeddings",
        sa.Column("chunk_id", sa.Uuid(), nullable=False),
        sa.Column("model_id", sa.SmallInteger(), nullable=False),
        sa.Column("embedding", HALFVEC(), nullable=True),
        sa.Column("is_current", sa.Boolean(), nullable=False, comment="The chunk's, by the foreign key"),
        sa.Column(
            "embedding_error", sa.Text(), nullable=True, comment="Why the model will not embed the chunk"
        ),
        sa.PrimaryKeyConstraint("chunk_id", "model_id", name="rag_chunk_embeddings_pkey"),
        sa.CheckConstraint(
            "(embedding IS NULL) = (embedding_error IS NOT NULL)",
            name="rag_chunk_embeddings_embedding_error_check",
        ),
        sa.ForeignKeyConstraint(
            ["chunk_id", "is_current"],
            ["rag_chunks.id", "rag_chunks.is_current"],
            name="rag_chunk_embeddings_chunk_id_is_current_fkey",
            onupdate="CASCADE",
            ondelete="CASCADE",
        ),
        postgresql_partition_by="LIST (model_id)",
    )


def downgrade() -> None:
    op.drop_table("rag_chunk_embeddings")
