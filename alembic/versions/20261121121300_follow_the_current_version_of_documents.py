"""Follow the current version of documents

Whoever sets a document's current version, its chunks become current when the transaction commits, and those of the
former version cease to be: in whatever order the rows were written.

Locks: SHARE ROW EXCLUSIVE on rag_documents for a moment; the downgrade ACCESS EXCLUSIVE.
Data: none.
Deploy: expand (nothing changes for a service).
Downgrade: drops the trigger; nothing is lost.
"""

from ragschema.operations_v2 import create_function, create_trigger, drop_function, drop_trigger

revision = "20261121121300"
down_revision = "20261121121200"
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_function("rag_documents_changed", 1)
    create_trigger("rag_documents_set_current_chunks", 1)


def downgrade() -> None:
    drop_trigger("rag_documents_set_current_chunks", "rag_documents")
    drop_function("rag_documents_changed()")
