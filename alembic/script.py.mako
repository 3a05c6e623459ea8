"""${message}

Why: one or two sentences a reader in three years will need.

Locks: the lock level on each existing table, and for how long (a catalogue change, a scan, a rewrite).
Data: which rows it reads or writes, or "none".
Deploy: expand (before the code that needs it) or contract (after the last code that used it is gone).
Downgrade: what is lost, or "nothing".
"""

# Before you commit this revision:
#   - autogenerate drafts, you rewrite: order, literal names, locks; import nothing from ragschema
#   - downgrade mirrors upgrade in reverse; where it cannot, raise and say what to do instead, never `pass`
#   - one statement per op.execute; no `public.` and no SET: names resolve in the schema being migrated
#   - CREATE INDEX CONCURRENTLY and ADD VALUE stand alone, in `with op.get_context().autocommit_block():`
#   - ADD COLUMN with a volatile default or GENERATED STORED rewrites the table; constants and now() do not
#   - constraints on a table with rows: NOT VALID here, VALIDATE CONSTRAINT in the next revision
#   - once landed a revision is frozen: correct it with a new one
# Then delete these lines, and run the tests.

import sqlalchemy as sa
from alembic import op
from pgvector.sqlalchemy import VECTOR
% for line in (imports or "").splitlines():
% if "VECTOR" not in line:
${line}
% endif
% endfor

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


def upgrade() -> None:
    ${upgrades if "(" in (upgrades or "") else 'raise RuntimeError("this upgrade is not written yet")'}


def downgrade() -> None:
    ${downgrades if "(" in (downgrades or "") else 'raise RuntimeError("this downgrade is not written yet")'}
