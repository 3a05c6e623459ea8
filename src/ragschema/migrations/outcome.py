"""The outcome of a run that did not come to its end, in words: what failed, what is committed, what is not."""

from __future__ import annotations

from alembic.runtime.migration import RevisionStep
from alembic.util import CommandError

from ragschema.errors import RagSchemaError
from ragschema.migrations.attempt import Attempt
from ragschema.migrations.failure_report import explain
from ragschema.migrations.run import Run
from ragschema.migrations.settlement import Fate
from ragschema.migrations.watch import Blocker
from ragschema.revisions.manifest import describe_ids


def failure_of(
    run: Run, attempt: Attempt | None, exc: Exception, fate: Fate, blockers: list[Blocker]
) -> RagSchemaError:
    """Return the error to show: which revision failed, in which statement, what is committed, what to do.

    Args:
        run: The run.
        attempt: The step that did not come back; None where none was at work.
        exc: What was raised.
        fate: What became of that step: the run counts it where it was committed.
        blockers: The sessions that were last seen in the way.
    """
    outcome = outcome_of(run, fate)
    if attempt is not None and fate == "committed":
        return explain(exc, f"The run broke off after {attempt} was committed", outcome, blockers)
    if attempt is None or (revision := attempt.revision) is None:
        return explain(exc, "The migration failed before its first revision", outcome, blockers)
    if fate == "unknown":
        return explain(
            exc,
            f"The connection was lost, and it is unknown whether {attempt} was committed",
            outcome,
            blockers,
        )
    became = (
        "failed, and what it did outside a transaction stays"
        if attempt.has_left_transaction
        else "failed and was rolled back"
    )
    return explain(exc, f"Revision {revision.revision} {became}", outcome, blockers)


def refusal_of(run: Run, attempt: Attempt | None, exc: CommandError) -> RagSchemaError:
    """Return the error to show where an operation of a revision refuses what it is asked."""
    message, evidence = str(getattr(exc, "message", exc)), str(getattr(exc, "evidence", ""))
    revision = attempt and attempt.revision
    what = f"Revision {revision.revision}" if revision else "It"
    return RagSchemaError(
        f"{what} was stopped; {outcome_of(run)}. {message}",
        f"{getattr(exc, 'remedy', '')} Then run the same command again.",
        evidence,
    )


def outcome_of(run: Run, fate: Fate = "not committed") -> str:
    """Say what of a run is committed, and what is not."""
    left = [
        each.step.revision.revision
        for each in run.attempts or ()
        if not each.is_committed and isinstance(each.step, RevisionStep)
    ]
    unknown = left[:1] if fate == "unknown" else []
    parts = {
        "committed in this run": [applied.revision for applied in run.applied],
        "not known": unknown,
        "not committed": left[len(unknown) :],
    }
    return "; ".join(
        f"{what}: {describe_ids(ids) or 'nothing'}"
        for what, ids in parts.items()
        if ids or what != "not known"
    )
