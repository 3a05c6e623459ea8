"""Keep updated_at of documents, and the configuration that their text is searched with

Every UPDATE that does not set updated_at itself gets the present time. text_config names a text search
configuration, in text: pg_upgrade refuses columns of type regconfig.

Locks: ACCESS EXCLUSIVE on rag_documents, catalogue changes only (the default is constant).
Data: none.
Deploy: expand (before the code that sets a configuration).
Downgrade: drops the column and what it holds.
"""

import sqlalchemy as sa
from alembic import op

from ragschema.operations_v2 import create_function, create_trigger, drop_function, drop_trigger

revision = "20261121121000"
down_revision = "20261121120900"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "rag_documents",
        sa.Column("text_config", sa.Text(), server_default=sa.text("'simple'"), nullable=False),
    )
    create_function("rag_touch_updated_at", 1)
    create_trigger("rag_documents_touch_updated_at", 1)


def downgrade() -> None:
    drop_trigger("rag_documents_touch_updated_at", "rag_documents")
    drop_function("rag_touch_updated_at()")
    op.drop_column("rag_documents", "text_config")
