"""Forget relations of merged entities

A merge moves the evidence of a relation to the one that the kept entity has in its place, and keeps the row, so that
the merge can be undone. Where the documents that said it were purged, the row stayed, and with it the description that
they gave it, as long as something else mentioned the merged entity. Now it goes with the last chunk that said it.

Locks: none on tables.
Data: none; what was left by earlier purges stays until the merged entity goes.
Deploy: expand (the function is called as before).
Downgrade: brings the earlier function back.
"""

from ragschema.operations_v2 import create_function

revision = "20261129023500"
down_revision = "20261128180010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_function("rag_forget_facts", 2)


def downgrade() -> None:
    create_function("rag_forget_facts", 1)
