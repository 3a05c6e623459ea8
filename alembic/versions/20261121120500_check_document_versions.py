"""Check document versions

Numbers below 1 were accepted, and a version without the time it was made.

Locks: ACCESS EXCLUSIVE on rag_document_versions for a moment (NOT VALID), SHARE UPDATE EXCLUSIVE while its rows
are read.
Data: gives versions without created_at the present time, in batches.
Deploy: expand (a service that writes such a number is refused).
Downgrade: drops the checks; the times that were filled in stay.
"""

import sqlalchemy as sa
from alembic import op

from ragschema.operations_v2 import add_check, backfill, set_not_null, validate_constraint

revision = "20261121120500"
down_revision = "20261121120400"
branch_labels = None
depends_on = None


def precheck(connection: sa.Connection) -> sa.CursorResult[tuple[object, ...]]:
    """Versions numbered below 1: renumber them within their document."""
    return connection.execute(
        sa.text("SELECT id, document_id, version_number FROM rag_document_versions WHERE version_number < 1")
    )


def upgrade() -> None:
    add_check("rag_document_versions", "rag_document_versions_version_number_check", "version_number > 0")
    validate_constraint("rag_document_versions", "rag_document_versions_version_number_check")
    backfill("rag_document_versions", "created_at = now()", "created_at IS NULL")
    set_not_null("rag_document_versions", "created_at")


def downgrade() -> None:
    op.alter_column("rag_document_versions", "created_at", nullable=True)
    op.drop_constraint("rag_document_versions_version_number_check", "rag_document_versions", type_="check")
