"""What the worker processes of benchmarks/jobs.py have in common; runs in each peer's own environment.

A process reads requests, one JSON object a line, and answers each with one. For a timed one it says "ready" when
it is connected, and waits for a line before it starts, so that all workers of a measurement start together.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

WARM_UP = 0.2  # seconds, not counted: connections, prepared statements and cached plans
JOB_TYPE = "embed"

Answer = dict[str, Any]


class Clock:
    """Counts what is done between the warm-up and the end, which may also be a number of jobs or an empty queue."""

    def __init__(self, request: dict[str, Any]) -> None:
        self.cpu = time.process_time()
        self.warm = time.monotonic() + WARM_UP
        self.end = self.warm + request["seconds"]
        self.limit = request.get("jobs", float("inf"))
        self.drains = request.get("drain", False)
        self.is_drained = False
        self.total = 0
        self.counted = 0
        self.last = self.warm

    @property
    def is_running(self) -> bool:
        return time.monotonic() < self.end and self.total < self.limit and not self.is_drained

    def count(self, jobs: int) -> None:
        self.total += jobs
        self.is_drained = self.drains and not jobs
        now = time.monotonic()
        if self.warm < now and jobs:
            self.counted += jobs
            self.last = now

    def answer(self) -> Answer:
        """Return jobs a second, all jobs done, and the CPU seconds that this process used."""
        elapsed = max(self.last, min(time.monotonic(), self.end)) - self.warm
        return {
            "rate": self.counted / max(elapsed, 0.001),
            "jobs": self.total,
            "cpu": time.process_time() - self.cpu,
        }


def wait_for_go() -> None:
    """Tell the benchmark that this process is connected, and wait until all others are."""
    print('{"ready": true}', flush=True)
    sys.stdin.readline()


def serve(commands: dict[str, Callable[[dict[str, Any]], Answer]]) -> None:
    """Answer requests until standard input ends."""
    for line in iter(sys.stdin.readline, ""):
        request = json.loads(line)
        print(json.dumps(commands[request["do"]](request)), flush=True)


def payload(number: int) -> dict[str, Any]:
    """Return the arguments of a job, with the time at which it is enqueued."""
    return {"document": number, "sent": time.time()}
