"""One run of Alembic's steps: what each must pass before, and what is written of it after."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Literal, TypeGuard, cast

import sqlalchemy as sa
from alembic.runtime.migration import MigrationContext, MigrationInfo, RevisionStep
from alembic.script import Script, ScriptDirectory
from alembic.util import CommandError
from sqlalchemy.exc import PendingRollbackError

from ragschema.database.drivers import driver_of
from ragschema.database.sqlstates import first_cause
from ragschema.errors import RagSchemaError
from ragschema.migrations import guards
from ragschema.migrations.failure_report import explain
from ragschema.migrations.held_back import OwedStep, PassingStep, contracts
from ragschema.migrations.loss_guard import LossGuard, refuse_data_loss
from ragschema.migrations.request import Applied, Request
from ragschema.migrations.watch import Blocker
from ragschema.planning.losses import StepLoss
from ragschema.revisions.manifest import Direction, describe_ids
from ragschema.revisions.scripts import script_checksum
from ragschema.state import attempts
from ragschema.state.status import refuse_unmanaged

log = logging.getLogger(__name__)

Fate = Literal["committed", "not committed", "unknown"]
"""What became of a step that did not come back."""


@dataclass
class _Attempt:
    """The step at work; tried again after a lock conflict, it is the same attempt.

    Attributes:
        step: Alembic's step: of a revision, or a stamp.
        started: When its last try began, by the monotonic clock, in seconds.
        is_in_revision: Whether the revision's own code is running.
        has_left_transaction: Whether that code has committed a change, which stays when the rest fails.
    """

    step: object
    started: float
    is_in_revision: bool = False
    has_left_transaction: bool = False

    @property
    def revision(self) -> Script | None:
        return self.step.revision if isinstance(self.step, RevisionStep) else None

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started


@dataclass
class Run:
    """One command at work on one database, or offline: made for it, and done with it.

    Attributes:
        request: What is asked.
        schema: The schema of the tables; None offline.
        losses: What the steps' texts say they destroy and may not, by revision and direction.
        due: The owed revisions to run before anything else.
        owed: All that the database owes; a downgrade passes over them, because they were never applied.
        settled: Those that are owed no more, because their changes are there: the history is to say so.
        applied: The revisions applied so far, in order.
        moved: The last committed step that has moved the version table.
    """

    request: Request
    schema: str | None = None
    losses: Mapping[tuple[str, Direction], Sequence[StepLoss]] = field(default_factory=dict)
    due: Sequence[OwedStep] = ()
    owed: Sequence[str] = ()
    settled: Sequence[str] = ()
    applied: list[Applied] = field(default_factory=list, init=False)
    moved: RevisionStep | None = field(default=None, init=False)
    _planned: list[Any] | None = field(default=None, init=False)
    _attempt: _Attempt | None = field(default=None, init=False)
    _is_checked: bool = field(default=False, init=False)
    _done: list[str] = field(default_factory=list, init=False)  # a name for each step, stamps too

    @property
    def at_work(self) -> str | None:
        """The step at work, in words; None between two steps."""
        return None if self._attempt is None else _name(self._attempt)

    @property
    def is_complete(self) -> bool:
        """Whether every step that was planned is committed."""
        return self._planned is not None and len(self._done) == len(self._planned)

    def is_done(self, heads: Collection[str], script: ScriptDirectory, owed: Collection[str]) -> bool:
        """Whether the step at work is committed, by what the version table and the history say now.

        Another deployer may have gone on from there, with a newer package even.
        """
        assert self._attempt is not None
        step: Any = self._attempt.step
        if not isinstance(step, RevisionStep):
            return set(heads) == set(step.to_)
        if isinstance(step, OwedStep):  # the version table is past it
            return step.revision.revision not in owed
        known = {revision.revision for revision in script.walk_revisions()}
        has_it = any(
            head not in known
            or step.revision.revision in {each.revision for each in script.iterate_revisions(head, "base")}
            for head in heads
        )
        return has_it == step.is_upgrade

    def settle(self) -> None:
        """Count the step at work as applied: the database has committed it."""
        assert self._attempt is not None
        self._finish(self._attempt)

    def steps(self, find_steps: Callable[..., Iterable[Any]]) -> Callable[..., Iterator[Any]]:
        """Wrap Alembic's function of steps: check them all before the first, then each in its turn.

        Alembic calls it again for a retry, which goes on after the steps that are committed.
        """

        def checked(heads: Any, context: MigrationContext) -> Iterator[Any]:
            guards.check_heads(heads, context)
            connection = None if context.as_sql else context.connection
            if self._planned is None:  # tried again, "+2" would count from where it has come to
                self._planned = self._plan(find_steps(heads, context), connection)
            steps = self._planned[len(self._done) :]
            if steps and connection is not None:
                self._check(steps, heads, connection, is_first=not self._is_checked)
                self._is_checked = True
            if steps:
                context.execute(attempts.create_table(self.schema))
            self._write_settled(context)
            for step in steps:
                if self._attempt is None or self._attempt.step is not step:
                    self._attempt = _Attempt(step, time.monotonic())
                self._attempt.started = time.monotonic()
                if isinstance(step, OwedStep):
                    self._run_owed(step, context)
                else:
                    yield step
                self._finish(self._attempt)

        return checked

    def record(self, *, ctx: MigrationContext, step: MigrationInfo, **_: Any) -> None:
        """Write the history of a step, in its own transaction: Alembic calls this before it commits."""
        if step.up_revision is None:
            return
        attempt = attempts.attempt(
            step.up_revision.revision,
            self._direction(step),
            seconds=0.0 if ctx.as_sql or self._attempt is None else self._attempt.seconds,
            checksum=script_checksum(cast(Script, step.up_revision)),
        )
        ctx.execute(_plain(attempts.insert(self.schema, attempt)))

    def _direction(self, step: MigrationInfo) -> str:
        if self._attempt is not None and isinstance(self._attempt.step, PassingStep):
            return "defer" if step.is_upgrade else "settle"
        return "stamp" if step.is_stamp else "upgrade" if step.is_upgrade else "downgrade"

    def _run_owed(self, step: OwedStep, context: MigrationContext) -> None:
        """Run an owed revision as Alembic runs a step, but for the version table, which is past it."""
        with context.begin_transaction(_per_migration=True):
            step.migration_fn()
            self.record(ctx=context, step=step.info)

    def _write_settled(self, context: MigrationContext) -> None:
        for revision in self.settled:
            log.info("%s is owed no more: its changes are there", revision)
            settled = attempts.attempt(revision, "settle", seconds=0.0, checksum=None)
            with context.begin_transaction(_per_migration=True):
                context.execute(_plain(attempts.insert(self.schema, settled)))
        self.settled = ()

    def record_failure(self, connection: sa.Connection, error: str) -> None:
        """Write the history of the step that failed, in a transaction of its own."""
        if self._attempt is None or not isinstance(step := self._attempt.step, RevisionStep):
            return
        attempt = attempts.attempt(
            step.revision.revision,
            direction_of(step),
            seconds=self._attempt.seconds,
            checksum=script_checksum(step.revision),
            error=error,
        )
        connection.exec_driver_sql(attempts.create_table(self.schema))
        connection.execute(_plain(attempts.insert(self.schema, attempt)))
        connection.commit()

    def failure(self, exc: Exception, fate: Fate, blockers: list[Blocker]) -> RagSchemaError:
        """Return the error to show: which revision failed, in which statement, what is committed, what to do.

        Args:
            exc: What was raised.
            fate: What became of the step at work: it is settled where it was committed.
            blockers: The sessions that were last seen in the way.
        """
        outcome = self.outcome(fate)
        if fate == "committed":
            return explain(exc, f"The run broke off after {self._done[-1]} was committed", outcome, blockers)
        if self._attempt is None or (revision := self._attempt.revision) is None:
            return explain(exc, "The migration failed before its first revision", outcome, blockers)
        at_work = f"revision {revision.revision}"
        if fate == "unknown":
            return explain(
                exc,
                f"The connection was lost, and it is unknown whether {at_work} was committed",
                outcome,
                blockers,
            )
        became = (
            "failed, and what it did outside a transaction stays"
            if self._attempt.has_left_transaction
            else "failed and was rolled back"
        )
        return explain(exc, f"Revision {revision.revision} {became}", outcome, blockers)

    def refusal(self, exc: CommandError) -> RagSchemaError:
        """Return the error to show where an operation of a revision refuses what it is asked."""
        message, evidence = str(getattr(exc, "message", exc)), str(getattr(exc, "evidence", ""))
        revision = self._attempt and self._attempt.revision
        what = f"Revision {revision.revision}" if revision else "It"
        return RagSchemaError(
            f"{what} was stopped; {self.outcome()}. {message}",
            f"{getattr(exc, 'remedy', '')} Then run the same command again.",
            evidence,
        )

    def outcome(self, fate: Fate = "not committed") -> str:
        """Say what of the run is committed, and what is not."""
        steps = [step for step in self._planned or () if isinstance(step, RevisionStep)]
        left = [step.revision.revision for step in steps[len(self._done) :]]
        unknown = left[:1] if fate == "unknown" else []
        parts = {
            "committed in this run": [applied.revision for applied in self.applied],
            "not known": unknown,
            "not committed": left[len(unknown) :],
        }
        return "; ".join(
            f"{what}: {describe_ids(ids) or 'nothing'}"
            for what, ids in parts.items()
            if ids or what != "not known"
        )

    def note_change(self) -> None:
        """Remember that the revision at work has committed a change, which stays where the rest fails."""
        if self._attempt is not None:
            self._attempt.has_left_transaction = True

    @property
    def is_in_revision(self) -> bool:
        """Whether a revision's own code is running."""
        return self._attempt is not None and self._attempt.is_in_revision

    def _plan(self, steps: Iterable[Any], connection: sa.Connection | None) -> list[Any]:
        planned = [*self.due, *(PassingStep(step) if self.passes(step) else step for step in steps)]
        for step in planned:
            if _runs(step) and connection is not None:
                step.migration_fn = self._guarded(step, connection)
        return planned

    def passes(self, step: object) -> bool:
        """Whether a step is passed over: its revision's own code does not run."""
        if not isinstance(step, RevisionStep):
            return False
        if step.is_upgrade:
            return self.request.expand_only and contracts(step)
        return step.revision.revision in self.owed

    def _check(self, steps: list[Any], heads: Any, connection: sa.Connection, *, is_first: bool) -> None:
        """Refuse, before anything runs, what can be known to be wrong."""
        revisions = [step for step in steps if _runs(step)]
        if not isinstance(steps[0], RevisionStep) or self.schema is None:
            return
        if not heads:
            refuse_unmanaged(driver_of(connection), self.schema)
        if self.request.check is not None and is_first:
            self.request.check(connection, self.schema)
        if heads and is_first:
            guards.look_for_drift(connection, self.schema, heads[0], self.request.check_drift)
        refuse_data_loss(connection, list(chain.from_iterable(map(self._losses_of, revisions))))
        for step in revisions:
            guards.precheck(step, connection, is_first_look=True)

    def _losses_of(self, step: RevisionStep) -> Sequence[StepLoss]:
        return self.losses.get((step.revision.revision, direction_of(step)), ())

    def _guarded(self, step: RevisionStep, connection: sa.Connection) -> Callable[..., None]:
        """Wrap a step's function: what runs inside its transaction, before the revision, around it and after it."""
        migrate: Callable[..., None] = step.migration_fn

        def guarded(**arguments: Any) -> None:
            guards.precheck(step, connection)
            with self._in_revision():
                if self.request.allow_data_loss:
                    migrate(**arguments)
                else:
                    guard = LossGuard(connection, step.revision, str(self.schema), self._losses_of(step))
                    guard.keep(lambda: migrate(**arguments))
                guards.verify(step, connection)

        return guarded

    @contextmanager
    def _in_revision(self) -> Iterator[None]:
        """Note the commits of the block, which is a revision's own code, and raise what first went wrong in it."""
        attempt = self._attempt
        assert attempt is not None
        attempt.is_in_revision = True
        try:
            yield
        except PendingRollbackError as exc:
            raise first_cause(exc) from first_cause(exc).__cause__
        finally:
            attempt.is_in_revision = False

    def _finish(self, attempt: _Attempt) -> None:
        self._attempt = None
        self._done.append(_name(attempt))
        step = attempt.step
        if isinstance(step, RevisionStep) and not isinstance(step, OwedStep):
            self.moved = step
        if isinstance(step, PassingStep):
            log.info("%s %s", step.revision.revision, "is held back" if step.is_upgrade else "was never run")
        elif isinstance(step, RevisionStep):
            applied = Applied(
                step.revision.revision, step.revision.doc or "", direction_of(step), attempt.seconds
            )
            self.applied.append(applied)
            if self.request.report is not None:
                self.request.report(applied)


def _name(attempt: _Attempt) -> str:
    return f"revision {attempt.revision.revision}" if attempt.revision else "the stamp"


def _plain(statement: str) -> sa.TextClause:
    return sa.text(statement.replace(":", "\\:"))  # a colon is not the start of a parameter


def direction_of(step: RevisionStep) -> Direction:
    """Return which way a step goes."""
    return "upgrade" if step.is_upgrade else "downgrade"


def _runs(step: object) -> TypeGuard[RevisionStep]:
    """Whether a step runs a revision's own code."""
    return isinstance(step, RevisionStep) and not isinstance(step, PassingStep)
