"""Check documents

A document has the times it was made and last changed.

Locks: ACCESS EXCLUSIVE on rag_documents for a moment, SHARE UPDATE EXCLUSIVE while its rows are read.
Data: fills in missing times, in batches: the other one of the row, or the present.
Deploy: expand (the columns have defaults).
Downgrade: lets the columns be NULL again; the times that were filled in stay.
"""

from alembic import op

from ragschema.operations_v2 import backfill, set_not_null

revision = "20261121120600"
down_revision = "20261121120500"
branch_labels = None
depends_on = None


def upgrade() -> None:
    backfill(
        "rag_documents",
        "created_at = coalesce(created_at, updated_at, now()),"
        " updated_at = coalesce(updated_at, created_at, now())",
        "created_at IS NULL OR updated_at IS NULL",
    )
    set_not_null("rag_documents", "created_at")
    set_not_null("rag_documents", "updated_at")


def downgrade() -> None:
    op.alter_column("rag_documents", "updated_at", nullable=True)
    op.alter_column("rag_documents", "created_at", nullable=True)
