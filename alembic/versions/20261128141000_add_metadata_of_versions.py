"""Add metadata of versions

A version said nothing of the file that its text was read from, and had no place for what a search is to be filtered
by. Metadata may be corrected like title and url; what the source was is a fact.

Locks: ACCESS EXCLUSIVE on rag_document_versions for a moment, a catalogue change only (constant default, NOT VALID).
Data: none.
Deploy: expand (before the code that writes them; versions of a service that does not have {} and NULL).
Downgrade: drops the columns and what they hold.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from ragschema.operations_v2 import add_check, create_function, create_trigger, drop_trigger

revision = "20261128141000"
down_revision = "20261128140030"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "rag_document_versions",
        sa.Column("metadata", postgresql.JSONB(), server_default=sa.text("'{}'"), nullable=False),
    )
    op.add_column("rag_document_versions", sa.Column("file_name", sa.Text(), nullable=True))
    op.add_column("rag_document_versions", sa.Column("mime_type", sa.Text(), nullable=True))
    op.add_column("rag_document_versions", sa.Column("byte_size", sa.BigInteger(), nullable=True))
    op.add_column("rag_document_versions", sa.Column("content_hash", sa.Text(), nullable=True))
    op.add_column("rag_document_versions", sa.Column("language", sa.Text(), nullable=True))
    add_check(
        "rag_document_versions", "rag_document_versions_metadata_check", "jsonb_typeof(metadata) = 'object'"
    )
    add_check("rag_document_versions", "rag_document_versions_byte_size_check", "byte_size >= 0")
    create_function("rag_refuse_version_change", 3)
    drop_trigger("rag_document_versions_immutable", "rag_document_versions")
    create_trigger("rag_document_versions_immutable", 3)


def downgrade() -> None:
    drop_trigger("rag_document_versions_immutable", "rag_document_versions")
    create_trigger("rag_document_versions_immutable", 2)
    create_function("rag_refuse_version_change", 2)
    op.drop_constraint("rag_document_versions_byte_size_check", "rag_document_versions", type_="check")
    op.drop_constraint("rag_document_versions_metadata_check", "rag_document_versions", type_="check")
    op.drop_column("rag_document_versions", "language")
    op.drop_column("rag_document_versions", "content_hash")
    op.drop_column("rag_document_versions", "byte_size")
    op.drop_column("rag_document_versions", "mime_type")
    op.drop_column("rag_document_versions", "file_name")
    op.drop_column("rag_document_versions", "metadata")
