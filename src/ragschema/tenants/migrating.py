"""Migration of all tenants of a database, or of many, each by the rules of `ragschema.migrations.upgrade`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, get_args

from ragschema.errors import UsageError
from ragschema.migrations.interruption import Terminated, interrupted_by_sigterm
from ragschema.migrations.request import CheckDrift
from ragschema.revisions.manifest import Manifest, ahead, describe_ids, read_manifest, unknown_revision
from ragschema.tenants.databases import DatabaseOfTenants, Found, find_all, reached
from ragschema.tenants.finding import Tenant
from ragschema.tenants.outcomes import Fate, FleetResult, Interruption, Progress, TenantOutcome, count_fates
from ragschema.tenants.owing import find_owing
from ragschema.tenants.tasks import INTERRUPTED, NOT_BEGUN, Clock, Task
from ragschema.values import check_choice, check_whole

if TYPE_CHECKING:
    from ragschema.tenants.workers import Work

log = logging.getLogger(__name__)

Order = Literal["name", "size"]


@dataclass(frozen=True)
class Rollout:
    """How to go about it.

    Attributes:
        workers: Processes for each server; one for each core here by default.
        canary: How many tenants go first: the rest begins if none of them fails.
        max_failures: After how many failures no further tenant begins; never by default.
        order: By name, or by size, the smallest first.
        visit: Whether to look at the tenants that are up to date too: are they whole?
        expand_only: Pass over contract revisions; they are owed until a run without it.
        allow_data_loss: Whether rows and column values may be destroyed.
        check_drift: What to do where a tenant is not what its revision says: ``fail``, ``warn`` or ``off``.
    """

    workers: int | None = None
    canary: int = 0
    max_failures: int | None = None
    order: Order = "name"
    visit: bool = False
    expand_only: bool = False
    allow_data_loss: bool = False
    check_drift: CheckDrift = "warn"

    def __post_init__(self) -> None:
        if self.workers is not None:
            check_whole("workers", self.workers, UsageError, lowest=1)
        check_whole("canary", self.canary, UsageError, lowest=0)
        if self.max_failures is not None:
            check_whole("max_failures", self.max_failures, UsageError, lowest=1)
        check_choice("order", self.order, get_args(Order), UsageError)
        check_choice("check_drift", self.check_drift, get_args(CheckDrift), UsageError)


def migrate_tenants(
    databases: Sequence[DatabaseOfTenants],
    revision: str = "head",
    rollout: Rollout = Rollout(),
    *,
    show: Callable[[Progress], None] | None = None,
) -> FleetResult:
    """Upgrade every tenant of some databases, in worker processes; the failure of one stops no other.

    Forks: call it where no other thread runs. In the main thread Ctrl-C and SIGTERM end the tenants at work as they
    end `ragschema.migrations.upgrade`, begin no other, and are told by ``interrupted_by``.

    Args:
        databases: The databases, or their URLs; their ``schema`` is not used.
        revision: Where to stop: a revision id, or ``head``.
        rollout: How to go about it.
        show: Called with every tenant that is done.

    Raises:
        UsageError: There is no such revision, or no database; or this process is a daemon of `multiprocessing`.
        ConfigurationError: This machine has no room for so many workers; nothing was changed.
    """
    manifest, clock = read_manifest(), Clock()
    target = manifest.head if revision in ("head", "heads") else revision
    if not isinstance(target, str) or target not in manifest.checksums:
        raise unknown_revision(revision)
    with reached(databases) as found_databases:
        found = find_all(found_databases, with_sizes=rollout.order == "size")
        fleet = _Fleet(found, manifest, target, rollout, clock, show)
        interrupted_by = fleet.run()
        interrupted_by = fleet.look_again() or interrupted_by
    outcomes = sorted(fleet.outcomes.values(), key=lambda each: (each.database, each.schema))
    return FleetResult(
        target,
        count_fates(outcomes),
        tuple(outcomes),
        tuple(each.failure for each in found if each.failure is not None),
        interrupted_by,
        clock.seconds,
    )


@dataclass
class _Fleet:
    """One migration of all tenants."""

    found: Sequence[Found]
    manifest: Manifest
    target: str
    rollout: Rollout
    clock: Clock
    show: Callable[[Progress], None] | None
    outcomes: dict[Task, TenantOutcome] = field(default_factory=dict, init=False)
    tenants: dict[Task, Tenant] = field(default_factory=dict, init=False)

    def run(self) -> Interruption | None:
        """Migrate what is to be migrated; return the signal that ended it early, if one did."""
        tasks = self._tasks()
        if not tasks:
            return None
        # not where there is nothing to do
        from ragschema.tenants.dispatching import AHEAD, Dispatch, default_workers

        limit, before = self.rollout.max_failures, self._count("failed")
        dispatch = Dispatch(
            [each.options for each in self.found],
            self._work(tasks),
            self._hear,
            self.rollout.workers or default_workers(),
        )
        with dispatch.started(tasks):
            canaries, rest = tasks[: self.rollout.canary], tasks[self.rollout.canary :]
            left = dispatch.run(
                canaries, lambda: self._goes_on() and self._count("failed") == before, ahead=1
            )
            has_failed = self._count("failed") > before
            if has_failed and (left or rest):
                log.warning("Canaries have failed: no other tenant begins.")
            if has_failed or left:
                left = [*left, *rest]
            else:
                left = dispatch.run(rest, self._goes_on, ahead=AHEAD if limit is None else 1)
        for task in left:
            self._set(task, "not started")
        return dispatch.interrupted_by

    def look_again(self) -> Interruption | None:
        """Read where those stand that did not come to their end: some of their revisions may be committed.

        Returns:
            The signal that ended this early, if one did; then it is not known.
        """
        ends: tuple[Fate, ...] = ("failed", "locked", "interrupted")
        tasks = [task for task, each in self.outcomes.items() if each.fate in ends]
        places = sorted({task.database for task in tasks})
        now: dict[Task, str | None] = {}
        interrupted_by: Interruption | None = None
        try:
            with interrupted_by_sigterm():
                again = find_all([self.found[place].options for place in places])
            now = {
                Task(place, each.schema): each.revision
                for place, found in zip(places, again, strict=True)
                for each in found.tenants
            }
        except KeyboardInterrupt as exc:
            interrupted_by = "SIGTERM" if isinstance(exc, Terminated) else "SIGINT"
        for task in tasks:
            self.outcomes[task] = replace(self.outcomes[task], revision=now.get(task))
        return interrupted_by

    def _tasks(self) -> list[Task]:
        """Return the tenants to work on, in their order, and set the outcomes of the others."""
        for place, found in enumerate(self.found):
            self.tenants |= {Task(place, each.schema): each for each in found.tenants}
        owing = set() if self.rollout.expand_only else self._find_owing()
        tasks = []
        for task, tenant in self.tenants.items():
            if tenant.standing == "unknown" and not tenant.is_locked:  # in its turn it may be free
                unknown = ahead(tenant.revision or "none")
                evidence = None if tenant.problem else unknown.remedy
                self._set(task, "failed", error=tenant.problem or unknown.message, evidence=evidence)
            elif (
                tenant.revision is None
                or tenant.revision < self.target
                or task in owing
                or self.rollout.visit
            ):
                tasks.append(task)
            else:
                self._set(task, "up to date")
        if self.rollout.order == "name":
            return sorted(tasks, key=lambda task: task.schema)
        sizes = {task: self.tenants[task].bytes for task in tasks}  # None, of which it is not known: the last
        return sorted(tasks, key=lambda task: (sizes[task] is None, sizes[task] or 0, task.schema))

    def _find_owing(self) -> set[Task]:
        return {
            Task(place, schema)
            for place, found in enumerate(self.found)
            for schema in find_owing(
                found.options,
                [each.schema for each in found.tenants if each.revision and each.revision >= self.target],
            )
        }

    def _work(self, tasks: Sequence[Task]) -> Work:
        """Load what each tenant needs, before the workers are forked, and return what is done with one."""
        from ragschema.tenants.upgrading import Upgrading

        rollout = self.rollout
        wanted = [self.tenants[task] for task in tasks]
        lowest = min(each.revision or "" for each in wanted)
        pending = [
            each
            for each in self.manifest.revisions
            if each.revision <= self.target and each.revision > lowest
        ]
        scripts = None
        if pending:
            from ragschema.migrations.loaded_scripts import LoadedScripts  # with Alembic

            scripts = LoadedScripts({each.revision for each in pending})
        contracts = [each.revision for each in pending if each.deploy == "contract"]
        seen = min((each.revision or "" for each in wanted if not each.is_locked), default=self.target)
        known = [each for each in contracts if each > seen]
        if known and not rollout.expand_only:
            log.info("Contract revisions are pending, %s: have a backup", describe_ids(known))
        return Upgrading(
            self.target,
            scripts,
            {task: self.tenants[task].revision for task in tasks if self._is_behind(task)},
            not (contracts and rollout.expand_only),
            rollout.expand_only,
            rollout.allow_data_loss,
            rollout.check_drift,
        )

    def _is_behind(self, task: Task) -> bool:
        revision = self.tenants[task].revision
        return revision is None or revision < self.target

    def _hear(self, task: Task, outcome: object) -> None:
        if outcome == INTERRUPTED:
            self._set(task, "interrupted")
        elif outcome == NOT_BEGUN:
            self._set(task, "not started")
        elif isinstance(outcome, TenantOutcome):
            self.outcomes[task] = outcome
        else:
            self._set(task, "failed", error="Its worker has died.", evidence="Run the same command again.")
        if self.show is not None:
            done, total = len(self.outcomes), len(self.tenants)
            remaining = self.clock.remaining(done, total)
            self.show(Progress(done, total, self._count("failed"), self._count("locked"), remaining))

    def _goes_on(self) -> bool:
        limit = self.rollout.max_failures
        return limit is None or self._count("failed") < limit

    def _count(self, fate: Fate) -> int:
        return sum(each.fate == fate for each in self.outcomes.values())

    def _set(self, task: Task, fate: Fate, *, error: str | None = None, evidence: str | None = None) -> None:
        database = self.found[task.database].name
        revision = self.tenants[task].revision
        self.outcomes[task] = TenantOutcome(
            database, task.schema, fate, revision, error=error, evidence=evidence
        )
