"""SQLSTATEs that decide what is done next, read from the driver's errors."""

from __future__ import annotations

from sqlalchemy.exc import DBAPIError, PendingRollbackError

LOCK_CONFLICTS = ("55P03", "40P01")  # lock_not_available, deadlock_detected
_UNDEFINED = ("42P01", "42703", "42704", "42883")  # table, column, object, function


def first_cause(exc: BaseException) -> BaseException:
    """Return what went wrong first, where the end of an autocommit block hides it: Alembic commits there."""
    while isinstance(exc, PendingRollbackError) and exc.__context__ is not None:
        exc = exc.__context__
    return exc


def is_lock_conflict(exc: BaseException) -> bool:
    """Whether a statement met a lock, or a deadlock, and may be tried again."""
    return isinstance(exc, DBAPIError) and getattr(exc.orig, "sqlstate", None) in LOCK_CONFLICTS


def is_undefined(exc: DBAPIError) -> bool:
    """Whether a statement named what is not there: a later revision makes it, or an earlier one did."""
    return getattr(exc.orig, "sqlstate", None) in _UNDEFINED


def server_message(exc: DBAPIError) -> str:
    """Return what the server said, or the driver where the connection was lost."""
    return getattr(getattr(exc.orig, "diag", None), "message_primary", None) or str(exc.orig).strip()
