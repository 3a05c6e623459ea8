<%!
    from ragschema.migrations.drafts import body, imports, offered_operations
%>\
<%
    up, down = body(upgrades, "upgrade"), body(downgrades, "downgrade")
    imported = imports(up, down)
%>\
"""${message}

Why: what was wrong or missing, and why this mends it? One or two sentences for a reader in three years.

Locks: which lock on which existing table, and for how long: a catalogue change, a scan, a rewrite?
Data: which rows does it read or write, or none?
Deploy: expand (goes before the code that needs it) or contract (after the last code that used what goes)?
Downgrade: what does it lose, or nothing?
"""

# Answer the five questions above, then delete these lines; CONTRIBUTING.md leads through the rest.
#   - order the statements yourself; literal names; downgrade mirrors upgrade in reverse, never `pass`
#   - on a table with rows use these, which hold no lock for long and can be run again:
${offered_operations()}
#   - `--expand-only` passes over a contract revision: none after it may need it done, or change what it changes
#   - constraints there: NOT VALID here, validate_constraint in the next revision
#   - ADD COLUMN with a volatile default or GENERATED STORED rewrites the table; constants and now() do not
#   - a function or trigger: the next version of its file in alembic/routines
#   - one statement per op.execute; no `public.` and no SET: names resolve in the schema being migrated
#   - once landed a revision is frozen: correct it with a new one

% if imported:
${imported}

% endif
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


def upgrade() -> None:
    ${up}


def downgrade() -> None:
    ${down}
