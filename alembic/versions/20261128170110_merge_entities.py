"""Merge entities

Two names of one person are two entities until somebody says that they are one; and who said so may have been wrong. A
merge moves what one has to the other in one transaction, and a log takes it back.

Locks: none that others meet; the functions are new.
Data: none.
Deploy: expand (before the code that merges entities).
Downgrade: drops the functions; what was merged stays so.
"""

from ragschema.operations_v2 import create_function, drop_function

revision = "20261128170110"
down_revision = "20261128170100"
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_function("rag_merge_entity", 1)
    create_function("rag_undo_merge", 1)


def downgrade() -> None:
    drop_function("rag_undo_merge(uuid)")
    drop_function("rag_merge_entity(uuid, uuid)")
