"""Add collections of documents

One corpus holds handbooks beside tickets, and an assistant is to answer from the one and not from the other. Which
documents a search may look at was for each service to keep, and to send by their ids: thousands with each question.

Locks: SHARE ROW EXCLUSIVE on rag_documents for a moment, so that writers wait, for the foreign key.
Data: none.
Deploy: expand (before the code that knows collections; documents in none are found as ever).
Downgrade: drops the collections, and which documents they have; the documents stay.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from ragschema.operations_v2 import create_trigger

revision = "20261128142000"
down_revision = "20261128141100"
branch_labels = None
depends_on = None


def upgrade() -> None:
    now = sa.text("CURRENT_TIMESTAMP")
    op.create_table(
        "rag_collections",
        sa.Column(
            "id",
            sa.Uuid(),
            server_default=sa.text("gen_random_uuid()"),
            nullable=False,
            comment="What searches are limited by; people use its name",
        ),
        sa.Column("name", sa.Text(), nullable=False, comment="What people call it"),
        sa.Column(
            "description",
            sa.Text(),
            nullable=False,
            comment="What is in it, for those who choose where to search",
        ),
        sa.Column(
            "text_config",
            sa.Text(),
            server_default=sa.text("'simple'"),
            nullable=False,
            comment="Text search configuration of documents that are first published into it",
        ),
        sa.Column(
            "metadata",
            postgresql.JSONB(),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
            comment="What a service keeps about it, an object",
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=now, nullable=False),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=now,
            nullable=False,
            comment="When anything of it last changed, its documents apart",
        ),
        sa.PrimaryKeyConstraint("id", name="rag_collections_pkey"),
        sa.UniqueConstraint("name", name="rag_collections_name_key"),
        sa.CheckConstraint(r"name ~ '\S' AND octet_length(name) <= 500", name="rag_collections_name_check"),
        sa.CheckConstraint(r"description ~ '\S'", name="rag_collections_description_check"),
        sa.CheckConstraint("jsonb_typeof(metadata) = 'object'", name="rag_collections_metadata_check"),
    )
    create_trigger("rag_collections_touch_updated_at", 1)
    op.create_table(
        "rag_collection_documents",
        sa.Column("collection_id", sa.Uuid(), nullable=False),
        sa.Column("document_id", sa.Uuid(), nullable=False),
        sa.Column("added_at", sa.DateTime(timezone=True), server_default=now, nullable=False),
        sa.PrimaryKeyConstraint("collection_id", "document_id", name="rag_collection_documents_pkey"),
        sa.ForeignKeyConstraint(
            ["collection_id"],
            ["rag_collections.id"],
            name="rag_collection_documents_collection_id_fkey",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["document_id"],
            ["rag_documents.id"],
            name="rag_collection_documents_document_id_fkey",
            ondelete="CASCADE",
        ),
    )
    op.create_index(
        "rag_collection_documents_document_id_collection_id_idx",
        "rag_collection_documents",
        ["document_id", "collection_id"],
    )


def downgrade() -> None:
    op.drop_table("rag_collection_documents")
    op.drop_table("rag_collections")
