"""Generate ids without uuid-ossp

A schema made by hand, or adopted from Atlas, has uuid_generate_v4() as the default of its ids, which needs the
extension uuid-ossp; gen_random_uuid() is built in. Where the default is that already, nothing changes.

Locks: ACCESS EXCLUSIVE on one table after the other, each in a transaction of its own that waits 2 s at the most;
a catalogue change only.
Data: none. The extension uuid-ossp stays: others may use it.
Deploy: expand (ids look the same to every service).
Downgrade: sets the same defaults, for the revision before says gen_random_uuid() too; nothing is lost.
"""

import sqlalchemy as sa
from alembic import op

revision = "20261121100500"
down_revision = "20251225170000"
branch_labels = None
depends_on = None

TABLES = ("rag_documents", "rag_document_versions", "rag_chunks", "rag_chunk_events", "rag_jobs")


def upgrade() -> None:
    set_defaults()


def downgrade() -> None:
    set_defaults()


def set_defaults() -> None:
    with op.get_context().autocommit_block():  # so that no two tables are locked at once
        # lint: allow session-set: for this block only, where no timeout holds; given back at its end
        op.execute("SET lock_timeout = '2s'")
        for table in TABLES:
            op.alter_column(table, "id", server_default=sa.text("gen_random_uuid()"))
        # lint: allow session-set: see above
        op.execute("RESET lock_timeout")
