"""Enqueue job by job on Citus

A set of jobs that is inserted from a query goes by way of every node of Citus, in a commit of two phases: twelve times
the time of plain PostgreSQL, and refused while any node is away. There each job is a statement of its own, which goes
to the tenant's node alone. On plain PostgreSQL nothing changes.

Locks: none on tables.
Data: none.
Deploy: expand (the function is called as before).
Downgrade: brings the earlier function back.
"""

from ragschema.operations_v2 import create_function

revision = "20261128180010"
down_revision = "20261128170110"
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_function("rag_jobs_enqueue_many", 3)


def downgrade() -> None:
    create_function("rag_jobs_enqueue_many", 2)
