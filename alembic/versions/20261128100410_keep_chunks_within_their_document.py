"""Keep chunks within their document

A chunk that is given to another version, as pruning does, must not go to another document's while events of its own
name it: those would show it as theirs.

Locks: SHARE ROW EXCLUSIVE on rag_chunks for a moment; the downgrade ACCESS EXCLUSIVE.
Data: none.
Deploy: expand (nothing changes for a service that moves chunks within their document).
Downgrade: drops the trigger; nothing is lost.
"""

from ragschema.operations_v2 import create_function, create_trigger, drop_function, drop_trigger

revision = "20261128100410"
down_revision = "20261128100400"
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_function("rag_chunk_moved", 1)
    create_trigger("rag_chunks_moved", 1)


def downgrade() -> None:
    drop_trigger("rag_chunks_moved", "rag_chunks")
    drop_function("rag_chunk_moved()")
