"""The queue: typed functions over the schema's own ``rag_jobs_*``; `ragschema.jobs.worker` does the jobs.

Each function runs one statement in the caller's transaction and commits nothing: what is rolled back
never happened. It takes a Session or a Connection; async code hands it to ``run_sync`` of an AsyncSession or
an AsyncConnection, which runs the same statement::

    job_id = await session.run_sync(jobs.enqueue, "embed", {"article_id": "noises"})

A job is claimed for a lease. The worker whose lease ran out is told False, or None, when it comes too late:
another may have the job by then. The clock is the database's.
"""

from __future__ import annotations

import traceback
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import text

from ragschema.jobs.isolation import begin_read_committed
from ragschema.jobs.payloads import write_json
from ragschema.jobs.records import (
    ClaimedJob,
    JobError,
    NewJob,
    PermanentFailure,
    TypeStats,
    check_claimed,
    check_duration,
    check_id,
    check_integer,
)
from ragschema.json_text import Default
from ragschema.models import JobStatus
from ragschema.schema.base import Executor
from ragschema.values import check_choice, check_text, several

LEASE = timedelta(minutes=5)

_ENQUEUE = text(
    "SELECT rag_jobs_enqueue_many("
    " CAST(:job_types AS text[]), CAST(CAST(:payloads AS text[]) AS jsonb[]), CAST(:priorities AS integer[]),"
    " CAST(:run_ats AS timestamptz[]), CAST(:max_attempts AS integer[]), CAST(:dedupe_keys AS text[]), :notify)"
)
_ENQUEUE_ONE = text(
    "SELECT rag_jobs_enqueue(:job_type, CAST(CAST(:payload AS text) AS jsonb), CAST(:priority AS integer),"
    " CAST(:run_at AS timestamptz), CAST(:max_attempts AS integer), NULL, :notify)"
)
_CLAIM = text(
    "SELECT id, job_type, attempts AS attempt, max_attempts - attempts + attempts_before AS attempts_left,"
    " CAST(payload AS text) AS payload_json, CAST(progress AS text) AS progress_json"
    " FROM rag_jobs_claim(:worker, CAST(:job_types AS text[]), :max_jobs, :lease)"
)
_HEARTBEAT = text("SELECT rag_jobs_heartbeat(:id, :attempt, :lease, CAST(:progress AS jsonb))")
_COMPLETE = text("SELECT rag_jobs_complete_many(CAST(:ids AS uuid[]), CAST(:attempts AS integer[]))")
# Its enum through text, here and below: a prepared statement keeps the type that one schema has.
_FAIL = text(
    "SELECT CAST(rag_jobs_fail(:id, :attempt, :error, CAST(:retry_in AS interval), :permanent) AS text)"
)
_GIVE_BACK = text("SELECT rag_jobs_give_back(:id, :attempt)")
_RETRY = text("SELECT rag_jobs_retry(:id)")
_CANCEL = text("SELECT rag_jobs_cancel(:id, :reason)")
_PRUNE = text(
    "SELECT rag_jobs_prune(:older_than, :batch, :dry_run, CAST(CAST(:status AS text) AS job_status))"
)
_STATS = text("SELECT * FROM rag_jobs_stats()")


def enqueue(
    session: Executor,
    job_type: str,
    payload: Mapping[str, Any],
    *,
    priority: int = 0,
    run_at: datetime | None = None,
    max_attempts: int | None = None,
    dedupe_key: str | None = None,
    notify: bool = True,
    default: Default | None = None,
) -> UUID:
    """Enqueue a job, see `NewJob`; return its id, or that of the unfinished one with its key.

    ``notify`` and ``default`` are those of `enqueue_many`.

    Raises:
        JobError: The payload is not JSON that PostgreSQL stores.
    """
    job = NewJob(
        job_type=job_type,
        payload=payload,
        priority=priority,
        run_at=run_at,
        max_attempts=max_attempts,
        dedupe_key=dedupe_key,
    )
    return enqueue_many(session, [job], notify=notify, default=default)[0]


def enqueue_many(
    session: Executor, jobs: Iterable[NewJob], *, notify: bool = True, default: Default | None = None
) -> list[UUID]:
    """Enqueue jobs in one statement; return their ids in order.

    Args:
        session: In whose transaction.
        jobs: The jobs; of those with the same type and key the last counts.
        notify: Whether to wake workers at the commit, once for each type. A NOTIFY takes a lock that all
            committing transactions of the server share: turn it off where many small ones enqueue.
        default: As that of ``json.dumps``: makes JSON of a value that is none. ``default=str`` does for UUIDs,
            datetimes and Decimals.

    Raises:
        JobError: A payload is not JSON that PostgreSQL stores, or two of its keys are alike in JSON.
    """
    given = several("jobs", jobs, JobError, each=NewJob, is_ordered=True)
    written = [write_json(job.payload, f"The payload of a job {job.job_type!r}", default) for job in given]
    return enqueue_written(session, list(zip(given, written, strict=True)), notify=bool(notify))


def enqueue_written(session: Executor, jobs: list[tuple[NewJob, str]], *, notify: bool) -> list[UUID]:
    """Enqueue jobs, each with its payload as JSON; return their ids in order."""
    if len(jobs) == 1 and jobs[0][0].dedupe_key is None:
        return [_enqueue_one(session, *jobs[0], notify=notify)]
    parameters = {
        "job_types": [job.job_type for job, _ in jobs],
        "payloads": [payload for _, payload in jobs],
        "priorities": [job.priority for job, _ in jobs],
        "run_ats": [job.run_at for job, _ in jobs],
        "max_attempts": [job.max_attempts for job, _ in jobs],
        "dedupe_keys": [job.dedupe_key for job, _ in jobs],
        "notify": notify,
    }
    return list(session.execute(_ENQUEUE, parameters).scalars()) if jobs else []


def _enqueue_one(session: Executor, job: NewJob, payload: str, *, notify: bool) -> UUID:
    """Enqueue a job that has no key: by the function of one, whose INSERT is the simplest there is."""
    parameters = {
        "job_type": job.job_type,
        "payload": payload,
        "priority": job.priority,
        "run_at": job.run_at,
        "max_attempts": job.max_attempts,
        "notify": notify,
    }
    found: UUID = session.execute(_ENQUEUE_ONE, parameters).scalar_one()
    return found


def claim(
    session: Executor,
    worker: str,
    job_types: Collection[str] | None = None,
    *,
    limit: int = 1,
    lease: timedelta = LEASE,
) -> list[ClaimedJob]:
    """Claim due jobs, those of workers whose lease ran out among them; commit at once, then do them.

    Args:
        session: In READ COMMITTED; a transaction that begins with the claim is, whatever the default is.
        worker: Who claims, for those who look.
        job_types: Of these types; None means any.
        limit: Jobs to claim at most.
        lease: For how long; heartbeats prolong it.
    """
    check_text("worker", worker, JobError)
    check_integer("limit", limit, 1)
    check_duration("lease", lease)
    types = None if job_types is None else several("job_types", job_types, JobError, each=str)
    parameters = {"worker": worker, "job_types": types, "max_jobs": limit, "lease": lease}
    begin_read_committed(session)
    return [ClaimedJob(lease=lease, **row) for row in session.execute(_CLAIM, parameters).mappings()]


def heartbeat(
    session: Executor,
    job: ClaimedJob,
    *,
    progress: Any = None,
    lease: timedelta | None = None,
    default: Default | None = None,
) -> bool:
    """Prolong a job's lease; False: stop, because it is another's, cancelled or finished.

    Args:
        session: In whose transaction: with what the progress speaks of.
        job: The job.
        progress: JSON from which the next attempt can go on; None keeps what was there.
        lease: For how long from now; as long as it was claimed for by default.
        default: As in `enqueue_many`, of the progress.

    Raises:
        JobError: The progress is not JSON that PostgreSQL stores.
    """
    check_claimed(job)
    if lease is not None:
        check_duration("lease", lease)
    written = None if progress is None else write_json(progress, f"The progress of job {job.id}", default)
    parameters = {"id": job.id, "attempt": job.attempt, "lease": lease or job.lease, "progress": written}
    return bool(session.execute(_HEARTBEAT, parameters).scalar_one())


def complete(session: Executor, job: ClaimedJob) -> bool:
    """Complete a job; False: it is not this worker's any more, so what was done for it is to be rolled back."""
    return complete_many(session, [job]) == [job.id]


def complete_many(session: Executor, jobs: Collection[ClaimedJob]) -> list[UUID]:
    """Complete jobs in one statement; return the ids of those that were still this worker's."""
    given = several("jobs", jobs, JobError, each=ClaimedJob)
    parameters = {"ids": [job.id for job in given], "attempts": [job.attempt for job in given]}
    return list(session.execute(_COMPLETE, parameters).scalars())


def fail(
    session: Executor,
    job: ClaimedJob,
    error: str | BaseException,
    *,
    retry_in: timedelta | None = None,
    permanent: bool = False,
) -> JobStatus | None:
    """Fail an attempt: ``new`` means that the job is tried again, None that it is not this worker's any more.

    Args:
        session: Not the one whose transaction the failure has ended.
        job: The job.
        error: What went wrong, stored with the job: the middle of a long text is cut, NUL replaced.
        retry_in: When to try again; by default after 10 s, twice as long each time, with jitter.
        permanent: Whether not to try again; a `PermanentFailure` says so too.
    """
    check_claimed(job)
    if retry_in is not None:
        check_duration("retry_in", retry_in, lowest=timedelta(0))
    if isinstance(error, BaseException):
        permanent = permanent or isinstance(error, PermanentFailure)
        error = "".join(traceback.format_exception(error))
    elif not isinstance(error, str):
        raise JobError(f"error is {type(error).__name__}, not str.", "Pass the exception, or a text.")
    storable = error.replace("\0", "\ufffd").encode(errors="replace").decode()
    parameters = {"id": job.id, "attempt": job.attempt, "error": storable, "retry_in": retry_in}
    status = session.execute(_FAIL, parameters | {"permanent": bool(permanent)}).scalar_one()
    return None if status is None else JobStatus(status)


def give_back(session: Executor, job: ClaimedJob) -> bool:
    """Let a job wait again at once, because its worker stops: the attempt does not count.

    False: it is not this worker's any more.
    """
    check_claimed(job)
    return bool(session.execute(_GIVE_BACK, {"id": job.id, "attempt": job.attempt}).scalar_one())


def retry(session: Executor, job_id: UUID) -> bool:
    """Let a failed job wait again, or one that waits for later be due; False: it is neither, or its key is taken."""
    check_id(job_id)
    return bool(session.execute(_RETRY, {"id": job_id}).scalar_one())


def cancel(session: Executor, job_id: UUID, reason: str | None = None) -> bool:
    """Fail a job that waits or runs, for good; False: it has finished before."""
    check_id(job_id)
    if reason is not None:
        check_text("reason", reason, JobError)
    return bool(session.execute(_CANCEL, {"id": job_id, "reason": reason}).scalar_one())


def prune(
    session: Executor,
    older_than: timedelta,
    *,
    status: JobStatus | None = None,
    batch: int = 10_000,
    dry_run: bool = False,
) -> int:
    """Delete one batch of the jobs that finished longer ago; return how many: fewer than ``batch`` is the end.

    Args:
        session: To be committed after each batch.
        older_than: Age since they finished.
        status: Only the completed, or the failed ones.
        batch: Rows to delete at most.
        dry_run: Delete nothing, and count all.
    """
    check_duration("older_than", older_than, lowest=timedelta(0))
    check_integer("batch", batch, 1)
    if status is not None:
        check_choice("status", status, tuple(JobStatus), JobError)
    parameters = {"older_than": older_than, "batch": batch, "dry_run": bool(dry_run), "status": status}
    return int(session.execute(_PRUNE, parameters).scalar_one())


def stats(session: Executor) -> list[TypeStats]:
    """Return how many jobs of each type wait, run and have failed, in the order of types."""
    return [TypeStats(**row) for row in session.execute(_STATS).mappings()]
