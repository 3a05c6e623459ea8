"""Check token_count of chunks

The check of the revision before was NOT VALID: for chunks written since.

Locks: SHARE UPDATE EXCLUSIVE on rag_chunks while its rows are read.
Data: reads rag_chunks.
Deploy: expand (nothing changes for a service).
Downgrade: the check is NOT VALID again; nothing is lost.
"""

from alembic import op

from ragschema.operations_v2 import add_check, validate_constraint

revision = "20261128141100"
down_revision = "20261128141050"
branch_labels = None
depends_on = None


def upgrade() -> None:
    validate_constraint("rag_chunks", "rag_chunks_token_count_check")


def downgrade() -> None:
    op.drop_constraint("rag_chunks_token_count_check", "rag_chunks", type_="check")
    add_check("rag_chunks", "rag_chunks_token_count_check", "token_count >= 0")
