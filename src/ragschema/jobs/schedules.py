"""Schedules: jobs that come again and again, by the calendar or after each span of time.

Whoever looks first after a schedule's time enqueues its job, once, in the transaction that says when the next is due:
`work` and `work_async` do so beside their claims, and a loop of one's own by `enqueue_due`. What was missed while
nobody looked is made up for by one job. The clock is the database's.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import RowMapping, text

from ragschema.database.atomicity import refuse_autocommit
from ragschema.jobs.isolation import begin_read_committed
from ragschema.jobs.payloads import write_json
from ragschema.jobs.queue import enqueue_written
from ragschema.jobs.records import LONGEST, JobError, NewJob, Schedule, check_name, countable
from ragschema.jobs.timing import check_timing, find_next
from ragschema.json_text import Default
from ragschema.schema.base import Executor
from ragschema.values import check_text

log = logging.getLogger("ragschema.jobs")

BATCH = 1000
"""Schedules that one call of `enqueue_due` enqueues at most."""
_HOUR = timedelta(hours=1)

# What SQL has written may be longer, or later, than Python counts: such a row is to hold up nobody.
_LONGEST = f"interval '{LONGEST.days} days'"
_EVERY = f"CASE WHEN every > {_LONGEST} THEN {_LONGEST} ELSE every END AS every"
_NEXT_RUN_AT = countable("next_run_at")
_COLUMNS = (
    f"name, job_type, CAST(payload AS text) AS payload_json, cron, {_EVERY}, timezone, {_NEXT_RUN_AT}, paused,"
    " priority, max_attempts, dedupe_key, last_enqueued_at, error_message"
)
_NOW = text("SELECT clock_timestamp()")
_ADD = """
INSERT INTO rag_job_schedules AS s (
    name, job_type, payload, priority, max_attempts, dedupe_key, cron, every, timezone, next_run_at, created_at,
    updated_at
) VALUES (
    :name, :job_type, CAST(:payload AS jsonb), :priority, coalesce(CAST(:max_attempts AS integer), 10), :dedupe_key,
    :cron, CAST(:every AS interval), :timezone, :next_run_at, :now, :now
) ON CONFLICT (name) DO {conflict} RETURNING {columns}
"""
_INSERT = text(_ADD.format(conflict="NOTHING", columns=_COLUMNS))
_REPLACE = text(
    _ADD.format(
        conflict="""UPDATE SET job_type = excluded.job_type, payload = excluded.payload,
    priority = excluded.priority, max_attempts = excluded.max_attempts, dedupe_key = excluded.dedupe_key,
    cron = excluded.cron, every = excluded.every, timezone = excluded.timezone, updated_at = excluded.updated_at,
    error_message = NULL,
    next_run_at = CASE WHEN s.error_message IS NULL
        AND (s.cron, s.every, s.timezone) IS NOT DISTINCT FROM (excluded.cron, excluded.every, excluded.timezone)
        THEN s.next_run_at ELSE excluded.next_run_at END""",
        columns=_COLUMNS,
    )
)
_ANNOUNCE = text(
    "SELECT pg_notify(rag_jobs_channel(), '') WHERE current_setting('rag_jobs.notify', true) IS DISTINCT FROM 'off'"
)
_LIST = text(f"SELECT {_COLUMNS} FROM rag_job_schedules ORDER BY name")
_PAUSE = text(
    "UPDATE rag_job_schedules SET paused = true, updated_at = :now WHERE name = :name AND NOT paused RETURNING id"
)
_PAUSED = text(
    f"SELECT id, cron, {_EVERY}, timezone, {_NEXT_RUN_AT} FROM rag_job_schedules"
    " WHERE name = :name AND paused FOR NO KEY UPDATE"
)
_RESUME = text(
    "UPDATE rag_job_schedules SET paused = false, error_message = NULL, next_run_at = :next_run_at,"
    " updated_at = :now WHERE id = :id"
)
_REMOVE = text("DELETE FROM rag_job_schedules WHERE name = :name RETURNING id")
_NEXT = text(
    "SELECT CAST(extract(epoch FROM min(next_run_at)) - extract(epoch FROM clock_timestamp()) AS float8)"
    " FROM rag_job_schedules WHERE NOT paused"
)
# last_enqueued_at: a clock that was set back by days would have them wait as long
_DUE = text(
    f"SELECT id, name, job_type, CAST(payload AS text) AS payload, priority, max_attempts, dedupe_key, cron, {_EVERY},"
    f" timezone, {_NEXT_RUN_AT}, s.next_run_at <= :now AS is_due"
    " FROM rag_job_schedules s"
    " WHERE NOT paused AND (s.next_run_at <= :now OR last_enqueued_at > :tomorrow)"
    " ORDER BY s.next_run_at LIMIT :batch FOR NO KEY UPDATE SKIP LOCKED"
)
_ADVANCE = text(
    "UPDATE rag_job_schedules SET next_run_at = :next_run_at, error_message = :error_message, updated_at = :now,"
    " last_enqueued_at = CASE WHEN :is_enqueued OR last_enqueued_at > :now THEN :now ELSE last_enqueued_at END"
    " WHERE id = :id"
)


def add_schedule(
    session: Executor,
    name: str,
    job_type: str,
    payload: Mapping[str, Any],
    *,
    cron: str | None = None,
    every: timedelta | None = None,
    timezone: str = "UTC",
    priority: int = 0,
    max_attempts: int | None = None,
    dedupe_key: str | None = None,
    replace: bool = False,
    default: Default | None = None,
) -> Schedule:
    """Add a schedule by which a job is enqueued again and again.

    Args:
        session: In whose transaction.
        name: Names the schedule, of which there is one of a name.
        job_type: As in `NewJob`, of each job.
        payload: As in `NewJob`.
        cron: Five fields: minute, hour, day of month, month, day of week. A fixed time of day that a change of the
            clocks leaves out comes at the change, and one that comes twice is taken once.
        every: The time from one to the next, a second at least; the first comes after it.
        timezone: Whose clock ``cron`` means, such as ``Europe/Vienna``.
        priority: As in `NewJob`.
        max_attempts: As in `NewJob`.
        dedupe_key: As in `NewJob`: with it a job that is unfinished when the next is due is run once more, without it
            the two are two.
        replace: Whether a schedule of this name takes what is given here, so that a service may say it at each start.
            It goes on to its next time where ``cron``, ``every`` and ``timezone`` are what they were, and stays paused
            where it is.
        default: As in `enqueue_many`.

    Raises:
        JobError: An argument cannot be used, or there is a schedule of this name and ``replace`` is not set.
    """
    job = NewJob(
        job_type=job_type,
        payload=payload,
        priority=priority,
        max_attempts=max_attempts,
        dedupe_key=dedupe_key,
    )
    check_name("name", name)
    check_timing(cron, every, timezone)
    written = write_json(job.payload, f"The payload of the schedule {name!r}", default)
    now = session.execute(_NOW).scalar_one()
    parameters = {
        "name": name,
        "job_type": job_type,
        "payload": written,
        "priority": priority,
        "max_attempts": max_attempts,
        "dedupe_key": dedupe_key,
        "cron": cron,
        "every": every,
        "timezone": timezone,
        "next_run_at": find_next(cron, every, timezone, now),
        "now": now,
    }
    row = session.execute(_REPLACE if replace else _INSERT, parameters).mappings().one_or_none()
    if row is None:
        raise JobError(
            f"There is a schedule {name!r}.", "Pass replace=True to change it, or give this one another name."
        )
    session.execute(_ANNOUNCE)
    return _schedule(row)


def list_schedules(session: Executor) -> list[Schedule]:
    """Return all schedules, in the order of their names."""
    return [_schedule(row) for row in session.execute(_LIST).mappings()]


def pause_schedule(session: Executor, name: str) -> bool:
    """Let a schedule enqueue nothing until it is resumed; False: there is none that is not paused."""
    check_text("name", name, JobError)
    now = session.execute(_NOW).scalar_one()
    return session.execute(_PAUSE, {"name": name, "now": now}).scalar_one_or_none() is not None


def resume_schedule(session: Executor, name: str) -> bool:
    """Let a paused schedule go on from now, without what it has missed; False: there is none that is paused.

    Raises:
        JobError: Its cron text or time zone, written by other means, cannot be read.
    """
    check_text("name", name, JobError)
    row = session.execute(_PAUSED, {"name": name}).mappings().one_or_none()
    if row is None:
        return False
    now = session.execute(_NOW).scalar_one()
    found = find_next(row["cron"], row["every"], row["timezone"], now, due_at=row["next_run_at"])
    session.execute(_RESUME, {"id": row["id"], "next_run_at": found, "now": now})
    session.execute(_ANNOUNCE)
    return True


def remove_schedule(session: Executor, name: str) -> bool:
    """Remove a schedule; its jobs stay. False: there is none of this name."""
    check_text("name", name, JobError)
    return session.execute(_REMOVE, {"name": name}).scalar_one_or_none() is not None


def enqueue_due(session: Executor, *, notify: bool = True) -> list[UUID]:
    """Enqueue the jobs of the schedules that are due, at most 1,000; return the ids of the jobs.

    A schedule that somebody else is about to enqueue is passed over. One that is due several times over gets one job.
    One whose cron text or time zone cannot be read gets none, says so in ``error_message``, and holds up nobody.

    Args:
        session: To be committed at once: until then the schedules are this session's. A transaction that begins with
            the call is in READ COMMITTED, whatever the default is.
        notify: As in `enqueue_many`.

    Raises:
        JobError: The session is in autocommit mode.
    """
    refuse_autocommit(begin_read_committed(session), "enqueue_due", JobError)
    now = session.execute(_NOW).scalar_one().astimezone(UTC)  # not by a clock that changes
    parameters = {"now": now, "tomorrow": now + timedelta(days=1), "batch": BATCH}
    found = session.execute(_DUE, parameters).mappings().all()
    if not found:
        return []
    moves = [_move(row, now) for row in found]
    due = [row for row, move in zip(found, moves, strict=True) if move["is_enqueued"]]
    session.execute(_ADVANCE, moves)
    return enqueue_written(session, [(_job(row), row["payload"]) for row in due], notify=bool(notify))


def seconds_to_next(session: Executor) -> float | None:
    """Return in how many seconds the next schedule is due, below zero where one is; None where there is none."""
    seconds: float | None = session.execute(_NEXT).scalar_one()
    return seconds


def _move(row: RowMapping, now: datetime) -> dict[str, Any]:
    """Return what becomes of a schedule that is due, or that waits for a clock that was set back."""
    error = None
    due_at = row["next_run_at"] if row["is_due"] else None
    try:
        found = find_next(row["cron"], row["every"], row["timezone"], now, due_at=due_at)
    except JobError as exc:
        found, error = now + _HOUR, exc.message
        log.error("The schedule %r cannot be followed: %s", row["name"], error)
    return {
        "id": row["id"],
        "next_run_at": found,
        "error_message": error,
        "is_enqueued": row["is_due"] and error is None,
        "now": now,
    }


def _job(row: RowMapping) -> NewJob:
    return NewJob(
        job_type=row["job_type"],
        payload={},
        priority=row["priority"],
        max_attempts=row["max_attempts"],
        dedupe_key=row["dedupe_key"],
    )


def _schedule(row: RowMapping) -> Schedule:
    return Schedule(
        payload=json.loads(row["payload_json"]),
        **{name: value for name, value in row.items() if name != "payload_json"},
    )
