"""The table of background jobs."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import CheckConstraint, Enum, Index, false, text
from sqlalchemy.orm import Mapped, mapped_column

from ragschema.schema.base import Base, Id, Timestamp, storage_parameters


class JobStatus(StrEnum):
    """Where a job stands."""

    new = "new"
    processing = "processing"
    completed = "completed"
    failed = "failed"


class Job(Base):
    """A background task: backfilling, embedding, indexing. The functions ``rag_jobs_*`` work the queue."""

    __tablename__ = "rag_jobs"
    __table_args__ = (
        # status >= 'completed': the order of the enum is the life of a job
        CheckConstraint(
            "(status = 'processing') = (lease_expires_at IS NOT NULL)"
            " AND (status >= 'completed') = (finished_at IS NOT NULL)"
            " AND (worker IS NOT NULL OR lease_expires_at IS NULL)"
            " AND (NOT enqueued_again OR lease_expires_at IS NOT NULL)",
            name="status",
        ),
        CheckConstraint(
            "attempts >= attempts_before"
            " AND attempts - attempts_before + (status = 'new')::integer <= max_attempts",
            name="attempts",
        ),
        Index(
            "rag_jobs_ready_idx", "job_type", "priority", "run_at", postgresql_where=text("status = 'new'")
        ),
        Index(None, "created_at", postgresql_where=text("status = 'new'")),
        Index(None, "status", "job_type", postgresql_where=text("status IN ('processing', 'failed')")),
        Index(None, "finished_at", postgresql_where=text("finished_at IS NOT NULL")),
        Index(
            "rag_jobs_dedupe_key_idx",
            "job_type",
            "dedupe_key",
            unique=True,
            postgresql_where=text("dedupe_key IS NOT NULL AND status IN ('new', 'processing')"),
        ),
        storage_parameters(
            fillfactor=50,
            autovacuum_vacuum_scale_factor=0,
            autovacuum_vacuum_threshold=2000,
            autovacuum_analyze_scale_factor=0,
            autovacuum_analyze_threshold=20000,
        ),
    )

    id: Mapped[Id] = mapped_column(comment="Names the job; a claim of it is named by id and attempts")
    job_type: Mapped[str] = mapped_column(comment="Which workers it is for")
    payload: Mapped[dict[str, Any]] = mapped_column(
        comment="What to do; the newest, where a job with its key was enqueued again"
    )
    status: Mapped[JobStatus] = mapped_column(
        Enum(JobStatus, name="job_status"),
        server_default="new",
        comment="new: waits for run_at; processing: claimed; completed, failed: nothing more happens by itself",
    )
    created_at: Mapped[Timestamp] = mapped_column(comment="When it was enqueued")
    updated_at: Mapped[Timestamp] = mapped_column(
        comment="When anything of it last changed, a heartbeat included"
    )
    error_message: Mapped[str | None] = mapped_column(comment="The last error, or that it was cancelled")
    priority: Mapped[int] = mapped_column(
        server_default=text("0"), comment="Smaller numbers first; 0 is usual"
    )
    run_at: Mapped[Timestamp] = mapped_column(comment="Not claimed before")
    attempts: Mapped[int] = mapped_column(
        server_default=text("0"),
        comment="Claims so far; never goes down, so it tells one claim from the next",
    )
    attempts_before: Mapped[int] = mapped_column(
        server_default=text("0"),
        comment="How many of them do not count, because they were before a retry or a newer payload",
    )
    max_attempts: Mapped[int] = mapped_column(server_default=text("10"), comment="How many may count")
    lease_expires_at: Mapped[datetime | None] = mapped_column(
        comment="While processing: when others may take it over"
    )
    worker: Mapped[str | None] = mapped_column(comment="Who claimed it last")
    started_at: Mapped[datetime | None] = mapped_column(comment="When it was claimed last")
    finished_at: Mapped[datetime | None] = mapped_column(comment="When it was completed, or failed for good")
    dedupe_key: Mapped[str | None] = mapped_column(comment="No two unfinished jobs of a type have the same")
    enqueued_again: Mapped[bool] = mapped_column(
        server_default=false(),
        comment="While processing: payload is newer than what runs, so run it again afterwards",
    )
    progress: Mapped[dict[str, Any] | None] = mapped_column(
        comment="How far it has come, for the next attempt to go on from"
    )
