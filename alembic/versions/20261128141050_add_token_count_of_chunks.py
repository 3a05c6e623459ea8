"""Add token_count of chunks

Whoever fills a prompt needs to know how long a chunk is, as the model counts. On the chunk, because it says
something of the text alone.

Locks: ACCESS EXCLUSIVE on rag_chunks for a moment, a catalogue change only (nullable, NOT VALID).
Data: none.
Deploy: expand (before the code that writes it; NULL in chunks of a service that does not).
Downgrade: drops the column and what it holds.
"""

import sqlalchemy as sa
from alembic import op

from ragschema.operations_v2 import add_check

revision = "20261128141050"
down_revision = "20261128141040"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("rag_chunks", sa.Column("token_count", sa.Integer(), nullable=True))
    add_check("rag_chunks", "rag_chunks_token_count_check", "token_count >= 0")


def downgrade() -> None:
    op.drop_constraint("rag_chunks_token_count_check", "rag_chunks", type_="check")
    op.drop_column("rag_chunks", "token_count")
