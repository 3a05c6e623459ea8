"""Give jobs back

A worker that is stopped in the middle of a job, as an asyncio task that is cancelled, lets it wait again at once. Only
a failed attempt could do so until now, and the tenth deployment in a long job's time failed it for good.

Locks: none on tables.
Data: none.
Deploy: expand (before the code that calls it).
Downgrade: drops the function.
"""

from ragschema.operations_v2 import create_function, drop_function

revision = "20261128110100"
down_revision = "20261128100500"
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_function("rag_jobs_give_back", 1)


def downgrade() -> None:
    drop_function("rag_jobs_give_back(uuid, integer)")
