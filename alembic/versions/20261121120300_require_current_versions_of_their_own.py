"""Require current versions to be of their own document

fk_current_version accepted the version of any document. The new foreign key stands beside it until the old rows
are checked.

Locks: SHARE ROW EXCLUSIVE on rag_documents and rag_document_versions for a moment (NOT VALID), then SHARE UPDATE
EXCLUSIVE on rag_documents while its rows are read.
Data: reads rag_documents.
Deploy: expand (a service that sets a version of another document is refused).
Downgrade: drops the new foreign key; nothing is lost.
"""

import sqlalchemy as sa
from alembic import op

from ragschema.operations_v2 import add_foreign_key, validate_constraint

revision = "20261121120300"
down_revision = "20261121120200"
branch_labels = None
depends_on = None


def precheck(connection: sa.Connection) -> sa.CursorResult[tuple[object, ...]]:
    """Documents whose current version belongs to another document: point them at one of their own, or at NULL."""
    return connection.execute(
        sa.text(
            "SELECT d.article_id, d.id AS document_id, d.current_version_id, v.document_id AS version_of"
            " FROM rag_documents d JOIN rag_document_versions v ON v.id = d.current_version_id"
            " WHERE v.document_id <> d.id"
        )
    )


def upgrade() -> None:
    add_foreign_key(
        "rag_documents",
        "fk_current_version_of_document",
        ["id", "current_version_id"],
        "rag_document_versions",
        ["document_id", "id"],
        initially_deferred=True,
    )
    validate_constraint("rag_documents", "fk_current_version_of_document")


def downgrade() -> None:
    op.drop_constraint("fk_current_version_of_document", "rag_documents", type_="foreignkey")
