"""Mark chunks that are moved

A current version without events lists the chunks that were written with it. A chunk that hand-written SQL gave to such
a version, or took from it, stayed as it was: search missed the one and went on finding the other.

Locks: none that others meet; the function is replaced.
Data: none.
Deploy: expand (nothing changes for a service but that its own statements are followed).
Downgrade: the former function; nothing is lost.
"""

from ragschema.operations_v2 import create_function

revision = "20261128165010"
down_revision = "20261128165000"
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_function("rag_chunk_moved", 2)


def downgrade() -> None:
    create_function("rag_chunk_moved", 1)
