"""One run of Alembic's steps: what each must pass before, and what is written of it after."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, takewhile
from typing import Any, cast

import sqlalchemy as sa
from alembic.runtime.migration import MigrationContext, MigrationInfo, RevisionStep
from alembic.script import Script, ScriptDirectory
from alembic.util import CommandError
from sqlalchemy.exc import PendingRollbackError

from ragschema.database.options import Options
from ragschema.database.server import VERSION_TABLE
from ragschema.database.sqlstates import first_cause
from ragschema.errors import RagSchemaError, UnmanagedDatabase
from ragschema.migrations import guards
from ragschema.migrations.failure_report import explain
from ragschema.migrations.guards import CheckDrift
from ragschema.migrations.watch import Blocker, Build
from ragschema.planning.losses import Drop, find_drops, lock_tables
from ragschema.revisions.manifest import deploy_label
from ragschema.revisions.scripts import Direction, script_checksum
from ragschema.state import attempts


@dataclass(frozen=True)
class Applied:
    """A revision that was applied, or reversed, and committed.

    Attributes:
        revision: Its id.
        summary: The first line of its docstring.
        direction: ``upgrade`` or ``downgrade``.
        seconds: How long it took.
    """

    revision: str
    summary: str
    direction: Direction
    seconds: float


@dataclass
class Run:
    """One run: what it is told, and what it tells.

    Attributes:
        options: How to speak to the database; the settings decide by default.
        allow_data_loss: Whether steps may destroy rows and column values.
        expand_only: Whether to stop before the first contract revision.
        report: Called after each revision.
        show_build: Shows the progress of an index build; lines are logged by default.
        check_drift: What to do where the database is not what its revision says: ``fail``, ``warn`` or ``off``.
        check: Called with the connection before anything changes, the lock held; raises to refuse.
        applied: The revisions applied so far, in order.
        current: The revision the database is at when the run has ended, None at base.
    """

    options: Options | None = None
    allow_data_loss: bool = False
    expand_only: bool = False
    report: Callable[[Applied], None] = lambda applied: None
    show_build: Callable[[Build | None], None] | None = None
    check_drift: CheckDrift = "warn"
    check: Callable[[sa.Connection, str], None] | None = None
    applied: list[Applied] = field(default_factory=list)
    current: str | None = None
    schema: str = "public"
    _drops: Mapping[tuple[str, Direction], list[Drop]] = field(default_factory=dict)
    _planned: list[Any] | None = None
    _step: object = None
    _started: float = 0.0
    _is_in_revision: bool = False
    _has_left_transaction: bool = False

    def begin(self) -> None:
        """Forget what was run before, where one object serves several commands."""
        self.applied, self.current, self._planned, self._step = [], None, None, None

    def find_drops(self, scripts: ScriptDirectory) -> None:
        """Find beforehand what steps would drop, unless they may destroy it."""
        if not self.allow_data_loss:
            self._drops = find_drops(scripts)

    def watch(self, find_steps: Callable[..., Iterable[Any]]) -> Callable[..., Iterator[Any]]:
        """Wrap Alembic's function of steps: check them all before the first, then each in its turn."""

        def watched(heads: Any, context: MigrationContext) -> Iterator[Any]:
            guards.check_heads(heads, context)
            connection = None if context.as_sql else context.connection
            if is_first := self._planned is None:  # tried again, "+2" would count from where it has come to
                self._planned = self._plan(find_steps(heads, context), connection)
            steps = self._planned[len(self.applied) :]
            if steps and connection is not None:
                self._check(steps, heads, connection, is_first=is_first)
            if steps:
                context.execute(attempts.create_table(None if context.as_sql else self.schema))
            for step in steps:
                if step is not self._step:
                    self._has_left_transaction = False
                self._step, self._started = step, time.monotonic()
                yield step
                self._step = None
                self._finish(step)

        return watched

    def record(self, *, ctx: MigrationContext, step: MigrationInfo, **_: Any) -> None:
        """Write the history of a step, in its own transaction: Alembic calls this before it commits."""
        if step.up_revision is None:
            return
        attempt = attempts.attempt(
            step.up_revision.revision,
            "stamp" if step.is_stamp else "upgrade" if step.is_upgrade else "downgrade",
            seconds=0.0 if ctx.as_sql else time.monotonic() - self._started,
            checksum=script_checksum(cast(Script, step.up_revision)),
        )
        ctx.execute(_plain(attempts.insert(None if ctx.as_sql else self.schema, attempt)))

    def record_failure(self, connection: sa.Connection, error: str) -> None:
        """Write the history of the step that failed, in a transaction of its own."""
        if not isinstance(self._step, RevisionStep):
            return
        attempt = attempts.attempt(
            self._step.revision.revision,
            direction_of(self._step),
            seconds=time.monotonic() - self._started,
            checksum=script_checksum(self._step.revision),
            error=error,
        )
        connection.exec_driver_sql(attempts.create_table(self.schema))
        connection.execute(_plain(attempts.insert(self.schema, attempt)))
        connection.commit()

    def failure(self, exc: Exception, blockers: list[Blocker]) -> RagSchemaError:
        """Say which revision failed, in which statement, what is committed, and what to do next."""
        if not isinstance(self._step, RevisionStep):
            return explain(exc, "The migration failed before its first revision", self.outcome(), blockers)
        fate = (
            "failed, and what it did outside a transaction stays"
            if self._has_left_transaction
            else "failed and was rolled back"
        )
        return explain(exc, f"Revision {self._step.revision.revision} {fate}", self.outcome(), blockers)

    def refusal(self, exc: CommandError, remedy: str) -> RagSchemaError:
        """Return the error to show where an operation of a revision refuses what it is asked."""
        message, evidence = str(getattr(exc, "message", exc)), str(getattr(exc, "evidence", ""))
        what = f"Revision {self._step.revision.revision}" if isinstance(self._step, RevisionStep) else "It"
        return RagSchemaError(
            f"{what} was stopped; {self.outcome()}. {message}",
            f"{remedy} Then run the same command again.",
            evidence,
        )

    def outcome(self) -> str:
        """Say what of the run is committed, and what is not."""
        steps = [step for step in self._planned or () if isinstance(step, RevisionStep)]
        missing = ", ".join(step.revision.revision for step in steps[len(self.applied) :])
        committed = ", ".join(applied.revision for applied in self.applied)
        return f"committed in this run: {committed or 'nothing'}; not committed: {missing or 'nothing'}"

    def note_commit(self) -> None:
        """Remember that a transaction was committed: inside a revision, what it did before stays."""
        self._has_left_transaction |= self._is_in_revision

    def _plan(self, steps: Iterable[Any], connection: sa.Connection | None) -> list[Any]:
        planned = list(steps)
        if self.expand_only:
            planned = list(takewhile(lambda step: not _contracts(step), planned))
        for step in planned:
            if isinstance(step, RevisionStep) and connection is not None:
                step.migration_fn = self._guarded(step, connection)
        return planned

    def _check(self, steps: list[Any], heads: Any, connection: sa.Connection, *, is_first: bool) -> None:
        """Refuse, before anything runs, what can be known to be wrong."""
        revisions = [step for step in steps if isinstance(step, RevisionStep)]
        if not revisions:
            return
        if not heads and sa.inspect(connection).has_table("rag_documents", schema=self.schema):
            raise UnmanagedDatabase(
                f"The database has our tables, but {VERSION_TABLE} does not say at which revision.",
                "Nothing was changed. Run `rag migrate adopt`: it finds the revision and stamps it.",
            )
        if self.check is not None and is_first:
            self.check(connection, self.schema)
        if heads and is_first:
            guards.look_for_drift(connection, self.schema, heads[0], self.check_drift)
        guards.refuse_data_loss(connection, list(chain.from_iterable(map(self._drops_of, revisions))))
        for step in revisions:
            guards.precheck(step, connection, is_first_look=True)

    def _drops_of(self, step: RevisionStep) -> list[Drop]:
        return self._drops.get((step.revision.revision, direction_of(step)), [])

    def _guarded(self, step: RevisionStep, connection: sa.Connection) -> Callable[..., None]:
        """Wrap a step's function, to check inside its transaction: rows may have come meanwhile."""
        migrate: Callable[..., None] = step.migration_fn

        def guarded(**arguments: Any) -> None:
            if drops := self._drops_of(step):
                lock_tables(connection, drops)
                guards.refuse_data_loss(connection, drops)
            guards.precheck(step, connection)
            self._is_in_revision = True
            try:
                migrate(**arguments)
                guards.verify(step, connection)
            except PendingRollbackError as exc:
                raise first_cause(exc) from first_cause(exc).__cause__
            finally:
                self._is_in_revision = False

        return guarded

    def _finish(self, step: object) -> None:
        if isinstance(step, RevisionStep):
            seconds = time.monotonic() - self._started
            applied = Applied(step.revision.revision, step.revision.doc or "", direction_of(step), seconds)
            self.applied.append(applied)
            self.report(applied)


def _plain(statement: str) -> sa.TextClause:
    return sa.text(statement.replace(":", "\\:"))  # a colon is not the start of a parameter


def direction_of(step: RevisionStep) -> Direction:
    """Return which way a step goes."""
    return "upgrade" if step.is_upgrade else "downgrade"


def _contracts(step: object) -> bool:
    return (
        isinstance(step, RevisionStep)
        and step.is_upgrade
        and deploy_label(step.revision.module.__doc__ or "") == "contract"
    )
