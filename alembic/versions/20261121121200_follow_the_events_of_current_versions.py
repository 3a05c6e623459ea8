"""Follow the events of current versions

Events that are written, or deleted, while their version is current already change which chunks are current.

Locks: SHARE ROW EXCLUSIVE on rag_chunk_events for a moment; the downgrade ACCESS EXCLUSIVE.
Data: none.
Deploy: expand (nothing changes for a service).
Downgrade: drops the triggers; nothing is lost.
"""

from ragschema.operations_v2 import create_function, create_trigger, drop_function, drop_trigger

revision = "20261121121200"
down_revision = "20261121121100"
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_function("rag_chunk_events_changed", 1)
    create_trigger("rag_chunk_events_inserted", 1)
    create_trigger("rag_chunk_events_deleted", 1)


def downgrade() -> None:
    drop_trigger("rag_chunk_events_deleted", "rag_chunk_events")
    drop_trigger("rag_chunk_events_inserted", "rag_chunk_events")
    drop_function("rag_chunk_events_changed()")
