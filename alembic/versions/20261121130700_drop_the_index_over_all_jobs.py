"""Drop the index over all jobs

It holds every job that ever finished, and every change of status pays for it. A claim by hand, status = 'new' ORDER
BY created_at, reads rag_jobs_created_at_idx instead; failed and running jobs are found by
rag_jobs_status_job_type_idx, finished ones by rag_jobs_finished_at_idx.

Locks: SHARE UPDATE EXCLUSIVE on rag_jobs for a moment.
Data: none.
Deploy: contract (after the last code that lists completed jobs by created_at).
Downgrade: builds the index again, while others read and write; nothing is lost.
"""

from ragschema.operations_v2 import concurrent_index, drop_concurrent_index

revision = "20261121130700"
down_revision = "20261121130600"
branch_labels = None
depends_on = None


def upgrade() -> None:
    drop_concurrent_index("rag_jobs_status_created_at_idx")


def downgrade() -> None:
    concurrent_index("rag_jobs_status_created_at_idx", "rag_jobs", ["status", "created_at"])
