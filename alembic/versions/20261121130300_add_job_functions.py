"""Add functions that work the queue

Each is one round trip and right without triggers; a service in any language calls them. The clock is the
database's. The attempt that a claim returns is the fencing token: with a stale one nothing is changed, and the
worker is told so.

Locks: none on existing tables.
Data: none.
Deploy: expand (before the code that calls them).
Downgrade: drops the functions; the jobs stay as they are.
"""

from ragschema.operations_v2 import create_function, drop_function

revision = "20261121130300"
down_revision = "20261121130200"
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_function("rag_jobs_channel", 1)
    create_function("rag_job_error", 1)
    create_function("rag_jobs_enqueue_many", 1)
    create_function("rag_jobs_enqueue", 1)
    create_function("rag_jobs_release_expired", 1)
    create_function("rag_jobs_claim", 1)
    create_function("rag_jobs_heartbeat", 1)
    create_function("rag_jobs_complete_many", 1)
    create_function("rag_jobs_complete", 1)
    create_function("rag_jobs_fail", 1)
    create_function("rag_jobs_retry", 1)
    create_function("rag_jobs_cancel", 1)
    create_function("rag_jobs_prune", 1)
    create_function("rag_jobs_stats", 1)


def downgrade() -> None:
    drop_function("rag_jobs_stats()")
    drop_function("rag_jobs_prune(interval, integer, boolean, job_status)")
    drop_function("rag_jobs_cancel(uuid, text)")
    drop_function("rag_jobs_retry(uuid)")
    drop_function("rag_jobs_fail(uuid, integer, text, interval, boolean)")
    drop_function("rag_jobs_complete(uuid, integer)")
    drop_function("rag_jobs_complete_many(uuid[], integer[])")
    drop_function("rag_jobs_heartbeat(uuid, integer, interval, jsonb)")
    drop_function("rag_jobs_claim(text, text[], integer, interval)")
    drop_function("rag_jobs_release_expired(text[])")
    drop_function("rag_jobs_enqueue(text, jsonb, integer, timestamptz, integer, text, boolean)")
    drop_function(
        "rag_jobs_enqueue_many(text[], jsonb[], integer[], timestamptz[], integer[], text[], boolean)"
    )
    drop_function("rag_job_error(text)")
    drop_function("rag_jobs_channel()")
