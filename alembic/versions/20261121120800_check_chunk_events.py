"""Check chunk events

A version's events other than 'deleted' are its content: each has a chunk. Ordinals below 0 were accepted.

Locks: ACCESS EXCLUSIVE on rag_chunk_events for a moment (NOT VALID), SHARE UPDATE EXCLUSIVE while its rows are read.
Data: gives events without created_at the present time, in batches.
Deploy: expand (a service that writes such an event is refused).
Downgrade: drops the checks; the times that were filled in stay.
"""

import sqlalchemy as sa
from alembic import op

from ragschema.operations_v2 import (
    add_check,
    backfill,
    set_not_null,
    validate_constraint,
)

revision = "20261121120800"
down_revision = "20261121120700"
branch_labels = None
depends_on = None


def precheck(connection: sa.Connection) -> sa.CursorResult[tuple[object, ...]]:
    """Events without a chunk, or with an ordinal below 0: correct or delete them."""
    return connection.execute(
        sa.text(
            "SELECT id, version_id, ordinal, event_type, chunk_id FROM rag_chunk_events"
            " WHERE ordinal < 0 OR event_type <> 'deleted' AND chunk_id IS NULL"
        )
    )


def upgrade() -> None:
    add_check("rag_chunk_events", "rag_chunk_events_ordinal_check", "ordinal >= 0")
    validate_constraint("rag_chunk_events", "rag_chunk_events_ordinal_check")
    add_check(
        "rag_chunk_events",
        "rag_chunk_events_chunk_id_check",
        "event_type = 'deleted' OR chunk_id IS NOT NULL",
    )
    validate_constraint("rag_chunk_events", "rag_chunk_events_chunk_id_check")
    backfill("rag_chunk_events", "created_at = now()", "created_at IS NULL")
    set_not_null("rag_chunk_events", "created_at")


def downgrade() -> None:
    op.alter_column("rag_chunk_events", "created_at", nullable=True)
    op.drop_constraint("rag_chunk_events_chunk_id_check", "rag_chunk_events", type_="check")
    op.drop_constraint("rag_chunk_events_ordinal_check", "rag_chunk_events", type_="check")
