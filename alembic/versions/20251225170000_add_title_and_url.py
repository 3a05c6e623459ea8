"""Add title and url to document versions

Citations show a title and a link; both vary by version, so they sit on the version.

Locks: ACCESS EXCLUSIVE on rag_document_versions, a catalogue change only (nullable, no default).
Data: none.
Deploy: expand (before the code that writes them).
Downgrade: drops both columns and what they hold.
"""

import sqlalchemy as sa
from alembic import op

revision = "20251225170000"
down_revision = "20251225160000"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("rag_document_versions", sa.Column("title", sa.Text(), nullable=True))
    op.add_column("rag_document_versions", sa.Column("url", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("rag_document_versions", "url")
    op.drop_column("rag_document_versions", "title")
