"""Add extractions

Which extractor has read which chunk, also where it found nothing: what has not been read is found by it.

Locks: SHARE ROW EXCLUSIVE on rag_chunks for a moment, so that writers wait, for the foreign key.
Data: none.
Deploy: expand (before the code that keeps a graph).
Downgrade: drops the extractions; the mentions stay.
"""

import sqlalchemy as sa
from alembic import op

revision = "20261128170050"
down_revision = "20261128170040"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "rag_extractions",
        sa.Column("chunk_id", sa.Uuid(), nullable=False),
        sa.Column(
            "extractor_version",
            sa.Text(),
            nullable=False,
            comment="The caller's own word for model, prompt and settings",
        ),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("CURRENT_TIMESTAMP"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("chunk_id", "extractor_version", name="rag_extractions_pkey"),
        sa.ForeignKeyConstraint(
            ["chunk_id"], ["rag_chunks.id"], name="rag_extractions_chunk_id_fkey", ondelete="CASCADE"
        ),
        sa.CheckConstraint(
            r"extractor_version ~ '\S' AND octet_length(extractor_version) <= 200",
            name="rag_extractions_extractor_version_check",
        ),
    )


def downgrade() -> None:
    op.drop_table("rag_extractions")
