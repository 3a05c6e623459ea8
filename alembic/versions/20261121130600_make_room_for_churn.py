"""Make room for churn in jobs

A job is written three times at least, and once more for every heartbeat. With half of each page kept free a
heartbeat finds room on its own page, so it is a HOT update, which touches no index: measured with 200 running jobs
beside busy workers, all of them; with a quarter kept free 98.8 %, for progress widens the rows. Vacuum runs after
2,000 dead rows, whatever the size of the table: by its default, a fifth of the table, a million finished jobs that are
kept would mean 200,000 dead rows among those that every claim reads.

Locks: SHARE UPDATE EXCLUSIVE on rag_jobs, catalogue change only.
Data: none; pages written from here on have the room.
Deploy: expand (nothing changes for a service).
Downgrade: back to the server's defaults; nothing is lost.
"""

from alembic import op

revision = "20261121130600"
down_revision = "20261121130500"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        "ALTER TABLE rag_jobs SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0,"
        " autovacuum_vacuum_threshold = 2000, autovacuum_analyze_scale_factor = 0,"
        " autovacuum_analyze_threshold = 20000)"
    )


def downgrade() -> None:
    op.execute(
        "ALTER TABLE rag_jobs RESET (fillfactor, autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold,"
        " autovacuum_analyze_scale_factor, autovacuum_analyze_threshold)"
    )
