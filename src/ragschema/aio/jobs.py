"""The functions of the queue for async code; see `ragschema.jobs`."""

from __future__ import annotations

from ragschema.aio.calls import awaited
from ragschema.jobs import queue

cancel = awaited(queue.cancel)
claim = awaited(queue.claim)
complete = awaited(queue.complete)
complete_many = awaited(queue.complete_many)
enqueue = awaited(queue.enqueue)
enqueue_many = awaited(queue.enqueue_many)
fail = awaited(queue.fail)
give_back = awaited(queue.give_back)
heartbeat = awaited(queue.heartbeat)
prune = awaited(queue.prune)
retry = awaited(queue.retry)
stats = awaited(queue.stats)

__all__ = [
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
]
