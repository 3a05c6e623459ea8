"""Check offsets of chunk events

The check of the revision that added them was NOT VALID: for events written since.

Locks: SHARE UPDATE EXCLUSIVE on rag_chunk_events while its rows are read.
Data: reads rag_chunk_events.
Deploy: expand (nothing changes for a service).
Downgrade: the check is NOT VALID again; nothing is lost.
"""

from alembic import op

from ragschema.operations_v2 import add_check, validate_constraint

revision = "20261128141040"
down_revision = "20261128141030"
branch_labels = None
depends_on = None


def upgrade() -> None:
    validate_constraint("rag_chunk_events", "rag_chunk_events_offsets_check")


def downgrade() -> None:
    op.drop_constraint("rag_chunk_events_offsets_check", "rag_chunk_events", type_="check")
    add_check(
        "rag_chunk_events",
        "rag_chunk_events_offsets_check",
        "(start_offset IS NULL) = (end_offset IS NULL) AND start_offset >= 0 AND start_offset <= end_offset",
    )
