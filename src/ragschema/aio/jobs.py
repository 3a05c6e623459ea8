"""The functions of the queue for async code; see `ragschema.jobs`."""

from __future__ import annotations

from ragschema.aio.calls import awaited
from ragschema.jobs import queue, schedules

add_schedule = awaited(schedules.add_schedule)
cancel = awaited(queue.cancel)
claim = awaited(queue.claim)
complete = awaited(queue.complete)
complete_many = awaited(queue.complete_many)
enqueue = awaited(queue.enqueue)
enqueue_due = awaited(schedules.enqueue_due)
enqueue_many = awaited(queue.enqueue_many)
fail = awaited(queue.fail)
give_back = awaited(queue.give_back)
heartbeat = awaited(queue.heartbeat)
list_schedules = awaited(schedules.list_schedules)
pause_schedule = awaited(schedules.pause_schedule)
prune = awaited(queue.prune)
remove_schedule = awaited(schedules.remove_schedule)
resume_schedule = awaited(schedules.resume_schedule)
retry = awaited(queue.retry)
stats = awaited(queue.stats)

__all__ = [
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
]
