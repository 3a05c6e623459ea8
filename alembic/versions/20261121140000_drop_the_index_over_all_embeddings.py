"""Drop the index over all embeddings

Searches go to the one of current chunks: it is three to five times smaller, and every write pays one index less.

Locks: SHARE UPDATE EXCLUSIVE on rag_chunks while the index is dropped concurrently; the downgrade builds it so.
Data: none; the downgrade reads rag_chunks, about 2 ms a row.
Deploy: contract (after the last code that searches rag_chunks without is_current: it would read the whole table).
Downgrade: builds the index again; nothing is lost.
"""

from ragschema.operations_v2 import concurrent_index, drop_concurrent_index

revision = "20261121140000"
down_revision = "20261121130700"
branch_labels = None
depends_on = None


def upgrade() -> None:
    drop_concurrent_index("rag_chunks_embedding_idx")


def downgrade() -> None:
    concurrent_index(
        "rag_chunks_embedding_idx",
        "rag_chunks",
        ["embedding"],
        using="hnsw",
        ops={"embedding": "vector_cosine_ops"},
    )
