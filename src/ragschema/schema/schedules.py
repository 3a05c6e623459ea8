"""The table of jobs that come again and again."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import CheckConstraint, Index, UniqueConstraint, false, text
from sqlalchemy.dialects.postgresql import INTERVAL
from sqlalchemy.orm import Mapped, mapped_column

from ragschema.schema.base import Base, Id, Timestamp


class JobSchedule(Base):
    """A job that is enqueued at the times of a calendar, or after each span of time."""

    __tablename__ = "rag_job_schedules"
    __table_args__ = (
        UniqueConstraint("name"),
        CheckConstraint(
            "num_nonnulls(cron, every) = 1 AND every >= '00:00:01'::interval AND isfinite(next_run_at)",
            name="time",
        ),
        CheckConstraint(
            "max_attempts >= 1 AND octet_length(name) <= 2000 AND octet_length(job_type) <= 2000"
            " AND octet_length(dedupe_key) <= 2000",
            name="job",
        ),
        Index(None, "next_run_at", postgresql_where=text("NOT paused")),
    )

    id: Mapped[Id] = mapped_column(comment="Names the schedule to the database; people use its name")
    name: Mapped[str] = mapped_column(comment="Names the schedule")
    job_type: Mapped[str] = mapped_column(comment="Of the jobs: which workers they are for")
    payload: Mapped[dict[str, Any]] = mapped_column(comment="Of the jobs: what to do")
    priority: Mapped[int] = mapped_column(
        server_default=text("0"), comment="Of the jobs: smaller numbers first; 0 is usual"
    )
    max_attempts: Mapped[int] = mapped_column(
        server_default=text("10"), comment="Of the jobs: how many attempts may count"
    )
    dedupe_key: Mapped[str | None] = mapped_column(
        comment="Of the jobs: while one is unfinished, the next takes its place"
    )
    cron: Mapped[str | None] = mapped_column(
        comment="When, as minute, hour, day of month, month and day of week; or every"
    )
    every: Mapped[timedelta | None] = mapped_column(
        INTERVAL(), comment="When, as the time from one to the next, a second at least; or cron"
    )
    timezone: Mapped[str] = mapped_column(
        server_default="UTC", comment="Whose clock cron means, such as Europe/Vienna"
    )
    next_run_at: Mapped[datetime] = mapped_column(
        comment="When the next job is due; whoever looks first after that enqueues it"
    )
    paused: Mapped[bool] = mapped_column(server_default=false(), comment="Whether nothing is enqueued")
    last_enqueued_at: Mapped[datetime | None] = mapped_column(comment="When the last job was enqueued")
    error_message: Mapped[str | None] = mapped_column(
        comment="Why none was enqueued when one was due: cron or timezone cannot be read; tried again in an hour"
    )
    created_at: Mapped[Timestamp] = mapped_column(comment="When the schedule was added")
    updated_at: Mapped[Timestamp] = mapped_column(comment="When anything of it last changed")
