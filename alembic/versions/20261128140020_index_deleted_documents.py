"""Index deleted documents

What has been deleted for long is purged: found without reading the documents that are not.

Locks: SHARE UPDATE EXCLUSIVE on rag_documents while the index is built concurrently.
Data: reads rag_documents.
Deploy: expand (before the code that purges what was deleted).
Downgrade: drops the index; nothing is lost.
"""

from ragschema.operations_v2 import concurrent_index, drop_concurrent_index

revision = "20261128140020"
down_revision = "20261128140010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    concurrent_index(
        "rag_documents_deleted_at_idx", "rag_documents", ["deleted_at"], where="deleted_at IS NOT NULL"
    )


def downgrade() -> None:
    drop_concurrent_index("rag_documents_deleted_at_idx")
