"""Keep every column of a version from changing

The trigger that makes versions immutable listed the columns that may not change, so one that a later revision adds
could be changed unseen. Now it compares whole rows but for title and url.

Locks: ACCESS EXCLUSIVE on rag_document_versions for a moment, no scan.
Data: none.
Deploy: expand (the trigger refuses what it refused before).
Downgrade: brings the trigger with the list back; nothing is lost.
"""

from ragschema.operations_v2 import create_trigger, drop_trigger

revision = "20261128100100"
down_revision = "20261121150100"
branch_labels = None
depends_on = None


def upgrade() -> None:
    drop_trigger("rag_document_versions_immutable", "rag_document_versions")
    create_trigger("rag_document_versions_immutable", 2)


def downgrade() -> None:
    drop_trigger("rag_document_versions_immutable", "rag_document_versions")
    create_trigger("rag_document_versions_immutable", 1)
