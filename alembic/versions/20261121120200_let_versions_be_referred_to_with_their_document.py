"""Let versions be referred to with their document

The next revisions make a document's current version one of its own versions: a foreign key over both ids, which
needs them unique together.

Locks: SHARE UPDATE EXCLUSIVE on rag_document_versions while the index is built concurrently, then ACCESS EXCLUSIVE
for a catalogue change.
Data: reads rag_document_versions.
Deploy: expand (nothing changes for a service).
Downgrade: drops the constraint; nothing is lost.
"""

from alembic import op

from ragschema.operations_v2 import add_unique

revision = "20261121120200"
down_revision = "20261121120100"
branch_labels = None
depends_on = None


def upgrade() -> None:
    add_unique("rag_document_versions", "rag_document_versions_document_id_id_key", ["document_id", "id"])


def downgrade() -> None:
    op.drop_constraint("rag_document_versions_document_id_id_key", "rag_document_versions", type_="unique")
