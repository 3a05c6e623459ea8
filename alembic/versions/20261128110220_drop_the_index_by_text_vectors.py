"""Drop the index by text vectors

Searches go to the index by words, and every write pays one index less. The function rag_text_vector stays: statements
of earlier releases that name it go on to work.

Locks: SHARE UPDATE EXCLUSIVE on rag_chunks while the index is dropped concurrently; the downgrade builds it so.
Data: none; the downgrade reads rag_chunks, about 0.1 ms a current chunk.
Deploy: contract (after the last code that searches by rag_text_vector: it would read all current chunks).
Downgrade: builds the index again; nothing is lost.
"""

from ragschema.operations_v2 import concurrent_index, drop_concurrent_index

revision = "20261128110220"
down_revision = "20261128110210"
branch_labels = None
depends_on = None


def upgrade() -> None:
    drop_concurrent_index("rag_chunks_current_text_idx")


def downgrade() -> None:
    concurrent_index(
        "rag_chunks_current_text_idx",
        "rag_chunks",
        ["rag_text_vector(text_config, content)"],
        using="gin",
        where="is_current",
    )
