"""Index the words of current chunks

The index by rag_text_vector stays until the contract revision, for services that search by it.

Locks: SHARE UPDATE EXCLUSIVE on rag_chunks while the index is built concurrently.
Data: reads rag_chunks; about 0.3 ms a current chunk of 1,000 letters.
Deploy: expand (before the code that searches by rag_words).
Downgrade: drops the index; nothing is lost.
"""

from ragschema.operations_v2 import concurrent_index, drop_concurrent_index

revision = "20261128110210"
down_revision = "20261128110200"
branch_labels = None
depends_on = None


def upgrade() -> None:
    concurrent_index(
        "rag_chunks_current_words_idx",
        "rag_chunks",
        ['(rag_words(text_config, content)) COLLATE "C"'],
        using="gin",
        where="is_current",
    )


def downgrade() -> None:
    drop_concurrent_index("rag_chunks_current_words_idx")
