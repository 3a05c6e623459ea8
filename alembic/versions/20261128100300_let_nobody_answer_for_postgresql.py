"""Let nobody answer for PostgreSQL

A call whose argument types are not exactly a function's own goes to whichever function fits best on the whole
search_path: a role that may create in the schema could define format(text, integer), cardinality(text[]) or
= (job_status, job_status), and our functions ran it as their caller. Where the types cannot be made exact the
functions now say pg_catalog.

Locks: none on tables.
Data: none.
Deploy: expand (the functions are called as before).
Downgrade: brings the earlier functions back.
"""

from ragschema.operations_v2 import create_function

revision = "20261128100300"
down_revision = "20261128100100"
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_function("rag_chunk_deleted", 2)
    create_function("rag_set_current_chunks", 2)
    create_function("rag_refuse_version_change", 2)
    create_function("rag_job_error", 2)
    create_function("rag_job_fill_in", 2)
    create_function("rag_jobs_channel", 2)
    create_function("rag_jobs_enqueue_many", 2)
    create_function("rag_jobs_release_expired", 3)
    create_function("rag_jobs_claim", 3)
    create_function("rag_jobs_complete_many", 2)
    create_function("rag_jobs_fail", 2)
    create_function("rag_jobs_retry", 2)
    create_function("rag_jobs_cancel", 2)
    create_function("rag_jobs_prune", 2)
    create_function("rag_jobs_stats", 2)


def downgrade() -> None:
    create_function("rag_jobs_stats", 1)
    create_function("rag_jobs_prune", 1)
    create_function("rag_jobs_cancel", 1)
    create_function("rag_jobs_retry", 1)
    create_function("rag_jobs_fail", 1)
    create_function("rag_jobs_complete_many", 1)
    create_function("rag_jobs_claim", 2)
    create_function("rag_jobs_release_expired", 2)
    create_function("rag_jobs_enqueue_many", 1)
    create_function("rag_jobs_channel", 1)
    create_function("rag_job_fill_in", 1)
    create_function("rag_job_error", 1)
    create_function("rag_refuse_version_change", 1)
    create_function("rag_set_current_chunks", 1)
    create_function("rag_chunk_deleted", 1)
