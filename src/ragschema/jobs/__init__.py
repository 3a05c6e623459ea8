"""Background jobs: the queue's functions, and workers that do the jobs."""

from ragschema.jobs.queue import (
    LEASE,
    ClaimedJob,
    JobError,
    NewJob,
    PermanentFailure,
    TypeStats,
    cancel,
    claim,
    complete,
    complete_many,
    enqueue,
    enqueue_many,
    fail,
    heartbeat,
    prune,
    retry,
    stats,
)
from ragschema.jobs.worker import work

__all__ = [
    "LEASE",
    "ClaimedJob",
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
    "heartbeat",
    "prune",
    "retry",
    "stats",
    "work",
]
