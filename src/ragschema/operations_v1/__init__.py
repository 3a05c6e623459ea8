"""What revisions use beyond alembic's ``op``: safe forms of what is slow, or blocks, on a table with rows.

    from ragschema.operations_v1 import concurrent_index

The package is frozen like the revisions that import it: a revision must do next year what it did when it was
tested. So it imports alembic, sqlalchemy and the standard library only, nothing else of ragschema; the
checksum of its files stands in rag.sum beside theirs; and a change of behaviour is a new package,
operations_v2, for new revisions.

A function that "commits" ends the revision's transaction, works in an autocommit block, where no timeout
applies, and begins another. Let it stand in a revision of its own, or only beside other functions of this
package: whatever failed half way is then healed by running the revision again. Names are unqualified and
mean the schema being migrated. Offline, each writes plain SQL, and a comment for what only a database knows.
Downgrades use `drop_concurrent_index`, and alembic's ``op.drop_constraint`` and ``op.alter_column``.
"""

from ragschema.operations_v1.backfill import backfill
from ragschema.operations_v1.constraints import (
    add_check,
    add_foreign_key,
    add_unique,
    set_not_null,
    validate_constraint,
)
from ragschema.operations_v1.indexes import concurrent_index, drop_concurrent_index
from ragschema.operations_v1.statements import OperationRefused

__all__ = [
    "OperationRefused",
    "add_check",
    "add_foreign_key",
    "add_unique",
    "backfill",
    "concurrent_index",
    "drop_concurrent_index",
    "set_not_null",
    "validate_constraint",
]
