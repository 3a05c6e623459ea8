"""Add attempts, lease, priority, time, key and progress to jobs

A worker that dies leaves its job in status processing for good, a failing document is tried for ever by hand, and
two services enqueue the same work twice. These columns let a worker hold a job by a lease that runs out, count its
attempts (the number tells the workers of one job apart: the fencing token), and say when, in which order and under
which key a job is to run. Nothing enforces them yet: rows from before are filled in by the next revision.

Locks: ACCESS EXCLUSIVE on rag_jobs, catalogue change only (NULL, a constant or now() as the default).
Data: none.
Deploy: expand (before the code that writes them).
Downgrade: drops the columns and what they hold; jobs that wait for a later time become due, and what was enqueued
again while it ran is not run again.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "20261121130000"
down_revision = "20261121121500"
branch_labels = None
depends_on = None

COMMENTS = {
    "job_type": "Which workers it is for",
    "payload": "What to do; the newest, where a job with its key was enqueued again",
    "status": "new: waits for run_at; processing: claimed; completed, failed: nothing more happens by itself",
    "created_at": "When it was enqueued",
    "updated_at": "When anything of it last changed, a heartbeat included",
    "error_message": "The last error, or that it was cancelled",
}


def upgrade() -> None:
    now = sa.text("CURRENT_TIMESTAMP")
    add("priority", sa.Integer(), "Smaller numbers first; 0 is usual", sa.text("0"))
    add("run_at", sa.DateTime(timezone=True), "Not claimed before", now)
    add(
        "attempts",
        sa.Integer(),
        "Claims so far; never goes down, so it tells one claim from the next",
        sa.text("0"),
    )
    add(
        "attempts_before",
        sa.Integer(),
        "How many of them do not count, for they were before a retry or a newer payload",
        sa.text("0"),
    )
    add("max_attempts", sa.Integer(), "How many may count", sa.text("10"))
    add("lease_expires_at", sa.DateTime(timezone=True), "While processing: when others may take it over")
    add("worker", sa.Text(), "Who claimed it last")
    add("started_at", sa.DateTime(timezone=True), "When it was claimed last")
    add("finished_at", sa.DateTime(timezone=True), "When it was completed, or failed for good")
    add("dedupe_key", sa.Text(), "No two unfinished jobs of a type have the same")
    add(
        "enqueued_again",
        sa.Boolean(),
        "While processing: payload is newer than what runs, so run it again afterwards",
        sa.false(),
    )
    add("progress", postgresql.JSONB(), "How far it has come, for the next attempt to go on from")
    for column, comment in COMMENTS.items():
        op.alter_column("rag_jobs", column, comment=comment)


def add(
    name: str,
    type_: sa.types.TypeEngine[object],
    comment: str,
    default: sa.ColumnElement[object] | None = None,
) -> None:
    column = sa.Column(name, type_, server_default=default, nullable=default is None, comment=comment)
    op.add_column("rag_jobs", column)


def downgrade() -> None:
    for column in COMMENTS:
        op.alter_column("rag_jobs", column, comment=None, existing_comment=COMMENTS[column])
    op.drop_column("rag_jobs", "progress")
    op.drop_column("rag_jobs", "enqueued_again")
    op.drop_column("rag_jobs", "dedupe_key")
    op.drop_column("rag_jobs", "finished_at")
    op.drop_column("rag_jobs", "started_at")
    op.drop_column("rag_jobs", "worker")
    op.drop_column("rag_jobs", "lease_expires_at")
    op.drop_column("rag_jobs", "max_attempts")
    op.drop_column("rag_jobs", "attempts_before")
    op.drop_column("rag_jobs", "attempts")
    op.drop_column("rag_jobs", "run_at")
    op.drop_column("rag_jobs", "priority")
