"""Find words of any language

The text index finds what PostgreSQL's default parser takes for a word, which is not what a reader takes for one: none
in Chinese, Japanese or Thai, none behind a slash, none in another normal form. These functions say what the words of a
chunk and of a question are; the index by them comes with the next revision.

Locks: none on tables.
Data: none.
Deploy: expand (before the code that searches by them).
Downgrade: drops the functions; nothing is lost.
"""

from ragschema.operations_v2 import create_function, drop_function

revision = "20261128110200"
down_revision = "20261128110100"
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_function("rag_small_letters", 1)
    create_function("rag_folded_text", 1)
    create_function("rag_words", 1)
    create_function("rag_query_words", 1)


def downgrade() -> None:
    drop_function("rag_query_words(text, text, integer)")
    drop_function("rag_words(text, text)")
    drop_function("rag_folded_text(text)")
    drop_function("rag_small_letters(text)")
