"""Pass over priorities without due jobs

A claim looked at one priority after another, a statement and a half each, also where all of a priority is for later:
3,000 of them, as with a priority that is a date, took a third of a second. Now one statement finds the next priority
that has anything due, along the same index.

Locks: none on tables.
Data: none.
Deploy: expand (the function is called as before).
Downgrade: brings the earlier function back.
"""

from ragschema.operations_v2 import create_function

revision = "20261128120100"
down_revision = "20261128110220"
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_function("rag_jobs_claim", 4)


def downgrade() -> None:
    create_function("rag_jobs_claim", 3)
