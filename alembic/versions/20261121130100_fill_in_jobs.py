"""Fill in the bookkeeping of the jobs there are

Finished jobs get the time of their last update as finished_at. Running ones get a lease of an hour: whoever runs
them knows nothing of leases, so it must last, and a job that hangs since its worker died is taken over after it.
Waiting ones are due since they were created, so that they keep their order.

Locks: ROW EXCLUSIVE on rag_jobs, in batches with commits of their own.
Data: writes every job once, but those that wait since the revision before.
Deploy: expand (nothing changes for a service).
Downgrade: leaves what was filled in, which the next downgrade drops; times that were missing stay.
"""

from alembic import op

from ragschema.operations_v2 import backfill

revision = "20261121130100"
down_revision = "20261121130000"
branch_labels = None
depends_on = None


def upgrade() -> None:
    backfill(
        "rag_jobs",
        "created_at = coalesce(created_at, updated_at, now()),"
        " updated_at = coalesce(updated_at, created_at, now()),"
        " run_at = CASE status WHEN 'new' THEN least(created_at, run_at) ELSE run_at END,"
        " attempts = CASE status WHEN 'processing' THEN greatest(attempts, 1) ELSE attempts END,"
        " worker = CASE status WHEN 'processing' THEN coalesce(worker, 'unknown') ELSE worker END,"
        " started_at = CASE status WHEN 'processing' THEN coalesce(started_at, updated_at, now())"
        " ELSE started_at END,"
        " lease_expires_at = CASE status WHEN 'processing' THEN now() + interval '1 hour' END,"
        " finished_at = CASE WHEN status IN ('completed', 'failed') THEN coalesce(updated_at, created_at, now()) END",
        "created_at IS NULL OR updated_at IS NULL"
        " OR status = 'new' AND created_at < run_at"
        " OR (status = 'processing') <> (lease_expires_at IS NOT NULL)"
        " OR (status IN ('completed', 'failed')) <> (finished_at IS NOT NULL)",
    )


def downgrade() -> None:
    op.execute("SELECT 1")  # the values may stay as they are: their columns go next
