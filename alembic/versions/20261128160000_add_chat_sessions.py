"""Add chat sessions

Conversations belong beside the documents that their answers cite. A session keeps no counters: a row that every
message updates has its writers wait for each other.

Locks: none on existing tables.
Data: none.
Deploy: expand (before the code that keeps conversations).
Downgrade: drops the sessions.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "20261128160000"
down_revision = "20261128142000"
branch_labels = None
depends_on = None


def upgrade() -> None:
    now = sa.text("CURRENT_TIMESTAMP")
    op.create_table(
        "rag_chat_sessions",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=True, comment="The caller's own key for whose it is"),
        sa.Column("title", sa.Text(), nullable=True),
        sa.Column(
            "metadata",
            postgresql.JSONB(),
            server_default=sa.text("'{}'"),
            nullable=False,
            comment="An object of the caller's",
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=now, nullable=False),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=now,
            nullable=False,
            comment="When a message was added last, to the minute: later ones of the same minute do not write it",
        ),
        sa.Column(
            "deleted_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When it was deleted for its user; its rows stay until it is pruned",
        ),
        sa.PrimaryKeyConstraint("id", name="rag_chat_sessions_pkey"),
        sa.CheckConstraint("octet_length(user_id) <= 2000", name="rag_chat_sessions_user_id_check"),
        sa.CheckConstraint("jsonb_typeof(metadata) = 'object'", name="rag_chat_sessions_metadata_check"),
    )
    op.create_index(
        "rag_chat_sessions_user_id_idx",
        "rag_chat_sessions",
        ["user_id", "updated_at", "id"],
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_index("rag_chat_sessions_updated_at_idx", "rag_chat_sessions", ["updated_at"])


def downgrade() -> None:
    op.drop_table("rag_chat_sessions")
