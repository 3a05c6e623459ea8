"""Add chat messages

A tree within each session: an answer that is written again is a sibling of the first. A parent is named by its
position, which is smaller than that of what follows it: no message is above itself, nor below one of another session.

Locks: SHARE ROW EXCLUSIVE on rag_chat_sessions for a moment, for the foreign key.
Data: none.
Deploy: expand (before the code that keeps conversations).
Downgrade: drops the messages.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "20261128160010"
down_revision = "20261128160000"
branch_labels = None
depends_on = None


def upgrade() -> None:
    now = sa.text("CURRENT_TIMESTAMP")
    op.create_table(
        "rag_chat_messages",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("session_id", sa.Uuid(), nullable=False),
        sa.Column(
            "position",
            sa.BigInteger(),
            sa.Identity(),
            nullable=False,
            comment="Counts up as messages are written: their order within a session",
        ),
        sa.Column(
            "parent_position",
            sa.BigInteger(),
            nullable=True,
            comment="Position of the message that it follows; siblings have the same",
        ),
        sa.Column("role", sa.Text(), nullable=False, comment="system, user, assistant or tool"),
        sa.Column(
            "content", sa.Text(), nullable=False, comment="The text; that of its parts, where it has any"
        ),
        sa.Column(
            "parts",
            postgresql.JSONB(),
            nullable=True,
            comment="All of it, where it is not text alone: images, calls of tools",
        ),
        sa.Column(
            "tool_call_id", sa.Text(), nullable=True, comment="Of a tool's message: the call that it answers"
        ),
        sa.Column("model", sa.Text(), nullable=True, comment="The language model that wrote it"),
        sa.Column("input_tokens", sa.Integer(), nullable=True),
        sa.Column("output_tokens", sa.Integer(), nullable=True),
        sa.Column("latency_ms", sa.Integer(), nullable=True, comment="Milliseconds that it took to write"),
        sa.Column(
            "finish_reason", sa.Text(), nullable=True, comment="Why the model stopped, in its own word"
        ),
        sa.Column("error_message", sa.Text(), nullable=True, comment="Why it is not whole, where it is not"),
        sa.Column(
            "metadata",
            postgresql.JSONB(),
            server_default=sa.text("'{}'"),
            nullable=False,
            comment="An object of the caller's",
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=now, nullable=False),
        sa.PrimaryKeyConstraint("id", name="rag_chat_messages_pkey"),
        sa.UniqueConstraint("session_id", "position", name="rag_chat_messages_session_id_position_key"),
        sa.ForeignKeyConstraint(
            ["session_id"],
            ["rag_chat_sessions.id"],
            name="rag_chat_messages_session_id_fkey",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["session_id", "parent_position"],
            ["rag_chat_messages.session_id", "rag_chat_messages.position"],
            name="rag_chat_messages_parent_position_fkey",
        ),
        sa.CheckConstraint('parent_position < "position"', name="rag_chat_messages_parent_position_check"),
        sa.CheckConstraint(
            "role = ANY (ARRAY['system', 'user', 'assistant', 'tool'])", name="rag_chat_messages_role_check"
        ),
        sa.CheckConstraint("jsonb_typeof(parts) = 'array'", name="rag_chat_messages_parts_check"),
        sa.CheckConstraint(
            "LEAST(input_tokens, output_tokens, latency_ms) >= 0", name="rag_chat_messages_numbers_check"
        ),
        sa.CheckConstraint("jsonb_typeof(metadata) = 'object'", name="rag_chat_messages_metadata_check"),
    )
    op.create_index(
        "rag_chat_messages_session_id_parent_position_idx",
        "rag_chat_messages",
        ["session_id", "parent_position"],
    )


def downgrade() -> None:
    op.drop_table("rag_chat_messages")
