"""Let embeddings refer to what is current

A chunk's id with is_current as a key: the foreign key of embeddings refers to it, and PostgreSQL itself then carries
is_current to them, in the statement that changes it.

Locks: SHARE UPDATE EXCLUSIVE on rag_chunks while the index is built concurrently, then ACCESS EXCLUSIVE for a moment.
Data: reads rag_chunks.
Deploy: expand (nothing changes for a service).
Downgrade: drops the constraint with its index; nothing is lost.
"""

from alembic import op

from ragschema.operations_v2 import add_unique

revision = "20261128130110"
down_revision = "20261128130100"
branch_labels = None
depends_on = None


def upgrade() -> None:
    add_unique("rag_chunks", "rag_chunks_id_is_current_key", ["id", "is_current"])


def downgrade() -> None:
    op.drop_constraint("rag_chunks_id_is_current_key", "rag_chunks", type_="unique")
