"""Records of the queue: a job to enqueue, one that is claimed, counts of a type, and the errors of all."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any
from uuid import UUID

from ragschema.errors import RagSchemaError
from ragschema.values import check_text, find_problem_of_time

_INT4_MAX = 2**31 - 1
INT4_MIN = -_INT4_MAX - 1
LONGEST = timedelta(days=36_525)
"""The longest time there may be to a lease's end or the next attempt: a century, which every clock here can count."""


def countable(column: str) -> str:
    """Return the SQL of a moment that SQL may have written: one that Python cannot count is as far as it can."""
    return f"least(greatest({column}, timestamptz '0002-01-01'), timestamptz '9998-01-01') AS {column}"


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
        check_name("job_type", self.job_type)
        if self.dedupe_key is not None:
            check_name("dedupe_key", self.dedupe_key)
        check_integer("priority", self.priority, INT4_MIN)
        if self.max_attempts is not None:
            check_integer("max_attempts", self.max_attempts, 1)
        if self.run_at is not None and (problem := find_problem_of_time(self.run_at)):
            given = f" {self.run_at}" if isinstance(self.run_at, datetime) else ""
            raise JobError(f"run_at{given} {problem}.", "Pass an aware datetime, such as UTC's.")


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


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A job that comes again and again.

    Attributes:
        name: Its name.
        job_type: Of its jobs: which handler they are for.
        payload: Of its jobs: what the handler is to know.
        cron: When, as minute, hour, day of month, month and day of week; None where ``every`` says it.
        every: When, as the time from one to the next; None where ``cron`` says it.
        timezone: Whose clock ``cron`` means.
        next_run_at: When the next job is due.
        paused: Whether nothing is enqueued.
        priority: Of its jobs: the lowest number runs first.
        max_attempts: Of its jobs: after as many one is failed.
        dedupe_key: Of its jobs: while one is unfinished, the next takes its place.
        last_enqueued_at: When the last job was enqueued, None where none was.
        error_message: Why none was when one was due; tried again in an hour.
    """

    name: str
    job_type: str
    payload: Any
    cron: str | None
    every: timedelta | None
    timezone: str
    next_run_at: datetime
    paused: bool
    priority: int
    max_attempts: int
    dedupe_key: str | None
    last_enqueued_at: datetime | None
    error_message: str | None


def check_integer(name: str, value: object, lowest: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= _INT4_MAX:
        raise JobError(f"{name} is {value!r}.", f"Pass an int from {lowest} to {_INT4_MAX}.")


def check_duration(name: str, value: object, *, lowest: timedelta = timedelta(microseconds=1)) -> None:
    if not isinstance(value, timedelta) or not lowest <= value <= LONGEST:
        raise JobError(
            f"{name} is {value!r}.", f"Pass a timedelta, of a century at most: {name}=timedelta(seconds=300)."
        )


def check_name(name: str, value: str) -> None:
    """Refuse a name that an index of the queue cannot hold."""
    check_text(name, value, JobError)
    if len(value.encode()) > 2000:
        raise JobError(f"{name} is longer than 2,000 bytes.", "Let it be a name or a hash.")


def check_claimed(job: object) -> None:
    if not isinstance(job, ClaimedJob):
        raise JobError(f"The job is {type(job).__name__}, not ClaimedJob.", "Pass what claim has returned.")


def check_id(job_id: object) -> None:
    """Refuse what is no id of a job; its text is one."""
    try:
        UUID(str(job_id))
    except ValueError as exc:
        raise JobError(
            f"job_id is {job_id!r}, which is no UUID.", "Pass the id that enqueue has returned."
        ) from exc
