"""Check metadata of versions

The checks of the revision before were NOT VALID: for versions written since.

Locks: SHARE UPDATE EXCLUSIVE on rag_document_versions while its rows are read.
Data: reads rag_document_versions.
Deploy: expand (nothing changes for a service).
Downgrade: the checks are NOT VALID again; nothing is lost.
"""

from alembic import op

from ragschema.operations_v2 import add_check, validate_constraint

revision = "20261128141010"
down_revision = "20261128141000"
branch_labels = None
depends_on = None


def upgrade() -> None:
    validate_constraint("rag_document_versions", "rag_document_versions_metadata_check")
    validate_constraint("rag_document_versions", "rag_document_versions_byte_size_check")


def downgrade() -> None:
    op.drop_constraint("rag_document_versions_byte_size_check", "rag_document_versions", type_="check")
    add_check("rag_document_versions", "rag_document_versions_byte_size_check", "byte_size >= 0")
    op.drop_constraint("rag_document_versions_metadata_check", "rag_document_versions", type_="check")
    add_check(
        "rag_document_versions", "rag_document_versions_metadata_check", "jsonb_typeof(metadata) = 'object'"
    )
