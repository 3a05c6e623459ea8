"""The report on a run that failed: which revision, what is committed, what to do next."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from typing import Any

from sqlalchemy.exc import DBAPIError

from ragschema.database.sqlstates import is_lock_conflict, server_message
from ragschema.errors import LockNotObtained, RagSchemaError
from ragschema.migrations.watch import Blocker

_AGAIN = "then run the same command again; `rag migrate status` says where it stands."


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
