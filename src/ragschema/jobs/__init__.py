"""Background jobs: the queue's functions, schedules, and workers that do the jobs."""

from ragschema.jobs.async_worker import work_async
from ragschema.jobs.handlers import AsyncHandler, Handler, HandlerError
from ragschema.jobs.queue import (
    LEASE,
    cancel,
    claim,
    complete,
    complete_many,
    enqueue,
    enqueue_many,
    fail,
    give_back,
    heartbeat,
    prune,
    retry,
    stats,
)
from ragschema.jobs.records import ClaimedJob, JobError, NewJob, PermanentFailure, Schedule, TypeStats
from ragschema.jobs.schedules import (
    add_schedule,
    enqueue_due,
    list_schedules,
    pause_schedule,
    remove_schedule,
    resume_schedule,
)
from ragschema.jobs.worker import work

__all__ = [
    "LEASE",
    "AsyncHandler",
    "ClaimedJob",
    "Handler",
    "HandlerError",
    "JobError",
    "NewJob",
    "PermanentFailure",
    "Schedule",
    "TypeStats",
    "add_schedule",
    "cancel",
    "claim",
    "complete",
    "complete_many",
    "enqueue",
    "enqueue_due",
    "enqueue_many",
    "fail",
    "give_back",
    "heartbeat",
    "list_schedules",
    "pause_schedule",
    "prune",
    "remove_schedule",
    "resume_schedule",
    "retry",
    "stats",
    "work",
    "work_async",
]
