"""The report on a run that failed: which revision, what is committed, what to do next."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from pathlib import Path

import psycopg
from sqlalchemy.exc import DBAPIError

from ragschema.database.secrets import without_secrets
from ragschema.database.sqlstates import (
    driver_error,
    is_connection_lost,
    is_lock_conflict,
    is_node_away,
    server_message,
)
from ragschema.errors import DatabaseUnreachable, LockNotObtained, NodeUnreachable, RagSchemaError
from ragschema.migrations.watch import Blocker
from ragschema.revisions.locations import script_location

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
    error = driver_error(exc)
    if error is None:
        return RagSchemaError(message, f"Mend the cause below, {_AGAIN}", "\n".join(_of_python(exc)))
    evidence = list(map(without_secrets, _of_the_server(error, exc)))
    if is_node_away(exc):
        return NodeUnreachable(
            message, f"A node of Citus does not answer: bring it back, {_AGAIN}", "\n".join(evidence)
        )
    if is_connection_lost(exc):
        return DatabaseUnreachable(message, f"See that the server runs, {_AGAIN}", "\n".join(evidence))
    if is_lock_conflict(exc):
        blocked = [f"Blocked by {blocker}" for blocker in blockers]
        return LockNotObtained(
            message,
            "Wait until the sessions in the way have finished, or end them yourself, then run the same command again.",
            "\n".join([*blocked, *evidence]),
        )
    return RagSchemaError(message, f"Mend the cause below, {_AGAIN}", "\n".join(evidence))


def _of_the_server(error: psycopg.Error, exc: Exception) -> Iterator[str]:
    yield f"SQLSTATE: {error.sqlstate or 'none, the connection was lost'}"
    yield f"Message: {server_message(error)}"
    diagnosis = error.diag
    for title, text in (
        ("Detail", diagnosis.message_detail),
        ("Hint", diagnosis.message_hint),
        ("Context", diagnosis.context),
    ):
        if text:
            yield f"{title}: {text}"
    if isinstance(exc, DBAPIError):
        yield f"Statement: {(exc.statement or 'COMMIT').strip()}"


def _of_python(exc: Exception) -> Iterator[str]:
    yield without_secrets(f"{type(exc).__name__}: {str(exc).strip()}")
    versions = script_location() / "versions"  # the path of a Python may have a directory of this name too
    frames = [
        frame
        for frame in traceback.extract_tb(exc.__traceback__)
        if Path(frame.filename).resolve().parent == versions.resolve()
    ]
    if frames:
        yield f"At: {frames[-1].filename}, line {frames[-1].lineno}: {frames[-1].line}"
