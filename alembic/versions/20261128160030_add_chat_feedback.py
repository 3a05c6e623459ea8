"""Add chat feedback

Which answers users found good, one row for each of them and each message.

Locks: SHARE ROW EXCLUSIVE on rag_chat_messages for a moment, for the foreign key.
Data: none.
Deploy: expand (before the code that keeps conversations).
Downgrade: drops the feedback.
"""

import sqlalchemy as sa
from alembic import op

revision = "20261128160030"
down_revision = "20261128160020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    now = sa.text("CURRENT_TIMESTAMP")
    op.create_table(
        "rag_chat_feedback",
        sa.Column("message_id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("rating", sa.SmallInteger(), nullable=False, comment="1: good, -1: bad"),
        sa.Column("comment", sa.Text(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=now,
            nullable=False,
            comment="When it was given, or last changed",
        ),
        sa.PrimaryKeyConstraint("message_id", "user_id", name="rag_chat_feedback_pkey"),
        sa.ForeignKeyConstraint(
            ["message_id"],
            ["rag_chat_messages.id"],
            name="rag_chat_feedback_message_id_fkey",
            ondelete="CASCADE",
        ),
        sa.CheckConstraint("rating = ANY (ARRAY[-1, 1])", name="rag_chat_feedback_rating_check"),
        sa.CheckConstraint("octet_length(user_id) <= 2000", name="rag_chat_feedback_user_id_check"),
    )


def downgrade() -> None:
    op.drop_table("rag_chat_feedback")
