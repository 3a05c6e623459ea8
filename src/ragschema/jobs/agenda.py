"""The agenda of a worker: when it looks at the schedules next, and the look."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

import sqlalchemy as sa

from ragschema.database.sqlstates import server_message
from ragschema.jobs.schedules import enqueue_due, seconds_to_next
from ragschema.jobs.worker_parts import log

_SECONDS_BETWEEN_LOOKS = 10.0
"""How soon a schedule is seen that was written by hand: one by `add_schedule` is announced."""
_SECONDS_TO_ANOTHER = 0.2
"""Until the next look where something is due that this one did not enqueue, because it is another's, or it failed."""


@dataclass
class Agenda:
    """When to look at the schedules: at the start, when the next is due, when one was added, and now and then.

    Attributes:
        poll: How often the worker looks for jobs, in seconds.
        look_at: When to look next, by `time.monotonic`.
        has_looked: Whether a look has succeeded.
        failures: How many have failed since.
    """

    poll: float
    look_at: float = 0.0
    has_looked: bool = False
    failures: int = 0

    @property
    def seconds_left(self) -> float:
        return self.look_at - monotonic()

    def hear(self, payload: str) -> None:
        """Look at once where a notification is of a schedule, and not of a type of jobs."""
        if not payload:
            self.look_at = 0.0

    def begin(self) -> None:
        """Set the time of the look after the one that is about to begin, should that one fail."""
        self.look_at = monotonic() + max(self.poll, _SECONDS_BETWEEN_LOOKS)

    def look(self, connection: sa.Connection) -> Callable[[], None]:
        """Enqueue what is due; return what to call once that is committed. Costs one read of an index if nothing is."""
        seconds = seconds_to_next(connection)
        if not self.has_looked or (seconds is not None and seconds <= 0):
            enqueue_due(connection)
            seconds = seconds_to_next(connection)
        return lambda: self.set_next(seconds)

    def set_next(self, seconds: float | None) -> None:
        """Look again in as many seconds, if that is earlier."""
        self.has_looked = True
        self.failures = 0
        if seconds is not None:
            self.look_at = min(self.look_at, monotonic() + (seconds if seconds > 0 else _SECONDS_TO_ANOTHER))

    def fail(self, error: Exception) -> None:
        """Say that a look failed, and look again soon, or later and later; jobs are done all the same."""
        self.look_at = min(self.look_at, monotonic() + _SECONDS_TO_ANOTHER * 2 ** min(self.failures, 20))
        self.failures += 1
        log.error(
            "The worker could not look at the schedules, and goes on without: %s", server_message(error)
        )
