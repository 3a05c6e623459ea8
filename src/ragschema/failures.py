"""What is said of a run that did not reach its end: which revision, what is committed, what to do next."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from typing import Any

from sqlalchemy.exc import DBAPIError, PendingRollbackError

from ragschema.errors import LockNotObtained, RagSchemaError
from ragschema.watch import Blocker

LOCK_CONFLICTS = ("55P03", "40P01")  # lock_not_available, deadlock_detected
_UNDEFINED = ("42P01", "42703", "42704", "42883")  # table, column, object, function

_AGAIN = "then run the same command again; `rag migrate status` says where it stands."


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


def explain(exc: Exception, what: str, outcome: str, blockers: list[Blocker]) -> RagSchemaError:
    """Return the error to show for a failure.

    Args:
        exc: What was raised.
        what: What failed and what became of it: ``Revision 20251225160000 failed and was rolled back``.
        outcome: What of the run is committed and what is not.
        blockers: The sessions that were last seen in the way.
    """
    message = f"{what}; {outcome}."
    if isinstance(exc, RagSchemaError):
        return exc
    if not isinstance(exc, DBAPIError):
        return RagSchemaError(message, f"Mend the cause below, {_AGAIN}", "\n".join(_of_python(exc)))
    if is_lock_conflict(exc):
        blocked = [f"Blocked by {blocker}" for blocker in blockers]
        return LockNotObtained(
            message,
            "Wait until the sessions in the way have finished, or end them yourself, then run the same command again.",
            "\n".join([*blocked, *_of_the_server(exc)]),
        )
    return RagSchemaError(message, f"Mend the cause below, {_AGAIN}", "\n".join(_of_the_server(exc)))


def _of_the_server(exc: DBAPIError) -> Iterator[str]:
    diagnosis: Any = getattr(exc.orig, "diag", None)
    yield f"SQLSTATE: {getattr(exc.orig, 'sqlstate', None) or 'none, the connection was lost'}"
    yield f"Message: {server_message(exc)}"
    for title, name in (("Detail", "message_detail"), ("Hint", "message_hint"), ("Context", "context")):
        if text := getattr(diagnosis, name, None):
            yield f"{title}: {text}"
    yield f"Statement: {(exc.statement or 'COMMIT').strip()}"


def _of_python(exc: Exception) -> Iterator[str]:
    yield f"{type(exc).__name__}: {str(exc).strip()}"
    frames = [frame for frame in traceback.extract_tb(exc.__traceback__) if "/versions/" in frame.filename]
    if frames:
        yield f"At: {frames[-1].filename}, line {frames[-1].lineno}: {frames[-1].line}"
