"""Steps of the queue: jobs enqueued, claimed, completed, failed, given back, cancelled, retried, pruned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from uuid import UUID

import sqlalchemy as sa
from hypothesis import strategies as st

from model_of_steps import Model
from ragschema import jobs
from ragschema.jobs import ClaimedJob
from ragschema.models import JobStatus
from random_steps import ARTICLES, Step, World, numbers, pick

TYPES = ("read", "embed")
ATTEMPTS = 2


@dataclass(frozen=True)
class Job:
    """A job; among those of a type the one of the least priority and turn is claimed first."""

    job_type: str
    key: str | None
    priority: int
    turn: int
    status: str = "new"
    attempts: int = 0
    before: int = 0
    again: bool = False

    @property
    def is_unfinished(self) -> bool:
        return self.status in ("new", "processing")


@dataclass
class Jobs:
    """The jobs there are, and what workers hold, or believe to hold."""

    jobs: dict[UUID, Job] = field(default_factory=dict)
    claims: list[ClaimedJob] = field(default_factory=list)
    turns: int = 0

    def copy(self) -> Jobs:
        return Jobs(dict(self.jobs), [*self.claims], self.turns)

    def turn(self) -> int:
        self.turns += 1
        return self.turns

    def forget(self, ids: Mapping[str, UUID | None], *, is_erased: bool) -> None:
        """Delete the jobs about erased documents, but those that a worker is running."""
        if is_erased:
            for id_ in [
                id_ for id_, job in self.jobs.items() if job.key in ids and job.status != "processing"
            ]:
                del self.jobs[id_]

    def held(self, claim: ClaimedJob) -> Job | None:
        """Return the job of a claim that still holds."""
        job = self.jobs.get(claim.id)
        return job if job and job.status == "processing" and job.attempts == claim.attempt else None

    def check(self, connection: sa.Connection, model: Model) -> None:
        found = {row.id: row[1:] for row in connection.execute(_READ, {"types": [*TYPES]})}
        assert found == {
            id_: (
                job.job_type,
                job.key,
                job.priority,
                job.status,
                job.attempts,
                job.before,
                job.again,
            )
            for id_, job in self.jobs.items()
        }


def _of(world: World) -> Jobs:
    found = world.model.families["jobs"]
    assert isinstance(found, Jobs)
    return found


@dataclass(frozen=True)
class Enqueue(Step):
    """A job is enqueued; of an unfinished one of its key it takes the place, or is done after it."""

    job_type: str
    key: str | None
    priority: int

    weight = 10

    @classmethod
    def drawn(cls) -> st.SearchStrategy[Enqueue]:
        return st.builds(cls, st.sampled_from(TYPES), st.sampled_from([None, *ARTICLES]), st.integers(0, 1))

    def run(self, world: World) -> None:
        kept = _of(world)
        id_ = jobs.enqueue(
            world.connection,
            self.job_type,
            {},
            priority=self.priority,
            max_attempts=ATTEMPTS,
            dedupe_key=self.key,
        )
        same = [
            each
            for each, job in kept.jobs.items()
            if self.key is not None
            and (job.job_type, job.key) == (self.job_type, self.key)
            and job.is_unfinished
        ]
        if not same:
            assert id_ not in kept.jobs
            kept.jobs[id_] = Job(self.job_type, self.key, self.priority, kept.turn())
        else:
            assert same == [id_]
            job = replace(kept.jobs[id_], priority=self.priority)
            if job.status == "new":
                kept.jobs[id_] = replace(job, before=job.attempts)
            else:
                kept.jobs[id_] = replace(job, again=True, turn=kept.turn())
        world.did(self)


@dataclass(frozen=True)
class Claim(Step):
    """A worker claims jobs of a type: those that are first in turn."""

    job_type: str
    limit: int

    weight = 10

    @classmethod
    def drawn(cls) -> st.SearchStrategy[Claim]:
        return st.builds(cls, st.sampled_from(TYPES), st.integers(1, 3))

    def run(self, world: World) -> None:
        kept = _of(world)
        waiting = sorted(
            (job.priority, job.turn, id_)
            for id_, job in kept.jobs.items()
            if job.job_type == self.job_type and job.status == "new"
        )
        claimed = jobs.claim(world.connection, "a worker", [self.job_type], limit=self.limit)
        assert [each.id for each in claimed] == [id_ for _, _, id_ in waiting[: self.limit]]
        for each in claimed:
            job = kept.jobs[each.id]
            assert each.attempt == job.attempts + 1
            kept.jobs[each.id] = replace(job, status="processing", attempts=each.attempt)
        kept.claims += claimed
        world.did(self)


@dataclass(frozen=True)
class EndJob(Step):
    """A worker completes a job, fails it or gives it back: nothing happens where the claim holds no more."""

    claim: int
    how: str

    weight = 14

    @classmethod
    def drawn(cls) -> st.SearchStrategy[EndJob]:
        return st.builds(
            cls,
            numbers,
            st.sampled_from(["complete", "complete", "fail", "fail", "fail for good", "give back"]),
        )

    def needs(self, world: World) -> Step | None:
        kept = _of(world)
        if kept.claims:
            return None
        waiting = [job.job_type for job in kept.jobs.values() if job.status == "new"]
        return Claim(waiting[0], 2) if waiting else Enqueue(TYPES[0], None, 0)

    def run(self, world: World) -> None:
        kept = _of(world)
        claim = pick(kept.claims[-8:], self.claim)
        if claim is None:
            return
        job = kept.held(claim)
        after = job and self._after(kept, job)
        if self.how == "complete":
            assert jobs.complete(world.connection, claim) == (after is not None)
        elif self.how == "give back":
            assert jobs.give_back(world.connection, claim) == (after is not None)
        else:
            status = jobs.fail(
                world.connection,
                claim,
                "it failed",
                retry_in=timedelta(0),
                permanent=self.how == "fail for good",
            )
            assert status == (after and JobStatus(after.status))
        if after is None:
            world.did(self, is_refused=True)
        else:
            kept.jobs[claim.id] = after
            world.did(self)

    def _after(self, kept: Jobs, job: Job) -> Job:
        if job.again:
            return replace(job, status="new", before=job.attempts, again=False)
        if self.how == "complete":
            return replace(job, status="completed")
        if self.how == "give back":
            return replace(job, status="new", before=job.before + 1)
        if self.how == "fail" and job.attempts - job.before < ATTEMPTS:
            return replace(job, status="new", turn=kept.turn())
        return replace(job, status="failed")


@dataclass(frozen=True)
class Administer(Step):
    """A job is cancelled, or retried, by whoever looks after the queue."""

    job: int
    is_retried: bool

    weight = 6

    @classmethod
    def drawn(cls) -> st.SearchStrategy[Administer]:
        return st.builds(cls, numbers, st.booleans())

    def run(self, world: World) -> None:
        kept = _of(world)
        found = pick([*kept.jobs], self.job)
        if found is None:
            return
        job = kept.jobs[found]
        if not self.is_retried:
            assert jobs.cancel(world.connection, found) == job.is_unfinished
            if job.is_unfinished:
                kept.jobs[found] = replace(job, status="failed", again=False)
            world.did(self)
            return
        is_taken = job.key is not None and any(
            (each.job_type, each.key) == (job.job_type, job.key) and each.is_unfinished
            for each in kept.jobs.values()
        )
        is_retried = job.status == "failed" and not is_taken
        assert jobs.retry(world.connection, found) == is_retried
        if is_retried:
            kept.jobs[found] = replace(job, status="new", before=job.attempts, turn=kept.turn())
        world.did(self)


@dataclass(frozen=True)
class PruneJobs(Step):
    """Finished jobs are deleted."""

    status: JobStatus | None

    weight = 4

    @classmethod
    def drawn(cls) -> st.SearchStrategy[PruneJobs]:
        return st.builds(cls, st.sampled_from([None, JobStatus.completed, JobStatus.failed]))

    def run(self, world: World) -> None:
        kept = _of(world)
        gone = [
            id_
            for id_, job in kept.jobs.items()
            if not job.is_unfinished and self.status in (None, job.status)
        ]
        others = world.connection.scalar(_COUNT_OTHERS, {"types": [*TYPES], "status": self.status})
        assert jobs.prune(world.connection, timedelta(0), status=self.status) == len(gone) + (others or 0)
        for id_ in gone:
            del kept.jobs[id_]
        world.did(self)


STEPS: tuple[type[Step], ...] = (Enqueue, Claim, EndJob, Administer, PruneJobs)

_READ = sa.text(
    "SELECT id, job_type, dedupe_key, priority, CAST(status AS text), attempts, attempts_before, enqueued_again"
    " FROM rag_jobs WHERE job_type = ANY(CAST(:types AS text[]))"
)
_COUNT_OTHERS = sa.text(
    "SELECT count(*) FROM rag_jobs WHERE job_type <> ALL(CAST(:types AS text[])) AND finished_at IS NOT NULL"
    " AND (CAST(:status AS text) IS NULL OR CAST(status AS text) = :status)"
)
