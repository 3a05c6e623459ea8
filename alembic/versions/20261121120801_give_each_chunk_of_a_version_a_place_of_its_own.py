"""Give each chunk of a version a place of its own

A version's events other than 'deleted' are its content, in order: two at one place have none.

Locks: SHARE UPDATE EXCLUSIVE on rag_chunk_events while the index is built concurrently.
Data: reads rag_chunk_events.
Deploy: expand (a service that writes two chunks to one place is refused).
Downgrade: drops the index; nothing is lost.
"""

import sqlalchemy as sa

from ragschema.operations_v2 import concurrent_index, drop_concurrent_index

revision = "20261121120801"
down_revision = "20261121120800"
branch_labels = None
depends_on = None


def precheck(connection: sa.Connection) -> sa.CursorResult[tuple[object, ...]]:
    """Places in versions that two events say a chunk is at: correct one of them, or delete it."""
    return connection.execute(
        sa.text(
            "SELECT version_id, ordinal, count(*) AS events FROM rag_chunk_events"
            " WHERE event_type <> 'deleted' AND ordinal IS NOT NULL"
            " GROUP BY version_id, ordinal HAVING count(*) > 1"
        )
    )


def upgrade() -> None:
    concurrent_index(
        "rag_chunk_events_manifest_idx",
        "rag_chunk_events",
        ["version_id", "ordinal"],
        unique=True,
        where="event_type <> 'deleted'",
    )


def downgrade() -> None:
    drop_concurrent_index("rag_chunk_events_manifest_idx")
