"""Steps of revisions that are held back: passed over now, or owed since an earlier run.

A contract revision that ``--expand-only`` passes over moves the version table and runs nothing; the history says
``defer``. The next upgrade without it runs what is owed before anything else, oldest first: the database is then
one that was never held back, which is what the revisions after it, their prechecks and their downgrades were
written for. A fix does not wait for that: ``--expand-only`` brings it first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from alembic.runtime.migration import RevisionStep
from alembic.script import ScriptDirectory
from alembic.util import CommandError

from ragschema.revisions.manifest import deploy_label


class PassingStep(RevisionStep):
    """A revision that is passed over: held back on the way up, on the way down one that was never run."""

    def __init__(self, step: RevisionStep) -> None:
        super().__init__(step.revision_map, step.revision, step.is_upgrade)
        self.migration_fn = _run_nothing


class OwedStep(RevisionStep):
    """An owed revision, to be run in a transaction of its own; the version table is past it and stays there."""


def _run_nothing(**_: Any) -> None:
    return None


def contracts(step: RevisionStep) -> bool:
    """Whether a step is the upgrade of a contract revision."""
    return step.is_upgrade and deploy_label(step.revision.module.__doc__ or "") == "contract"


def owed_steps(script: ScriptDirectory, owed: Sequence[str], destination: str) -> list[OwedStep]:
    """Return the steps of the owed revisions that an upgrade to a destination runs, oldest first.

    Args:
        script: The revisions.
        owed: Those that the database owes, oldest first.
        destination: A revision, to leave out those after it; ``head``, or steps counted from where it is.
    """
    try:
        last = script.get_revision(destination)
    except CommandError:  # counted in steps, or unknown: then Alembic refuses it
        last = None
    known = [script.get_revision(each) for each in owed if last is None or each <= last.revision]
    return [OwedStep(script.revision_map, each, is_upgrade=True) for each in known if each is not None]
