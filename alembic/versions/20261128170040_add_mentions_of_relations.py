"""Add mentions of relations

Which chunks say a relation: it is current while one of these is, and they are what an answer cites for it.

Locks: SHARE ROW EXCLUSIVE on rag_chunks for a moment, so that writers wait, and on rag_relations, for the foreign keys.
Data: none.
Deploy: expand (before the code that keeps a graph).
Downgrade: drops the mentions.
"""

import sqlalchemy as sa
from alembic import op

revision = "20261128170040"
down_revision = "20261128170030"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "rag_relation_mentions",
        sa.Column("chunk_id", sa.Uuid(), nullable=False),
        sa.Column("relation_id", sa.Uuid(), nullable=False),
        sa.PrimaryKeyConstraint("chunk_id", "relation_id", name="rag_relation_mentions_pkey"),
        sa.ForeignKeyConstraint(
            ["chunk_id"], ["rag_chunks.id"], name="rag_relation_mentions_chunk_id_fkey", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["relation_id"],
            ["rag_relations.id"],
            name="rag_relation_mentions_relation_id_fkey",
            ondelete="CASCADE",
        ),
    )
    op.create_index(
        "rag_relation_mentions_relation_id_chunk_id_idx", "rag_relation_mentions", ["relation_id", "chunk_id"]
    )


def downgrade() -> None:
    op.drop_table("rag_relation_mentions")
