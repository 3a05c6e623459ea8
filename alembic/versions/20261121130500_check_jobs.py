"""Check jobs

A half-written job is impossible from here on: one that is processing has a lease and a worker, one that is finished
has its time, one that waits has an attempt left. The backfill is for what was written by hand between the first one
and the triggers.

Few and short checks: PostgreSQL reads each anew for every statement. Measured, these cost a change of status 20 of
110 microseconds; the same as a CASE of status, 28.

Locks: ACCESS EXCLUSIVE on rag_jobs for a moment (NOT VALID), SHARE UPDATE EXCLUSIVE while its rows are read.
Data: reads rag_jobs; fills in what jobs still lack, in batches.
Deploy: expand (a service that writes such a job is refused).
Downgrade: drops the checks; what was filled in stays.
"""

from alembic import op

from ragschema.operations_v2 import add_check, backfill, set_not_null, validate_constraint

revision = "20261121130500"
down_revision = "20261121130400"
branch_labels = None
depends_on = None


def upgrade() -> None:
    backfill(
        "rag_jobs",
        "created_at = coalesce(created_at, updated_at, now()),"
        " updated_at = coalesce(updated_at, created_at, now()),"
        " attempts = CASE status WHEN 'processing' THEN greatest(attempts, 1) ELSE attempts END,"
        " worker = CASE status WHEN 'processing' THEN coalesce(worker, 'unknown') ELSE worker END,"
        " started_at = CASE status WHEN 'processing' THEN coalesce(started_at, updated_at, now())"
        " ELSE started_at END,"
        " lease_expires_at = CASE status WHEN 'processing' THEN now() + interval '1 hour' END,"
        " finished_at = CASE WHEN status IN ('completed', 'failed') THEN coalesce(updated_at, created_at, now()) END",
        "created_at IS NULL OR updated_at IS NULL"
        " OR (status = 'processing') <> (lease_expires_at IS NOT NULL)"
        " OR (status IN ('completed', 'failed')) <> (finished_at IS NOT NULL)",
    )
    set_not_null("rag_jobs", "created_at")
    set_not_null("rag_jobs", "updated_at")
    add_check(
        "rag_jobs",
        "rag_jobs_status_check",
        # >= 'completed': the order of the enum is the life of a job
        "(status = 'processing') = (lease_expires_at IS NOT NULL)"
        " AND (status >= 'completed') = (finished_at IS NOT NULL)"
        " AND (worker IS NOT NULL OR lease_expires_at IS NULL)"
        " AND (NOT enqueued_again OR lease_expires_at IS NOT NULL)",
    )
    validate_constraint("rag_jobs", "rag_jobs_status_check")
    add_check(
        "rag_jobs",
        "rag_jobs_attempts_check",
        "attempts >= attempts_before"
        " AND attempts - attempts_before + (status = 'new')::integer <= max_attempts",
    )
    validate_constraint("rag_jobs", "rag_jobs_attempts_check")


def downgrade() -> None:
    op.drop_constraint("rag_jobs_attempts_check", "rag_jobs", type_="check")
    op.drop_constraint("rag_jobs_status_check", "rag_jobs", type_="check")
    op.alter_column("rag_jobs", "updated_at", nullable=True)
    op.alter_column("rag_jobs", "created_at", nullable=True)
