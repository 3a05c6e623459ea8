"""What revisions use beyond alembic's ``op``: all of operations_v1, and functions and triggers from files.

    from ragschema.operations_v2 import create_function, create_trigger

Frozen like the revisions that import it, as operations_v1 is: see there for what a function that "commits" asks
of a revision.
"""

from ragschema.operations_v1 import (
    OperationRefused,
    add_check,
    add_foreign_key,
    add_unique,
    backfill,
    concurrent_index,
    drop_concurrent_index,
    set_not_null,
    validate_constraint,
)
from ragschema.operations_v2.routines import create_function, create_trigger, drop_function, drop_trigger

__all__ = [
    "OperationRefused",
    "add_check",
    "add_foreign_key",
    "add_unique",
    "backfill",
    "concurrent_index",
    "create_function",
    "create_trigger",
    "drop_concurrent_index",
    "drop_function",
    "drop_trigger",
    "set_not_null",
    "validate_constraint",
]
