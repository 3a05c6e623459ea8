"""Exit codes of ``rag``: those of the errors, and those of commands that end well and found something."""

from __future__ import annotations

from ragschema.errors import (
    ConfigurationError,
    DatabaseAhead,
    DatabaseUnreachable,
    DriftFound,
    LockNotObtained,
    PendingRevisions,
    RagSchemaError,
    UsageError,
)

FAILED = RagSchemaError.exit_code
PENDING = PendingRevisions.exit_code
DRIFT = DriftFound.exit_code
FINDINGS = 5
AHEAD = DatabaseAhead.exit_code
LOCKED = LockNotObtained.exit_code
REFUSED = ConfigurationError.exit_code
INTERRUPTED = 130
TERMINATED = 143

EXIT_CODES = (
    f"Exit codes: 0 ok; {FAILED} failed; {UsageError.exit_code} wrong usage; {PENDING} revisions pending;"
    f" {DRIFT} drift; {FINDINGS} lint findings, hazards or a poor index;\n"
    f"{AHEAD} the database is ahead of this package; {DatabaseUnreachable.exit_code} database unreachable;"
    f" {LockNotObtained.exit_code} a lock was not obtained, run again later;\n"
    f"{REFUSED} a setting is missing or refused; {INTERRUPTED}, 143 interrupted.\n"
)
"""What ``--help`` says of them."""
