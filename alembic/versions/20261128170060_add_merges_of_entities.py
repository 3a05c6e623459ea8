"""Add merges of entities

Which entities were merged into which, with what moved: so that a merge of two who are not the same can be undone.

Locks: SHARE ROW EXCLUSIVE on rag_entities for a moment, for the foreign keys.
Data: none.
Deploy: expand (before the code that keeps a graph).
Downgrade: drops the log: what was merged stays so.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "20261128170060"
down_revision = "20261128170050"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "rag_entity_merges",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("kept_id", sa.Uuid(), nullable=False),
        sa.Column("merged_id", sa.Uuid(), nullable=False),
        sa.Column(
            "moved",
            postgresql.JSONB(),
            nullable=False,
            comment="The mentions and relations that were the merged one's, by their ids",
        ),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("CURRENT_TIMESTAMP"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id", name="rag_entity_merges_pkey"),
        sa.UniqueConstraint("merged_id", name="rag_entity_merges_merged_id_key"),
        sa.ForeignKeyConstraint(
            ["kept_id"], ["rag_entities.id"], name="rag_entity_merges_kept_id_fkey", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["merged_id"], ["rag_entities.id"], name="rag_entity_merges_merged_id_fkey", ondelete="CASCADE"
        ),
        sa.CheckConstraint("kept_id <> merged_id", name="rag_entity_merges_kept_id_check"),
        sa.CheckConstraint("jsonb_typeof(moved) = 'object'", name="rag_entity_merges_moved_check"),
    )
    op.create_index("rag_entity_merges_kept_id_idx", "rag_entity_merges", ["kept_id"])


def downgrade() -> None:
    op.drop_table("rag_entity_merges")
