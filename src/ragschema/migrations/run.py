"""One run of Alembic's steps: what each must pass before, and what is written of it after."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, cast

import sqlalchemy as sa
from alembic.runtime.migration import MigrationContext, MigrationInfo, RevisionStep
from alembic.script import Script
from sqlalchemy.exc import PendingRollbackError

from ragschema.database.drivers import as_written, driver_of
from ragschema.database.sqlstates import first_cause
from ragschema.migrations import guards
from ragschema.migrations.attempt import Attempt, direction_of, recording_of, runs
from ragschema.migrations.held_back import OwedStep, PassingStep, contracts
from ragschema.migrations.loss_guard import LossGuard, refuse_data_loss
from ragschema.migrations.request import Applied, Request
from ragschema.planning.losses import StepLoss
from ragschema.revisions.manifest import Direction
from ragschema.revisions.scripts import script_checksum
from ragschema.state import attempts
from ragschema.state.cluster import refuse_way_back
from ragschema.state.status import refuse_unmanaged

log = logging.getLogger(__name__)


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
        attempts: The steps, one after the other; None before they are planned.
    """

    request: Request
    schema: str | None = None
    losses: Mapping[tuple[str, Direction], Sequence[StepLoss]] = field(default_factory=dict)
    due: Sequence[OwedStep] = ()
    owed: Sequence[str] = ()
    settled: Sequence[str] = ()
    applied: list[Applied] = field(default_factory=list, init=False)
    attempts: list[Attempt] | None = field(default=None, init=False)

    @property
    def at_work(self) -> Attempt | None:
        """The step at work; None between two steps."""
        return next((each for each in self.attempts or () if each.is_at_work), None)

    @property
    def is_complete(self) -> bool:
        """Whether every step that was planned is committed."""
        return self.attempts is not None and all(each.is_committed for each in self.attempts)

    @property
    def moved(self) -> RevisionStep | None:
        """The last committed step that has moved the version table."""
        committed = [each.step for each in self.attempts or () if each.is_committed and each.moves]
        return committed[-1] if committed else None

    def steps(self, find_steps: Callable[..., Iterable[Any]]) -> Callable[..., Iterator[Any]]:
        """Wrap Alembic's function of steps: check them all before the first, then each in its turn.

        Alembic calls it again for a retry, which goes on after the steps that are committed.
        """

        def checked(heads: Any, context: MigrationContext) -> Iterator[Any]:
            guards.check_heads(heads, context)
            connection = None if context.as_sql else context.connection
            if self.attempts is None:  # tried again, "+2" would count from where it has come to
                self.attempts = self._plan(find_steps(heads, context), connection)
            left = [each for each in self.attempts if not each.is_committed]
            if left and connection is not None:
                is_first = all(each.started is None for each in self.attempts)
                self._check([each.step for each in left], heads, connection, is_first=is_first)
            if left:
                context.execute(as_written(attempts.create_table(self.schema)))
            self._write_settled(context)
            for attempt in left:
                attempt.begin()
                if isinstance(attempt.step, OwedStep):
                    self._run_owed(attempt.step, context)
                else:
                    yield attempt.step
                self.finish(attempt)

        return checked

    def record(self, *, ctx: MigrationContext, step: MigrationInfo, **_: Any) -> None:
        """Write the history of a step, in its own transaction: Alembic calls this before it commits."""
        if step.up_revision is None:
            return
        attempt = self.at_work
        entry = attempts.attempt(
            step.up_revision.revision,
            _direction(step, attempt),
            seconds=0.0 if ctx.as_sql or attempt is None else attempt.seconds,
            checksum=script_checksum(cast(Script, step.up_revision)),
        )
        ctx.execute(as_written(attempts.insert(self.schema, entry)))

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
                context.execute(as_written(attempts.insert(self.schema, settled)))
        self.settled = ()

    def _plan(self, steps: Iterable[Any], connection: sa.Connection | None) -> list[Attempt]:
        planned = [*self.due, *(PassingStep(step) if self.passes(step) else step for step in steps)]
        made = [Attempt(step) for step in planned]
        for attempt in made:
            if runs(attempt.step) and connection is not None:
                attempt.step.migration_fn = self._guarded(attempt, attempt.step, connection)
        return made

    def passes(self, step: object) -> bool:
        """Whether a step is passed over: its revision's own code does not run."""
        if not isinstance(step, RevisionStep):
            return False
        if step.is_upgrade:
            return self.request.expand_only and contracts(step)
        return step.revision.revision in self.owed

    def _check(self, steps: list[Any], heads: Any, connection: sa.Connection, *, is_first: bool) -> None:
        """Refuse, before anything runs, what can be known to be wrong."""
        revisions = [step for step in steps if runs(step)]
        if not isinstance(steps[0], RevisionStep) or self.schema is None:
            return
        if not heads:
            refuse_unmanaged(driver_of(connection), self.schema)
        down = [step.revision.revision for step in revisions if not step.is_upgrade]
        refuse_way_back(driver_of(connection), self.schema, down)
        if self.request.check is not None and is_first:
            self.request.check(connection, self.schema)
        if heads and is_first:
            guards.look_for_drift(connection, self.schema, heads[0], self.request.check_drift, self.owed)
        refuse_data_loss(connection, list(chain.from_iterable(map(self._losses_of, revisions))))
        for step in revisions:
            guards.precheck(step, connection, is_first_look=True)

    def _losses_of(self, step: RevisionStep) -> Sequence[StepLoss]:
        return self.losses.get((step.revision.revision, direction_of(step)), ())

    def _guarded(
        self, attempt: Attempt, step: RevisionStep, connection: sa.Connection
    ) -> Callable[..., None]:
        """Wrap a step's function: what runs inside its transaction, before the revision, around it and after it."""
        migrate: Callable[..., None] = step.migration_fn

        def guarded(**arguments: Any) -> None:
            guards.precheck(step, connection)
            with _in_revision(attempt):
                if self.request.allow_data_loss:
                    migrate(**arguments)
                else:
                    guard = LossGuard(connection, step.revision, str(self.schema), self._losses_of(step))
                    guard.keep(lambda: migrate(**arguments))
                    attempt.statements = guard.ran.statements
                guards.verify(step, connection)

        return guarded

    def finish(self, attempt: Attempt) -> None:
        """Count a step as applied: the database has committed it."""
        attempt.is_committed = True
        step = attempt.step
        if isinstance(step, PassingStep):
            log.info("%s %s", step.revision.revision, "is held back" if step.is_upgrade else "was never run")
        elif isinstance(step, RevisionStep):
            applied = Applied(
                step.revision.revision, step.revision.doc or "", direction_of(step), attempt.seconds
            )
            self.applied.append(applied)
            if self.request.report is not None:
                self.request.report(applied)
            if self.request.record is not None and (recording := recording_of(attempt)) is not None:
                self.request.record(recording)


def _direction(step: MigrationInfo, attempt: Attempt | None) -> str:
    if attempt is not None and isinstance(attempt.step, PassingStep):
        return "defer" if step.is_upgrade else "settle"
    return "stamp" if step.is_stamp else "upgrade" if step.is_upgrade else "downgrade"


@contextmanager
def _in_revision(attempt: Attempt) -> Iterator[None]:
    """Note that the block is the revision's own code, and raise what first went wrong in it."""
    attempt.is_in_revision = True
    try:
        yield
    except PendingRollbackError as exc:
        raise first_cause(exc) from first_cause(exc).__cause__
    finally:
        attempt.is_in_revision = False
