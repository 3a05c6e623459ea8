"""The settlement of a run that failed: what became of it, written into the history, and said as an error."""

from __future__ import annotations

import logging
from contextlib import suppress
from functools import partial

import sqlalchemy as sa
from alembic import context
from alembic.runtime.migration import RevisionStep
from alembic.util import CommandError

from ragschema.database import connecting
from ragschema.database.connections import Opened
from ragschema.database.drivers import as_written
from ragschema.database.row_security import find_refused, rows_hidden
from ragschema.database.secrets import without_secrets
from ragschema.database.sqlstates import is_connection_lost
from ragschema.errors import RagSchemaError
from ragschema.migrations.attempt import Attempt, direction_of
from ragschema.migrations.deployer_lock import take_deployer_lock
from ragschema.migrations.interruption import Terminated
from ragschema.migrations.outcome import failure_of, outcome_of, refusal_of
from ragschema.migrations.run import Run
from ragschema.migrations.run_connection import run_connection
from ragschema.migrations.settlement import Settlement, settle
from ragschema.migrations.watch import Watch
from ragschema.revisions.scripts import script_checksum
from ragschema.state import attempts

log = logging.getLogger(__name__)


def settle_failure(
    at: Opened,
    pid: int,
    connection: sa.Connection,
    run: Run,
    exc: Exception | KeyboardInterrupt,
    watch: Watch,
) -> Settlement:
    """Find what became of a run that failed, write it down, and raise the error that says it.

    Returns:
        What the database says, where all is committed and only the connection was lost.
    """
    attempt = run.at_work
    try:
        is_done = None if attempt is None else partial(attempt.is_done, script=context.script)
        settled = settle(at, pid, is_done, getattr(exc, "statement", None) or "")
    except KeyboardInterrupt:  # a second one
        settled = Settlement("unknown")
    if attempt is not None and settled.fate == "committed":
        run.finish(attempt)
    elif attempt is not None and settled.fate == "not committed":
        attempt.has_left_transaction |= settled.has_left_index
        _record_failure(at, connection, run, attempt, exc)
    if isinstance(exc, KeyboardInterrupt):
        exc.add_note(outcome_of(run, settled.fate))
        raise exc
    if getattr(exc, "remedy", "") and isinstance(exc, CommandError):  # an operation of a revision
        raise refusal_of(run, attempt, exc) from exc
    if isinstance(exc, RagSchemaError | CommandError):
        raise exc
    if settled.fate == "committed" and run.is_complete and is_connection_lost(exc):
        log.warning("The connection was lost at the last COMMIT; the database says that it is done.")
        return settled
    if hidden := find_refused(at.connection, getattr(exc, "orig", None)):
        raise rows_hidden(hidden, outcome_of(run, settled.fate)) from exc
    raise failure_of(run, attempt, exc, settled.fate, watch.blockers) from exc


def _record_failure(
    at: Opened, connection: sa.Connection, run: Run, attempt: Attempt, exc: BaseException
) -> None:
    """Record a failure, if the database lets us.

    Where the connection is lost, so is its lock: then on another one, unless a deployer has followed us.
    """
    interrupted = "interrupted by SIGTERM" if isinstance(exc, Terminated) else "interrupted by Ctrl-C"
    error = without_secrets(str(getattr(exc, "orig", exc)).strip()) or interrupted
    with suppress(Exception):
        if not (connection.invalidated or at.connection.closed):
            _write_failure(connection, run, attempt, error)
            return
        with connecting.connect(at.options, at.database) as driver:
            connecting.apply_settings(driver, at.options)
            take_deployer_lock(driver, at.schemas.target, wait=0.5, is_quiet=True)
            with run_connection(driver, run) as another:
                _write_failure(another, run, attempt, error)


def _write_failure(connection: sa.Connection, run: Run, attempt: Attempt, error: str) -> None:
    """Write the history of a step that failed, in a transaction of its own."""
    if not isinstance(step := attempt.step, RevisionStep):
        return
    entry = attempts.attempt(
        step.revision.revision,
        direction_of(step),
        seconds=attempt.seconds,
        checksum=script_checksum(step.revision),
        error=error,
    )
    connection.execute(as_written(attempts.create_table(run.schema)))
    connection.execute(as_written(attempts.insert(run.schema, entry)))
    connection.commit()
