"""Leave room beside chunks, and vacuum them sooner

An UPDATE of a chunk that is not HOT inserts its embedding into the HNSW index again, 2 ms against 0.02. With a fifth
of each page left free 98 % of the updates of a column without an index are HOT (43 % on full pages), for 5 % more
disk; and the vacuum of an HNSW costs 3 to 15 ms for each dead row, so it comes at a tenth of the rows, and is not
throttled to a fifth of its pace.

Embeddings stay out of line, pgvector's default. Inline (MAIN with toast_tuple_target) an exact scan takes half the
time, but every write of a chunk copies 3 kB more, full pages leave no room at all, and rows that are there already
would stay as they are. What inline would cure besides, the planner's liking for sequential scans of fewer than 5,000
chunks, a condition in the search statements cures.

Locks: SHARE UPDATE EXCLUSIVE on rag_chunks for a moment.
Data: none; pages written from here on have the room.
Deploy: expand (nothing changes for a service).
Downgrade: sets the defaults again; nothing is lost.
"""

from alembic import op

revision = "20261121121050"
down_revision = "20261121121000"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        "ALTER TABLE rag_chunks SET (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.1,"
        " autovacuum_vacuum_threshold = 500, autovacuum_vacuum_cost_limit = 2000)"
    )


def downgrade() -> None:
    op.execute(
        "ALTER TABLE rag_chunks RESET (fillfactor, autovacuum_vacuum_scale_factor,"
        " autovacuum_vacuum_threshold, autovacuum_vacuum_cost_limit)"
    )
