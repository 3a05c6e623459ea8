"""Initial RAG schema

The five tables of a RAG service: documents, their immutable versions, the chunks of a version with their
embeddings, the events between versions, and jobs. The id equals the Atlas version of the same schema, so that
a database made by Atlas is adopted by stamping.

Locks: none on existing tables, everything is new.
Data: none.
Deploy: expand (before any code).
Downgrade: drops the five tables and every row in them, and the enum types. The extension vector stays:
other tables of the database may use it.
"""

import sqlalchemy as sa
from alembic import op
from pgvector.sqlalchemy import VECTOR
from sqlalchemy.dialects import postgresql

revision = "20251225160000"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE EXTENSION IF NOT EXISTS vector")

    op.create_table(
        "rag_documents",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("article_id", sa.Text(), nullable=False),
        sa.Column("current_version_id", sa.Uuid(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("CURRENT_TIMESTAMP"),
            nullable=True,
        ),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("CURRENT_TIMESTAMP"),
            nullable=True,
        ),
        sa.PrimaryKeyConstraint("id", name="rag_documents_pkey"),
        sa.UniqueConstraint("article_id", name="rag_documents_article_id_key"),
    )

    op.create_table(
        "rag_document_versions",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("document_id", sa.Uuid(), nullable=False),
        sa.Column("version_number", sa.Integer(), nullable=False),
        sa.Column("source_hash", sa.Text(), nullable=False),
        sa.Column("chunker_version", sa.Text(), nullable=False),
        sa.Column("embedder_version", sa.Text(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("CURRENT_TIMESTAMP"),
            nullable=True,
        ),
        sa.PrimaryKeyConstraint("id", name="rag_document_versions_pkey"),
        sa.ForeignKeyConstraint(
            ["document_id"],
            ["rag_documents.id"],
            name="rag_document_versions_document_id_fkey",
            ondelete="CASCADE",
        ),
        sa.UniqueConstraint(
            "document_id", "version_number", name="rag_document_versions_document_id_version_number_key"
        ),
    )

    # the cycle: a document points at its current version; deferred, so that both can be written in any order
    op.create_foreign_key(
        "fk_current_version",
        "rag_documents",
        "rag_document_versions",
        ["current_version_id"],
        ["id"],
        deferrable=True,
        initially="DEFERRED",
    )

    op.create_table(
        "rag_chunks",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("version_id", sa.Uuid(), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("embedding", VECTOR(768), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("CURRENT_TIMESTAMP"),
            nullable=True,
        ),
        sa.PrimaryKeyConstraint("id", name="rag_chunks_pkey"),
        sa.ForeignKeyConstraint(
            ["version_id"],
            ["rag_document_versions.id"],
            name="rag_chunks_version_id_fkey",
            ondelete="CASCADE",
        ),
        sa.UniqueConstraint("version_id", "ordinal", name="rag_chunks_version_id_ordinal_key"),
    )
    op.create_index(
        "rag_chunks_embedding_idx",
        "rag_chunks",
        ["embedding"],
        postgresql_using="hnsw",
        postgresql_ops={"embedding": "vector_cosine_ops"},
    )

    chunk_event_type = postgresql.ENUM(
        "added", "updated", "deleted", "unchanged", name="chunk_event_type", create_type=False
    )
    chunk_event_type.create(op.get_bind(), checkfirst=False)
    op.create_table(
        "rag_chunk_events",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("version_id", sa.Uuid(), nullable=False),
        sa.Column("chunk_id", sa.Uuid(), nullable=True),
        sa.Column("ordinal", sa.Integer(), nullable=True),
        sa.Column("event_type", chunk_event_type, nullable=False),
        sa.Column("metadata", postgresql.JSONB(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("CURRENT_TIMESTAMP"),
            nullable=True,
        ),
        sa.PrimaryKeyConstraint("id", name="rag_chunk_events_pkey"),
        sa.ForeignKeyConstraint(
            ["version_id"],
            ["rag_document_versions.id"],
            name="rag_chunk_events_version_id_fkey",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["chunk_id"], ["rag_chunks.id"], name="rag_chunk_events_chunk_id_fkey"),
    )

    job_status = postgresql.ENUM(
        "new", "processing", "completed", "failed", name="job_status", create_type=False
    )
    job_status.create(op.get_bind(), checkfirst=False)
    op.create_table(
        "rag_jobs",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("job_type", sa.Text(), nullable=False),
        sa.Column("payload", postgresql.JSONB(), nullable=False),
        sa.Column("status", job_status, server_default="new", nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("CURRENT_TIMESTAMP"),
            nullable=True,
        ),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("CURRENT_TIMESTAMP"),
            nullable=True,
        ),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="rag_jobs_pkey"),
    )
    op.create_index("rag_jobs_status_created_at_idx", "rag_jobs", ["status", "created_at"])


def downgrade() -> None:
    op.drop_index("rag_jobs_status_created_at_idx", table_name="rag_jobs")
    op.drop_table("rag_jobs")
    op.execute("DROP TYPE job_status")
    op.drop_table("rag_chunk_events")
    op.execute("DROP TYPE chunk_event_type")
    op.drop_index("rag_chunks_embedding_idx", table_name="rag_chunks")
    op.drop_table("rag_chunks")
    op.drop_constraint("fk_current_version", "rag_documents", type_="foreignkey")
    op.drop_table("rag_document_versions")
    op.drop_table("rag_documents")
