"""Mark the current chunks there are

The minority that the column's first default was wrong for, in batches that hold nobody up. From here on the
triggers keep is_current right, and an interrupted run is healed by running it again.

Locks: row locks on rag_chunks, a batch at a time.
Data: updates the chunks whose is_current is wrong.
Deploy: expand (before the code that searches by is_current).
Downgrade: keeps the values, which the revision before may have; nothing is lost.
"""

from alembic import op

from ragschema.operations_v2 import backfill

# in the manifest of its document's current version; without events, that version's own
IS_CURRENT = """EXISTS (
    SELECT FROM rag_document_versions v JOIN rag_documents d ON d.id = v.document_id
    WHERE v.id = rag_chunks.version_id AND (
        EXISTS (
            SELECT FROM rag_chunk_events e
            WHERE e.chunk_id = rag_chunks.id AND e.version_id = d.current_version_id AND e.event_type <> 'deleted'
        ) OR d.current_version_id = v.id AND NOT EXISTS (
            SELECT FROM rag_chunk_events e WHERE e.version_id = v.id
        )
    )
)"""

revision = "20261121121400"
down_revision = "20261121121300"
branch_labels = None
depends_on = None


def upgrade() -> None:
    backfill("rag_chunks", "is_current = NOT is_current", f"is_current <> {IS_CURRENT}")


def downgrade() -> None:
    op.execute("SELECT 1")  # the values may stay as they are: the column goes next
