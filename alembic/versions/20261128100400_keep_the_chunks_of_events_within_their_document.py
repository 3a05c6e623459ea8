"""Keep the chunks of events within their document

The foreign keys let an event name a chunk of another document, whose text was then shown as this one's. Now events
that are written or changed are refused where that would be so. An event that is corrected in a current version
changes what search finds, as one that is written does.

What a session had marked as current is believed only until a trigger does its work: a version that was set to
another one and back after it was published, with constraints immediate, left the other one's chunks current.

Locks: SHARE ROW EXCLUSIVE on rag_chunk_events for a moment; the downgrade ACCESS EXCLUSIVE.
Data: none; rows that break the rule already stay, and `rag migrate verify --data` names them.
Deploy: expand (nothing changes for a service that writes what belongs together).
Downgrade: drops the triggers; nothing is lost.
"""

from ragschema.operations_v2 import create_function, create_trigger, drop_function, drop_trigger

revision = "20261128100400"
down_revision = "20261128100300"
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_function("rag_documents_changed", 2)
    create_function("rag_refuse_foreign_chunk", 1)
    create_function("rag_chunk_events_changed", 2)
    create_function("rag_chunk_event_updated", 1)
    create_trigger("rag_chunk_events_updated", 1)


def downgrade() -> None:
    drop_trigger("rag_chunk_events_updated", "rag_chunk_events")
    drop_function("rag_chunk_event_updated()")
    create_function("rag_chunk_events_changed", 1)
    drop_function("rag_refuse_foreign_chunk(uuid)")
    create_function("rag_documents_changed", 1)
