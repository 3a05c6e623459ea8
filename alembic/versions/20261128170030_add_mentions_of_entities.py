"""Add mentions of entities

Which chunks speak of an entity: it is current while one of these is, and they are what an answer cites for it.

Locks: SHARE ROW EXCLUSIVE on rag_chunks for a moment, so that writers wait, and on rag_entities, for the foreign keys.
Data: none.
Deploy: expand (before the code that keeps a graph).
Downgrade: drops the mentions.
"""

import sqlalchemy as sa
from alembic import op

revision = "20261128170030"
down_revision = "20261128170020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "rag_entity_mentions",
        sa.Column("chunk_id", sa.Uuid(), nullable=False),
        sa.Column("entity_id", sa.Uuid(), nullable=False),
        sa.PrimaryKeyConstraint("chunk_id", "entity_id", name="rag_entity_mentions_pkey"),
        sa.ForeignKeyConstraint(
            ["chunk_id"], ["rag_chunks.id"], name="rag_entity_mentions_chunk_id_fkey", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["entity_id"], ["rag_entities.id"], name="rag_entity_mentions_entity_id_fkey", ondelete="CASCADE"
        ),
    )
    op.create_index(
        "rag_entity_mentions_entity_id_chunk_id_idx", "rag_entity_mentions", ["entity_id", "chunk_id"]
    )


def downgrade() -> None:
    op.drop_table("rag_entity_mentions")
