"""Index current chunks

By embedding, and by the words of their text; and those that wait for an embedding, which are few. The index over
the embeddings of all chunks stays until the contract revision.

Locks: SHARE UPDATE EXCLUSIVE on rag_chunks while the indexes are built concurrently.
Data: reads rag_chunks; the index by embedding takes about 2 ms a current chunk.
Deploy: expand (before the code that searches by is_current).
Downgrade: drops the indexes; nothing is lost.
"""

from ragschema.operations_v2 import concurrent_index, drop_concurrent_index

revision = "20261121121500"
down_revision = "20261121121400"
branch_labels = None
depends_on = None


def upgrade() -> None:
    concurrent_index(
        "rag_chunks_current_embedding_idx",
        "rag_chunks",
        ["embedding"],
        using="hnsw",
        ops={"embedding": "vector_cosine_ops"},
        where="is_current",
    )
    concurrent_index(
        "rag_chunks_current_text_idx",
        "rag_chunks",
        ["rag_text_vector(text_config, content)"],
        using="gin",
        where="is_current",
    )
    concurrent_index(
        "rag_chunks_pending_idx",
        "rag_chunks",
        ["created_at", "id"],
        where="is_current AND embedding IS NULL",
    )


def downgrade() -> None:
    drop_concurrent_index("rag_chunks_pending_idx")
    drop_concurrent_index("rag_chunks_current_text_idx")
    drop_concurrent_index("rag_chunks_current_embedding_idx")
