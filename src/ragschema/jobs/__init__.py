"""Background jobs: the queue's functions, and workers that do the jobs."""

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
from ragschema.jobs.records import ClaimedJob, JobError, NewJob, PermanentFailure, TypeStats
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
    "TypeStats",
    "cancel",
    "claim",
    "complete",
    "complete_many",
    "enqueue",
    "enqueue_many",
    "fail",
    "give_back",
    "heartbeat",
    "prune",
    "retry",
    "stats",
    "work",
    "work_async",
]
