"""A rehearsal: pending revisions run on a scratch server, each statement watched for its locks and rewrites.

Its tables are empty, so what takes long on rows is quick there, and what fails on rows does not fail.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
import sqlalchemy as sa
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import Script
from sqlalchemy.exc import DBAPIError

from ragschema.database.connections import Opened
from ragschema.database.drivers import driver_of, engine_on
from ragschema.database.server import Connection
from ragschema.database.sqlstates import server_message
from ragschema.errors import RagSchemaError
from ragschema.planning.effects import MODES, is_framing, stronger
from ragschema.planning.needed_objects import find_needed
from ragschema.planning.scratch_schema import copy_schema, scratch_database
from ragschema.planning.scratch_server import scratch_server, silent
from ragschema.words import counted

_TABLES = """
SELECT c.oid::int8, c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relkind IN ('r', 'p', 'm')
"""
_LOOK = """
SELECT wanted.oid, pg_relation_filenode(wanted.oid)::int8, ARRAY(
    SELECT mode FROM pg_locks
    WHERE pid = pg_backend_pid() AND locktype = 'relation' AND granted AND relation = wanted.oid)
FROM unnest(%s::oid[]) wanted (oid)
"""
_MODES = {f"{mode.title().replace(' ', '')}Lock": mode for mode in MODES}  # as pg_locks spells them

_LOGGERS = ("ragschema.operations", "ragschema.backfill")


@dataclass
class Ran:
    """A statement that was run on the scratch server.

    Attributes:
        sql: Its text, parameters filled in.
        is_autocommit: Whether it ran in an autocommit block: then its locks were gone before a look at them.
        held: The strongest lock that its transaction held after it, by table that is not new.
        rewrites: The tables that it wrote anew.
        error: SQLSTATE and message, where it failed.
    """

    sql: str
    is_autocommit: bool
    held: Mapping[str, str] = field(default_factory=dict)
    rewrites: Sequence[str] = ()
    error: str | None = None


@dataclass
class Rehearsed:
    """A revision that was run on the scratch server.

    Attributes:
        revision: Its id.
        statements: Its statements in order, up to and including one that failed.
        error: What ended it early.
    """

    revision: str
    statements: list[Ran] = field(default_factory=list)
    error: str | None = None


@dataclass(frozen=True)
class Rehearsal:
    """What was run.

    Attributes:
        revisions: Those that ran, in order, up to and including one that failed.
        difference: Why the scratch schema is not a copy of the target's, but what our revisions make.
        left_out: What of the target's schema the copy does not have.
    """

    revisions: list[Rehearsed]
    difference: str | None
    left_out: str | None


def rehearse(at: Opened, applied: Sequence[Script], pending: Sequence[Script]) -> Rehearsal:
    """Run the pending revisions on a scratch server with the target's schema.

    Takes Alembic's ``op``: call it where no migration runs in this process.

    Args:
        at: The target; it is only read.
        applied: The revisions that it has, for a schema that cannot be copied.
        pending: Those to run.

    Raises:
        RagSchemaError: There is no server to rehearse on, or no schema like the target's can be made there.
    """
    needed = find_needed(at)
    with scratch_server() as server:
        with scratch_database(server, "copy", at, needed.extensions) as scratch:
            difference = copy_schema(at, scratch, server, needed)
            if difference is None:
                return Rehearsal(_run(at, scratch, [], pending), None, needed.describe())
        with scratch_database(server, "replay", at, needed.extensions) as scratch:
            return Rehearsal(_run(at, scratch, applied, pending, difference), difference, None)


def _run(
    at: Opened,
    scratch: Connection,
    applied: Sequence[Script],
    pending: Sequence[Script],
    difference: str | None = None,
) -> list[Rehearsed]:
    rehearsed: list[Rehearsed] = []
    with _sqlalchemy(at, scratch) as connection:
        for script in applied:
            if (error := _upgrade(connection, script)) is not None:
                raise RagSchemaError(
                    f"The schema can be neither copied ({difference}) nor made by our revisions:"
                    f" {script.revision} says {error}."
                )
        recorder = _Recorder(dict(scratch.execute(_TABLES, (at.schemas.target,)).fetchall()))
        scratch.rollback()
        sa.event.listen(connection, "before_cursor_execute", recorder.before)
        sa.event.listen(connection, "after_cursor_execute", recorder.after)
        for script in pending:
            rehearsed.append(recorder.begin(script.revision))
            recorder.end(_upgrade(connection, script))
            if rehearsed[-1].error is not None:
                break
    return rehearsed


@contextmanager
def _sqlalchemy(at: Opened, scratch: Connection) -> Iterator[sa.Connection]:
    """Hand the scratch connection to SQLAlchemy."""
    scratch.autocommit = False
    engine = engine_on(scratch)
    with engine.connect() as connection:
        # helpers choose by version what they run: let them choose what they will on the target
        version = divmod(at.connection.info.server_version, 10000)
        engine.dialect.server_version_info = min(version, engine.dialect.server_version_info or version)
        yield connection


def _upgrade(connection: sa.Connection, script: Script) -> str | None:
    """Run a revision as the runner does; return what ended it early."""
    context = MigrationContext.configure(connection, opts={"transaction_per_migration": True})
    try:
        with silent(*_LOGGERS), context.begin_transaction(_per_migration=True), Operations.context(context):
            script.module.upgrade()
    except DBAPIError as exc:
        connection.rollback()
        return f"{server_message(exc)} (SQLSTATE {getattr(exc.orig, 'sqlstate', None)})"
    except Exception as exc:  # a revision may raise anything
        return str(exc).partition("\n")[0] or type(exc).__name__
    return None


class _Recorder:
    """Writes down each statement of a revision, and looks after it at locks and files."""

    def __init__(self, tables: Mapping[int, str]) -> None:
        self.revision = Rehearsed("")
        self._tables = tables
        self._files: dict[int, int | None] = {}
        self._running: Ran | None = None
        self._has_ended = True

    def begin(self, revision: str) -> Rehearsed:
        """Begin a revision."""
        self.revision, self._running = Rehearsed(revision), None
        return self.revision

    def end(self, error: str | None) -> None:
        """End a revision, with what ended it early."""
        self.revision.error = error
        if self._running is not None and not self._has_ended:
            self._running.error = error

    def before(
        self,
        connection: sa.Connection,
        cursor: Any,
        statement: str,
        parameters: Any,
        context: object,
        executemany: bool,
    ) -> None:
        driver = driver_of(connection)
        if is_framing(statement):
            self._running = None
            return
        self._files, _ = self._look(driver)
        self._running = Ran(_fill_in(driver, statement, parameters, executemany), driver.autocommit)
        self._has_ended = False
        self.revision.statements.append(self._running)

    def after(self, connection: sa.Connection, *_: object) -> None:
        if self._running is None:
            return
        files, held = self._look(driver_of(connection))
        self._has_ended = True
        self._running.held = {} if self._running.is_autocommit else held
        self._running.rewrites = sorted(
            self._tables[oid] for oid, file in files.items() if file is not None and file != self._files[oid]
        )

    def _look(self, driver: Connection) -> tuple[dict[int, int | None], dict[str, str]]:
        """Return the file of each table, None where it is gone, and the locks on them."""
        files: dict[int, int | None] = {}
        held: dict[str, str] = {}
        for oid, file, modes in driver.execute(_LOOK, (list(self._tables),)).fetchall():
            files[oid] = file
            for mode in modes:
                held[self._tables[oid]] = stronger(_MODES[mode], held.get(self._tables[oid]))
        return files, held


def _fill_in(driver: Connection, statement: str, parameters: Any, is_many: bool) -> str:
    """Return a statement with its parameters in it; of many rows, the first."""
    first = parameters[0] if is_many else parameters
    text = psycopg.ClientCursor(driver).mogrify(statement.encode(), first or {})
    return f"{text.strip()}" + (f"  -- and {counted(len(parameters) - 1, 'row')} more" if is_many else "")
