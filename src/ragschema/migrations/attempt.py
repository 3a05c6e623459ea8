"""An attempt at one of Alembic's steps: when it began, what its revision has left, and whether it is committed."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from alembic.runtime.migration import RevisionStep
from alembic.script import Script, ScriptDirectory

from ragschema.migrations.held_back import OwedStep, PassingStep
from ragschema.migrations.replay import is_replayable
from ragschema.migrations.request import Recording
from ragschema.revisions.manifest import Direction
from ragschema.revisions.scripts import script_checksum


@dataclass
class Attempt:
    """A step of a run; tried again after a lock conflict, it is the same attempt.

    Attributes:
        step: Alembic's step: of a revision, or a stamp.
        started: When its last try began, by the monotonic clock, in seconds; None before the first.
        is_in_revision: Whether the revision's own code is running.
        has_left_transaction: Whether that code has committed a change, which stays when the rest fails.
        is_committed: Whether the step is done.
        statements: What its code has run; None where that is not known, or not to be run again as it was.
    """

    step: Any
    started: float | None = None
    is_in_revision: bool = False
    has_left_transaction: bool = False
    is_committed: bool = False
    statements: Sequence[str] | None = None

    @property
    def revision(self) -> Script | None:
        """The revision; None of a stamp."""
        return self.step.revision if isinstance(self.step, RevisionStep) else None

    @property
    def is_at_work(self) -> bool:
        """Whether it has begun, and is not committed."""
        return self.started is not None and not self.is_committed

    @property
    def moves(self) -> bool:
        """Whether it moves the version table from one revision to another."""
        return isinstance(self.step, RevisionStep) and not isinstance(self.step, OwedStep)

    @property
    def seconds(self) -> float:
        """How long the last try has taken so far."""
        return 0.0 if self.started is None else time.monotonic() - self.started

    def __str__(self) -> str:
        return f"revision {self.revision.revision}" if self.revision else "the stamp"

    def begin(self) -> None:
        """Note that a try begins."""
        self.started = time.monotonic()

    def is_done(self, heads: Collection[str], owed: Collection[str], script: ScriptDirectory) -> bool:
        """Whether the step is committed, by what the version table and the history say now.

        Another deployer may have gone on from there, with a newer package even.
        """
        step = self.step
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


def direction_of(step: RevisionStep) -> Direction:
    """Return which way a step goes."""
    return "upgrade" if step.is_upgrade else "downgrade"


def runs(step: object) -> TypeGuard[RevisionStep]:
    """Whether a step runs a revision's own code."""
    return isinstance(step, RevisionStep) and not isinstance(step, PassingStep)


def recording_of(attempt: Attempt) -> Recording | None:
    """Return what a revision has run, if it is to be run on other schemas as it was; else None."""
    step, statements = attempt.step, attempt.statements
    if not isinstance(step, RevisionStep) or isinstance(step, OwedStep) or not step.is_upgrade:
        return None
    script = step.revision
    if not statements or not isinstance(script.down_revision, str) or not all(map(is_replayable, statements)):
        return None
    if any(hasattr(script.module, name) for name in ("precheck", "verify")):
        return None
    return Recording(
        script.revision, script.down_revision, script.doc or "", script_checksum(script), tuple(statements)
    )
