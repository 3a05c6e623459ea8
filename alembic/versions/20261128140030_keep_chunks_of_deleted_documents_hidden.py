"""Keep chunks of deleted documents hidden

A release that does not know of deletion can make chunks current without a word to their document: it activates the
version that is current already. Of a deleted document they are hidden again at once.

Locks: SHARE ROW EXCLUSIVE on rag_chunks for a moment; the downgrade ACCESS EXCLUSIVE.
Data: none.
Deploy: expand (before the code that deletes; nothing changes for a service that does not).
Downgrade: drops the trigger; nothing is lost.
"""

from ragschema.operations_v2 import create_function, create_trigger, drop_function, drop_trigger

revision = "20261128140030"
down_revision = "20261128140020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_function("rag_chunk_shown", 1)
    create_trigger("rag_chunks_shown", 1)


def downgrade() -> None:
    drop_trigger("rag_chunks_shown", "rag_chunks")
    drop_function("rag_chunk_shown()")
