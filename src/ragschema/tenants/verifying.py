"""Verification of all tenants: each compared with what its revision says, and those that differ alike together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from operator import itemgetter

import psycopg

from ragschema.database.connections import opened_database
from ragschema.database.secrets import without_secrets
from ragschema.errors import RagSchemaError, UsageError
from ragschema.migrations.inspection import verify
from ragschema.migrations.preparation import has_version_table
from ragschema.revisions.manifest import RevisionId
from ragschema.state.comparison import Drift
from ragschema.state.survey import drift_of, survey
from ragschema.tenants.databases import DatabaseOfTenants, find_all, reached
from ragschema.tenants.dispatching import Dispatch, default_workers
from ragschema.tenants.lending import Lender
from ragschema.tenants.outcomes import DatabaseFailure, Interruption, Progress
from ragschema.tenants.tasks import Clock, Task
from ragschema.values import check_whole


@dataclass(frozen=True)
class DriftGroup:
    """Tenants that differ in the same way from what their revisions say.

    Attributes:
        count: How many.
        differences: What differs, in the same words in each; empty: they are as their revisions say.
        tenants: Each, with its database.
    """

    count: int
    differences: tuple[str, ...]
    tenants: tuple[str, ...]


@dataclass(frozen=True)
class UnverifiedTenant:
    """A tenant that could not be compared.

    Attributes:
        database: Its database, without a password.
        schema: The tenant.
        error: Why not.
    """

    database: str
    schema: str
    error: str


@dataclass(frozen=True)
class FleetDrift:
    """What came of comparing all tenants.

    Attributes:
        revisions: How many tenants are at each revision.
        groups: The tenants by what differs, the most numerous first.
        unverified: Those that could not be compared.
        databases: The databases that could not be looked at.
        interrupted_by: The signal that ended it early, if one did.
        seconds: How long it took.
    """

    revisions: Mapping[RevisionId, int]
    groups: tuple[DriftGroup, ...]
    unverified: tuple[UnverifiedTenant, ...]
    databases: tuple[DatabaseFailure, ...]
    interrupted_by: Interruption | None
    seconds: float

    @property
    def drifted(self) -> int:
        """How many tenants are not what their revisions say."""
        return sum(each.count for each in self.groups if each.differences)


@dataclass(frozen=True)
class _Compared:
    revision: str
    differences: tuple[str, ...]


_GONE = True
"""The answer of a tenant that somebody has dropped meanwhile: it is left out, as where tenants are found."""


def verify_tenants(
    databases: Sequence[DatabaseOfTenants],
    *,
    workers: int | None = None,
    show: Callable[[Progress], None] | None = None,
) -> FleetDrift:
    """Compare every tenant of some databases with what its revision says, in worker processes; reads only.

    Forks: call it where no other thread runs. A tenant that is dropped meanwhile is left out.

    Args:
        databases: The databases, or their URLs; their ``schema`` is not used.
        workers: Processes for each server; one for each core here by default.
        show: Called with every tenant that is done.

    Raises:
        UsageError: There is no database, or no worker; or this process is a daemon of `multiprocessing`.
        ConfigurationError: This machine has no room for so many workers.
    """
    if workers is not None:
        check_whole("workers", workers, UsageError, lowest=1)
    clock, answers = Clock(), dict[Task, object]()
    with reached(databases) as reachable:
        found = find_all(reachable)
        tenants = {Task(place, each.schema): each for place, one in enumerate(found) for each in one.tenants}
        tasks = [*tenants]
        answers |= {
            task: each.problem for task, each in tenants.items() if each.problem and not each.is_locked
        }
        comparable = [task for task in tasks if task not in answers]

        def hear(task: Task, answer: object) -> None:
            answers[task] = answer
            if show is not None:
                failed = sum(
                    each is not _GONE and not isinstance(each, _Compared) for each in answers.values()
                )
                done, total = len(answers), len(tasks)
                show(Progress(done, total, failed, 0, clock.remaining(done, total)))

        dispatch = Dispatch([each.options for each in found], _compare, hear, workers or default_workers())
        with dispatch.started(comparable):
            left = dispatch.run(comparable, lambda: True)
    answers |= dict.fromkeys(left, "It was not begun.")
    compared = {task: each for task, each in answers.items() if isinstance(each, _Compared)}
    revisions: dict[str, int] = {}
    for each in compared.values():
        revisions[each.revision] = revisions.get(each.revision, 0) + 1
    return FleetDrift(
        dict(sorted(revisions.items())),
        _group([(f"{task.schema} in {found[task.database].name}", each) for task, each in compared.items()]),
        tuple(
            UnverifiedTenant(found[task.database].name, task.schema, _error_of(answers[task]))
            for task in tasks
            if task not in compared and answers[task] is not _GONE
        ),
        tuple(each.failure for each in found if each.failure is not None),
        dispatch.interrupted_by,
        clock.seconds,
    )


def _compare(lender: Lender, task: Task) -> _Compared | str | bool:
    """Compare one tenant; a text says why that cannot be done."""
    try:
        drift = _compare_in_passing(lender, task.schema) or verify(lender.options_of(task.schema))
    except RagSchemaError as exc:
        return _GONE if _is_gone(lender, task.schema) else without_secrets(str(exc))
    return _Compared(drift.revision, tuple(drift.lines()))


def _compare_in_passing(lender: Lender, schema: str) -> Drift | None:
    """Compare a tenant in one round trip; None where somebody has to look closer."""
    with suppress(psycopg.Error), lender.lent_in_passing(schema) as connection:
        if connection is None or (seen := survey(connection, schema)) is None or not seen.imprint.is_ordinary:
            return None
        return drift_of(connection, seen)
    return None


def _is_gone(lender: Lender, schema: str) -> bool:
    with suppress(RagSchemaError), opened_database(lender.options_of(schema)) as (connection, _):
        return not has_version_table(connection, schema)
    return False


def _group(compared: Sequence[tuple[str, _Compared]]) -> tuple[DriftGroup, ...]:
    alike: dict[tuple[str, ...], list[str]] = {}
    for name, each in sorted(compared, key=itemgetter(0)):
        alike.setdefault(each.differences, []).append(name)
    groups = [DriftGroup(len(names), differences, tuple(names)) for differences, names in alike.items()]
    return tuple(sorted(groups, key=lambda group: (-group.count, group.differences)))


def _error_of(answer: object) -> str:
    return answer if isinstance(answer, str) else "Its worker has died."
