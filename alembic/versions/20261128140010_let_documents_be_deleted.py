"""Let documents be deleted

A document that somebody deletes is found no more, keeps all its rows until it is purged, and can be undeleted. None of
its chunks is current, so that the indexes of current chunks need no other condition; and no release that does not know
of deletion brings it back, because of such a document the triggers believe nobody's marks.

Locks: ACCESS EXCLUSIVE on rag_documents, catalog change only (nullable, no default).
Data: none.
Deploy: expand (before the code that deletes; nothing changes for a service that does not).
Downgrade: drops the column, and search finds the documents again that were deleted; refused while there are any.
"""

import sqlalchemy as sa
from alembic import op

from ragschema.operations_v2 import create_function, create_trigger, drop_trigger

revision = "20261128140010"
down_revision = "20261128130910"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "rag_documents",
        sa.Column(
            "deleted_at",
            sa.DateTime(timezone=True),
            comment="Since when search does not find it, whatever its current version is",
        ),
    )
    create_function("rag_set_current_chunks", 4)
    create_function("rag_documents_changed", 3)
    create_function("rag_chunk_inserted", 2)
    drop_trigger("rag_documents_set_current_chunks", "rag_documents")
    create_trigger("rag_documents_set_current_chunks", 2)


def downgrade() -> None:
    drop_trigger("rag_documents_set_current_chunks", "rag_documents")
    create_trigger("rag_documents_set_current_chunks", 1)
    create_function("rag_chunk_inserted", 1)
    create_function("rag_documents_changed", 2)
    create_function("rag_set_current_chunks", 3)
    op.execute("SELECT rag_set_current_chunks(id) FROM rag_documents WHERE deleted_at IS NOT NULL")
    op.drop_column("rag_documents", "deleted_at")
