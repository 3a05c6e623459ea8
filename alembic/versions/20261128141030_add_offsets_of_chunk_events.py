"""Add offsets of chunk events

Where in its source a chunk stands, so that a citation can lead there. On the event, because a chunk that a later
version shares stands elsewhere in that one; its page and headings are in the event's metadata likewise.

Locks: ACCESS EXCLUSIVE on rag_chunk_events for a moment, a catalogue change only (nullable, NOT VALID).
Data: none.
Deploy: expand (before the code that writes them; NULL in events of a service that does not).
Downgrade: drops both columns and what they hold.
"""

import sqlalchemy as sa
from alembic import op

from ragschema.operations_v2 import add_check

revision = "20261128141030"
down_revision = "20261128141020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("rag_chunk_events", sa.Column("start_offset", sa.Integer(), nullable=True))
    op.add_column("rag_chunk_events", sa.Column("end_offset", sa.Integer(), nullable=True))
    add_check(
        "rag_chunk_events",
        "rag_chunk_events_offsets_check",
        "(start_offset IS NULL) = (end_offset IS NULL) AND start_offset >= 0 AND start_offset <= end_offset",
    )


def downgrade() -> None:
    op.drop_constraint("rag_chunk_events_offsets_check", "rag_chunk_events", type_="check")
    op.drop_column("rag_chunk_events", "end_offset")
    op.drop_column("rag_chunk_events", "start_offset")
