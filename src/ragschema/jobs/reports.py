"""Reports on single jobs: a list of them, and why one cannot be retried or cancelled."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import text

from ragschema.jobs.records import countable
from ragschema.models import JobStatus
from ragschema.schema.base import Executor

_JOBS = text(
    "SELECT id, job_type, CAST(status AS text) AS status,"
    " status = 'processing' AND lease_expires_at <= clock_timestamp() AS is_expired,"
    " priority, attempts, max_attempts, dedupe_key, worker, created_at,"
    f" {countable('run_at')},"
    " started_at, lease_expires_at, finished_at, error_message"
    " FROM rag_jobs"
    " WHERE (CAST(:status AS text) IS NULL OR status = CAST(CAST(:status AS text) AS job_status))"
    " AND (CAST(:job_type AS text) IS NULL OR job_type = CAST(:job_type AS text))"
    " ORDER BY created_at DESC NULLS LAST, id LIMIT :limit"
)
_JOB = text(
    "SELECT CAST(status AS text),"
    " (SELECT min(other.id::text) FROM rag_jobs other WHERE other.job_type = job.job_type"
    " AND other.dedupe_key = job.dedupe_key AND other.status IN ('new', 'processing') AND other.id <> job.id)"
    " FROM rag_jobs job WHERE id = :id"
)


@dataclass(frozen=True)
class ListedJob:
    """A job without its payload; the columns of ``rag_jobs`` say more.

    Attributes:
        id: Its id.
        job_type: Its type.
        status: Where it stands.
        is_expired: Whether it is claimed and its lease has run out.
        priority: The lowest number runs first.
        attempts: How often it was claimed.
        max_attempts: How often it may be, since it was enqueued or retried.
        dedupe_key: Its key, if any.
        worker: Who claimed it last.
        created_at: When it was enqueued.
        run_at: When it is due; one for ever later, such as ``infinity``, is in the year 9998.
        started_at: When it was claimed last.
        lease_expires_at: When another worker may take it.
        finished_at: When it was completed, failed for good or cancelled.
        error_message: What the last attempt to fail said.
    """

    id: UUID
    job_type: str
    status: JobStatus
    is_expired: bool
    priority: int
    attempts: int
    max_attempts: int
    dedupe_key: str | None
    worker: str | None
    created_at: datetime | None
    run_at: datetime
    started_at: datetime | None
    lease_expires_at: datetime | None
    finished_at: datetime | None
    error_message: str | None


def list_jobs(
    session: Executor, *, status: JobStatus | None = None, job_type: str | None = None, limit: int = 50
) -> list[ListedJob]:
    """Return jobs, the newest first; reads the whole table, completed ones too, without another status."""
    parameters = {"status": status, "job_type": job_type, "limit": limit}
    rows = session.execute(_JOBS, parameters).mappings()
    return [ListedJob(**{**row, "status": JobStatus(row["status"])}) for row in rows]


def explain_refusal(session: Executor, job_id: UUID, verb: str) -> str:
    """Say why a job cannot be ``retried`` or ``cancelled``."""
    row = session.execute(_JOB, {"id": job_id}).one_or_none()
    if row is None:
        return f"There is no job {job_id}."
    status, newer = row
    if newer is not None and status == JobStatus.failed:
        return f"Job {job_id} cannot be {verb}: job {newer} with the same key is unfinished."
    return f"Job {job_id} is {status}, so it cannot be {verb}."
