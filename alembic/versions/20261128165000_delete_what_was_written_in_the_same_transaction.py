"""Delete what was written in the same transaction

A transaction that retired a document, and then deleted it by SQL, failed: of each chunk the trigger took the pointer
from an event of a version that was gone already, and the foreign key of an event that the transaction itself has
written is checked with every change.

Locks: none that others meet; the function is replaced.
Data: none.
Deploy: expand (nothing changes for a service but that such a transaction commits).
Downgrade: the former function; nothing is lost.
"""

from ragschema.operations_v2 import create_function

revision = "20261128165000"
down_revision = "20261128160030"
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_function("rag_chunk_deleted", 3)


def downgrade() -> None:
    create_function("rag_chunk_deleted", 2)
