"""Say why attempts do not count

The comment on rag_jobs.attempts_before, which an operator reads in psql, gives its reason in plain words.

Locks: SHARE UPDATE EXCLUSIVE on rag_jobs, catalog change only.
Data: none. Deploy: expand (any time).
Downgrade: puts the old words back; nothing is lost.
"""

from alembic import op

revision = "20261128130125"
down_revision = "20261128130120"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        "COMMENT ON COLUMN rag_jobs.attempts_before IS"
        " 'How many of them do not count, because they were before a retry or a newer payload'"
    )


def downgrade() -> None:
    op.execute(
        "COMMENT ON COLUMN rag_jobs.attempts_before IS"
        " 'How many of them do not count, for they were before a retry or a newer payload'"
    )
