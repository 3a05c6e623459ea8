"""Keep the bookkeeping of jobs whoever writes them

A service that only inserts, claims with FOR UPDATE SKIP LOCKED and sets status gets attempts, lease, finished_at and
updated_at filled in, and is refused what a finished job may not do. Such a worker has no heartbeat, so its lease is
an hour, or the setting rag_jobs.lease; and it knows no fencing token, so it can still finish a job that another one
has taken over since, whose own complete then returns false.

Locks: SHARE ROW EXCLUSIVE on rag_jobs for a moment.
Data: none.
Deploy: expand (a service that moves a completed job is refused).
Downgrade: drops the triggers: status can be written without the rest.
"""

from ragschema.operations_v2 import create_function, create_trigger, drop_function, drop_trigger

revision = "20261121130400"
down_revision = "20261121130300"
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_function("rag_job_fill_in", 1)
    create_trigger("rag_jobs_fill_in_insert", 1)
    create_trigger("rag_jobs_fill_in_update", 1)
    create_function("rag_job_notify", 1)
    create_trigger("rag_jobs_notify", 1)


def downgrade() -> None:
    drop_trigger("rag_jobs_notify", "rag_jobs")
    drop_function("rag_job_notify()")
    drop_trigger("rag_jobs_fill_in_update", "rag_jobs")
    drop_trigger("rag_jobs_fill_in_insert", "rag_jobs")
    drop_function("rag_job_fill_in()")
