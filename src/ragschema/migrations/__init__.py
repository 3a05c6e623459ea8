"""Migrations as plain functions: what ``rag migrate`` calls, and what a service may.

Importing this package imports neither Alembic nor SQLAlchemy; functions that run revisions do. They are safe
from several threads, on several databases.
"""

from ragschema.migrations.commands import (
    adopt,
    downgrade,
    foresee_rollback,
    plan,
    stamp,
    upgrade,
    upgrade_sql,
)
from ragschema.migrations.grants import Grants, apply_grants, find_grants
from ragschema.migrations.inspection import (
    HistoryEntry,
    assert_current,
    history,
    status,
    verify,
    verify_data,
    verify_facts,
    wait,
)
from ragschema.migrations.request import Result

__all__ = [
    "Grants",
    "HistoryEntry",
    "Result",
    "adopt",
    "apply_grants",
    "assert_current",
    "downgrade",
    "find_grants",
    "foresee_rollback",
    "history",
    "plan",
    "stamp",
    "status",
    "upgrade",
    "upgrade_sql",
    "verify",
    "verify_data",
    "verify_facts",
    "wait",
]
