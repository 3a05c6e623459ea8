"""Check chunks

Ordinals below 0 were accepted, and zero vectors, which a cosine index never returns: their distance to anything is
not a number.

Locks: ACCESS EXCLUSIVE on rag_chunks for a moment (NOT VALID), SHARE UPDATE EXCLUSIVE while its rows are read.
Data: reads every embedding once; gives chunks without created_at the present time, in batches.
Deploy: expand (a service that writes such a chunk is refused).
Downgrade: drops the checks; the times that were filled in stay.
"""

import sqlalchemy as sa
from alembic import op

from ragschema.operations_v2 import add_check, backfill, set_not_null, validate_constraint

revision = "20261121120700"
down_revision = "20261121120600"
branch_labels = None
depends_on = None


def precheck(connection: sa.Connection) -> sa.CursorResult[tuple[object, ...]]:
    """Chunks with an ordinal below 0, or a zero vector: renumber them; set the embedding to NULL or compute it."""
    return connection.execute(
        sa.text(
            "SELECT id, version_id, ordinal, vector_norm(embedding) AS norm FROM rag_chunks"
            " WHERE ordinal < 0 OR vector_norm(embedding) = 0"
        )
    )


def upgrade() -> None:
    add_check("rag_chunks", "rag_chunks_ordinal_check", "ordinal >= 0")
    validate_constraint("rag_chunks", "rag_chunks_ordinal_check")
    add_check("rag_chunks", "rag_chunks_embedding_check", "vector_norm(embedding) > 0")
    validate_constraint("rag_chunks", "rag_chunks_embedding_check")
    backfill("rag_chunks", "created_at = now()", "created_at IS NULL")
    set_not_null("rag_chunks", "created_at")


def downgrade() -> None:
    op.alter_column("rag_chunks", "created_at", nullable=True)
    op.drop_constraint("rag_chunks_embedding_check", "rag_chunks", type_="check")
    op.drop_constraint("rag_chunks_ordinal_check", "rag_chunks", type_="check")
