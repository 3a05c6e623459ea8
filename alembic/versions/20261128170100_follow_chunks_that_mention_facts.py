"""Follow chunks that mention facts

Whoever makes chunks current, or not, in SQL or by a release that knows no graph: what they mention follows at the end
of the transaction. Publishing sees to it itself, and says so, so that it pays nothing where there is no graph.

Locks: SHARE ROW EXCLUSIVE on rag_chunks for a moment, so that writers wait, for the trigger.
Data: none.
Deploy: expand (before the code that keeps a graph).
Downgrade: drops the trigger: from then on only the package's own functions keep facts current.
"""

from ragschema.operations_v2 import create_trigger, drop_trigger

revision = "20261128170100"
down_revision = "20261128170090"
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_trigger("rag_chunks_settle_facts", 1)


def downgrade() -> None:
    drop_trigger("rag_chunks_settle_facts", "rag_chunks")
