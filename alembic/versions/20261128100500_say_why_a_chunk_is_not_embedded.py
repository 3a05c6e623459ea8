"""Say why a chunk is not embedded

A text that the model cannot embed stood first among those that wait, and was tried for ever. Now its chunk says why
it will not be embedded, and waits no more.

Locks: ACCESS EXCLUSIVE on rag_chunks, catalog change only (nullable, no default).
Data: none.
Deploy: expand (before the code that writes it).
Downgrade: drops the column and the reasons in it; those chunks wait again.
"""

import sqlalchemy as sa
from alembic import op

revision = "20261128100500"
down_revision = "20261128100410"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("rag_chunks", sa.Column("embedding_error", sa.Text()))


def downgrade() -> None:
    op.drop_column("rag_chunks", "embedding_error")
