"""Add chat citations

What an answer rests on, as it was then. Without foreign keys to documents, so that it can be shown after they were
replaced, pruned or purged; what was retrieved and not cited is kept as a hash.

Locks: SHARE ROW EXCLUSIVE on rag_chat_messages for a moment, for the foreign key.
Data: none.
Deploy: expand (before the code that keeps conversations).
Downgrade: drops the citations.
"""

import sqlalchemy as sa
from alembic import op

revision = "20261128160020"
down_revision = "20261128160010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "rag_chat_citations",
        sa.Column("message_id", sa.Uuid(), nullable=False),
        sa.Column(
            "number",
            sa.Integer(),
            autoincrement=False,
            nullable=False,
            comment="Place among what was found, from 1: the [1] of an answer",
        ),
        sa.Column(
            "is_cited",
            sa.Boolean(),
            server_default=sa.true(),
            nullable=False,
            comment="Whether the message cites it; else it was only retrieved",
        ),
        sa.Column("document_id", sa.Uuid(), nullable=False),
        sa.Column("article_id", sa.Text(), nullable=False),
        sa.Column("version_id", sa.Uuid(), nullable=False),
        sa.Column("version_number", sa.Integer(), nullable=False),
        sa.Column("chunk_id", sa.Uuid(), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("start_offset", sa.Integer(), nullable=True),
        sa.Column("end_offset", sa.Integer(), nullable=True),
        sa.Column(
            "content_hash", sa.LargeBinary(), nullable=False, comment="SHA-256 of the chunk's text in UTF-8"
        ),
        sa.Column(
            "quote", sa.Text(), nullable=True, comment="The chunk's text, where it is cited and not erased"
        ),
        sa.Column("title", sa.Text(), nullable=True),
        sa.Column("url", sa.Text(), nullable=True),
        sa.Column("score", sa.Double(), nullable=True, comment="Of hybrid_search: larger is better"),
        sa.Column("distance", sa.Double(), nullable=True, comment="Of its embedding: smaller is better"),
        sa.Column(
            "erased_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When quote, title and url were taken out, because the document was erased",
        ),
        sa.PrimaryKeyConstraint("message_id", "number", name="rag_chat_citations_pkey"),
        sa.ForeignKeyConstraint(
            ["message_id"],
            ["rag_chat_messages.id"],
            name="rag_chat_citations_message_id_fkey",
            ondelete="CASCADE",
        ),
        sa.CheckConstraint("number > 0", name="rag_chat_citations_number_check"),
        sa.CheckConstraint("octet_length(content_hash) = 32", name="rag_chat_citations_content_hash_check"),
        sa.CheckConstraint("is_cited OR quote IS NULL", name="rag_chat_citations_quote_check"),
        sa.CheckConstraint(
            "erased_at IS NULL OR num_nonnulls(quote, title, url) = 0",
            name="rag_chat_citations_erased_at_check",
        ),
    )
    op.create_index("rag_chat_citations_document_id_idx", "rag_chat_citations", ["document_id"])
    op.create_index("rag_chat_citations_article_id_idx", "rag_chat_citations", ["article_id"])


def downgrade() -> None:
    op.drop_table("rag_chat_citations")
