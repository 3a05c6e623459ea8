"""Comment on the ids of jobs

The one column of rag_jobs that had no comment; what a claim hands out is the id with attempts.

Locks: SHARE UPDATE EXCLUSIVE on rag_jobs, catalogue change only.
Data: none.
Deploy: expand (nothing changes for a service).
Downgrade: drops the comment.
"""

from alembic import op

revision = "20261121150100"
down_revision = "20261121150000"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("COMMENT ON COLUMN rag_jobs.id IS 'Names the job; a claim of it is named by id and attempts'")


def downgrade() -> None:
    op.execute("COMMENT ON COLUMN rag_jobs.id IS NULL")
