"""The queue: typed functions over the schema's own ``rag_jobs_*``; `ragschema.jobs.worker` does the jobs.

Each function runs one statement in the caller's transaction and commits nothing: what is rolled back
never happened. It takes a Session or a Connection; async code hands it to ``run_sync`` of an AsyncSession or
an AsyncConnection, which runs the same statement::

    job_id = await session.run_sync(jobs.enqueue, "embed", {"article_id": "noises"})

A job is claimed for a lease. The worker whose lease ran out is told False, or None, when it comes too late:
another may have the job by then. The clock is the database's.
"""

from __future__ import annotations

import json
import re
import threading
import traceback
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any
from uuid import UUID

from psycopg.pq import TransactionStatus
from sqlalchemy import Connection, text
from sqlalchemy.orm import Session

from ragschema.errors import RagSchemaError
from ragschema.models import Job, JobStatus
from ragschema.schema.base import Executor
from ragschema.values import check_text, several

LEASE = timedelta(minutes=5)

_INT4_MAX = 2**31 - 1
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")

_ENQUEUE = text(
    "SELECT rag_jobs_enqueue_many("
    " CAST(:job_types AS text[]), CAST(CAST(:payloads AS text[]) AS jsonb[]), CAST(:priorities AS integer[]),"
    " CAST(:run_ats AS timestamptz[]), CAST(:max_attempts AS integer[]), CAST(:dedupe_keys AS text[]), :notify)"
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


class JobError(RagSchemaError, ValueError):
    """A job that the queue cannot hold. Raised before anything is sent."""


class PermanentFailure(Exception):
    """Raised by a handler whose job would fail again however often it is tried."""


@dataclass(frozen=True, kw_only=True)
class NewJob:
    """A job to enqueue.

    Attributes:
        job_type: Which handler it is for.
        payload: What the handler is to know: JSON, best ids rather than texts.
        priority: The lowest number runs first.
        run_at: Not before this time, an aware one; now by default.
        max_attempts: After as many it is failed; the schema's default where None.
        dedupe_key: At most one unfinished job of a type has it: one that waits takes the newer payload, one that
            runs is run again afterwards.
    """

    job_type: str
    payload: Mapping[str, Any]
    priority: int = 0
    run_at: datetime | None = None
    max_attempts: int | None = None
    dedupe_key: str | None = None

    def __post_init__(self) -> None:
        check_text("job_type", self.job_type, JobError)
        if self.dedupe_key is not None:
            check_text("dedupe_key", self.dedupe_key, JobError)
        _check_integer("priority", self.priority, -_INT4_MAX - 1)
        if self.max_attempts is not None:
            _check_integer("max_attempts", self.max_attempts, 1)
        if self.run_at is not None and not isinstance(self.run_at, datetime):
            raise JobError(
                f"run_at is {type(self.run_at).__name__}, not datetime.",
                "Pass an aware datetime, such as UTC's.",
            )
        if self.run_at is not None and self.run_at.tzinfo is None:
            raise JobError(
                f"run_at {self.run_at} has no time zone.", "Pass an aware datetime, such as UTC's."
            )


@dataclass(frozen=True)
class ClaimedJob:
    """A job that a worker holds for the time of its lease.

    Attributes:
        id: Its id.
        job_type: Which handler it is for.
        attempt: Counts its claims; with the id it says whose the job is.
        attempts_left: How often it will be tried again should this attempt fail.
        payload_json: The payload as it is stored; `payload` reads it.
        progress_json: What the last heartbeat that had any progress left; `progress` reads it.
        lease: How long it is held from each heartbeat on.

    ``cancelled`` is set by `work` when a heartbeat is told that the job is cancelled, or another worker's: a long
    handler looks at it, or waits on it instead of sleeping, and raises.
    """

    id: UUID
    job_type: str
    attempt: int
    attempts_left: int
    payload_json: str
    progress_json: str | None
    lease: timedelta

    # read where they are used: one that is too deep for Python fails its own job, not the claim of others

    @cached_property
    def payload(self) -> Any:
        """What was enqueued."""
        return json.loads(self.payload_json)

    @cached_property
    def progress(self) -> Any:
        """Where an earlier attempt came to, None at the start."""
        return None if self.progress_json is None else json.loads(self.progress_json)

    @cached_property
    def cancelled(self) -> threading.Event:
        """Whether the handler is to stop."""
        return threading.Event()

    def __getstate__(self) -> dict[str, Any]:
        """Leave the event out, so that a job may be handed to another process."""
        return {name: value for name, value in self.__dict__.items() if name != "cancelled"}


@dataclass(frozen=True)
class TypeStats:
    """How many jobs of one type are in which state; completed ones are not counted.

    Attributes:
        job_type: The type.
        waiting: Not claimed.
        due: Those of them whose time has come.
        processing: Claimed.
        expired: Those of them whose lease has run out.
        failed: Failed for good, or cancelled.
        oldest_age: How long the longest due has been due, None where none is.
    """

    job_type: str
    waiting: int
    due: int
    processing: int
    expired: int
    failed: int
    oldest_age: timedelta | None


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
) -> UUID:
    """Enqueue a job, see `NewJob`; return its id, or that of the unfinished one with its key.

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
    return enqueue_many(session, [job], notify=notify)[0]


def enqueue_many(session: Executor, jobs: Iterable[NewJob], *, notify: bool = True) -> list[UUID]:
    """Enqueue jobs in one statement; return their ids in order.

    Args:
        session: In whose transaction.
        jobs: The jobs; of those with the same type and key the last counts.
        notify: Whether to wake workers at the commit, once for each type. A NOTIFY takes a lock that all
            committing transactions of the server share: turn it off where many small ones enqueue.

    Raises:
        JobError: A payload is not JSON that PostgreSQL stores.
    """
    given = several("jobs", jobs, JobError, each=NewJob, is_ordered=True)
    parameters = {
        "job_types": [job.job_type for job in given],
        "payloads": [_json(job.payload, f"The payload of a job {job.job_type!r}") for job in given],
        "priorities": [job.priority for job in given],
        "run_ats": [job.run_at for job in given],
        "max_attempts": [job.max_attempts for job in given],
        "dedupe_keys": [job.dedupe_key for job in given],
        "notify": notify,
    }
    return list(session.execute(_ENQUEUE, parameters).scalars()) if given else []


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
    _check_integer("limit", limit, 1)
    _check_duration("lease", lease)
    types = None if job_types is None else several("job_types", job_types, JobError, each=str)
    parameters = {"worker": worker, "job_types": types, "max_jobs": limit, "lease": lease}
    _begin_read_committed(session)
    return [ClaimedJob(lease=lease, **row) for row in session.execute(_CLAIM, parameters).mappings()]


def heartbeat(
    session: Executor, job: ClaimedJob, *, progress: Any = None, lease: timedelta | None = None
) -> bool:
    """Prolong a job's lease; False: stop, because it is another's, cancelled or finished.

    Args:
        session: In whose transaction: with what the progress speaks of.
        job: The job.
        progress: JSON from which the next attempt can go on; None keeps what was there.
        lease: For how long from now; as long as it was claimed for by default.

    Raises:
        JobError: The progress is not JSON that PostgreSQL stores.
    """
    if lease is not None:
        _check_duration("lease", lease)
    written = None if progress is None else _json(progress, f"The progress of job {job.id}")
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
    if retry_in is not None:
        _check_duration("retry_in", retry_in, lowest=timedelta(0))
    if isinstance(error, BaseException):
        permanent = permanent or isinstance(error, PermanentFailure)
        error = "".join(traceback.format_exception(error))
    storable = error.replace("\0", "\ufffd").encode(errors="replace").decode()
    parameters = {"id": job.id, "attempt": job.attempt, "error": storable, "retry_in": retry_in}
    status = session.execute(_FAIL, parameters | {"permanent": permanent}).scalar_one()
    return None if status is None else JobStatus(status)


def give_back(session: Executor, job: ClaimedJob) -> bool:
    """Let a job wait again at once, because its worker stops: the attempt does not count.

    False: it is not this worker's any more.
    """
    return bool(session.execute(_GIVE_BACK, {"id": job.id, "attempt": job.attempt}).scalar_one())


def retry(session: Executor, job_id: UUID) -> bool:
    """Let a failed job wait again, or one that waits for later be due; False: it is neither, or its key is taken."""
    return bool(session.execute(_RETRY, {"id": job_id}).scalar_one())


def cancel(session: Executor, job_id: UUID, reason: str | None = None) -> bool:
    """Fail a job that waits or runs, for good; False: it has finished before."""
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
    _check_duration("older_than", older_than, lowest=timedelta(0))
    _check_integer("batch", batch, 1)
    parameters = {"older_than": older_than, "batch": batch, "dry_run": dry_run, "status": status}
    return int(session.execute(_PRUNE, parameters).scalar_one())


def stats(session: Executor) -> list[TypeStats]:
    """Return how many jobs of each type wait, run and have failed, in the order of types."""
    return [TypeStats(**row) for row in session.execute(_STATS).mappings()]


def _check_integer(name: str, value: object, lowest: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= _INT4_MAX:
        raise JobError(f"{name} is {value!r}.", f"Pass an int from {lowest} to {_INT4_MAX}.")


def _check_duration(name: str, value: object, *, lowest: timedelta = timedelta(microseconds=1)) -> None:
    if not isinstance(value, timedelta) or value < lowest:
        raise JobError(f"{name} is {value!r}.", f"Pass a timedelta: {name}=timedelta(seconds=300).")


def _begin_read_committed(session: Executor) -> None:
    """Put a transaction that has not begun into READ COMMITTED, where a role or a database says otherwise.

    A stricter one cannot claim beside others: each job that somebody else took first would end it.
    """
    connection = (
        session.connection(bind_arguments={"mapper": Job}) if isinstance(session, Session) else session
    )
    pooled = connection.connection
    status = getattr(getattr(pooled.dbapi_connection, "info", None), "transaction_status", None)
    if status != TransactionStatus.IDLE:
        return  # not the first statement, or another driver
    if "rag_isolation" not in pooled.info:  # once for each connection of the pool
        pooled.info["rag_isolation"] = connection.execute(text("SHOW transaction_isolation")).scalar_one()
    if pooled.info["rag_isolation"] != "read committed" and not _is_autocommit(connection):
        connection.execute(text("SET TRANSACTION ISOLATION LEVEL READ COMMITTED"))


def _is_autocommit(connection: Connection) -> bool:
    return bool(connection.connection.dbapi_connection.autocommit)  # type: ignore[union-attr]  # of every driver


def _json(value: Any, what: str) -> str:
    try:
        written = json.dumps(value, ensure_ascii=False, allow_nan=False)
        written.encode()
    except (TypeError, ValueError, RecursionError) as exc:
        raise JobError(
            f"{what} cannot be JSON: {exc}.", "Use plain, finite values, and no deep nesting."
        ) from exc
    if _NUL.search(written):
        raise JobError(
            f"{what} has a NUL character, which PostgreSQL does not store.", "Remove it from the text."
        )
    return written
