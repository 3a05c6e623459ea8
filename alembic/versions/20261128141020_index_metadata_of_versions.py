"""Index metadata of versions

By jsonb_path_ops: for containment and paths, which is what searches filter by; about half the size of the default.

Locks: SHARE UPDATE EXCLUSIVE on rag_document_versions while the index is built concurrently.
Data: reads rag_document_versions.
Deploy: expand (before the code that filters by metadata).
Downgrade: drops the index; nothing is lost.
"""

from ragschema.operations_v2 import concurrent_index, drop_concurrent_index

revision = "20261128141020"
down_revision = "20261128141010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    concurrent_index(
        "rag_document_versions_metadata_idx",
        "rag_document_versions",
        ["metadata"],
        using="gin",
        ops={"metadata": "jsonb_path_ops"},
    )


def downgrade() -> None:
    drop_concurrent_index("rag_document_versions_metadata_idx")
