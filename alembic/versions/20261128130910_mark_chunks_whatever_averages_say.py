"""Mark chunks whatever averages say

The functions that check events and mark chunks rested on the planner's averages, and a session keeps their plans: after
a document of thousands of events it read all versions and all chunks there are for each document after it, and for a
document of thousands of chunks it compared each with each.

Locks: none that others meet; the functions are replaced.
Data: none.
Deploy: expand (nothing changes for a service but how long it takes).
Downgrade: the former functions; nothing is lost.
"""

from ragschema.operations_v2 import create_function

revision = "20261128130910"
down_revision = "20261128130125"
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_function("rag_set_current_chunks", 3)
    create_function("rag_chunk_events_changed", 3)


def downgrade() -> None:
    create_function("rag_chunk_events_changed", 2)
    create_function("rag_set_current_chunks", 2)
