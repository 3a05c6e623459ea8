"""Tasks: tenants to work on, what a worker answers that did not come to an end, and the time that all of them take."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

INTERRUPTED = "interrupted"
NOT_BEGUN = "not begun"
"""What a worker answers in the place of an outcome, where a signal ended its work, or came before."""


@dataclass(frozen=True)
class Task:
    """A tenant to work on.

    Attributes:
        database: The place of its database among the options of the workers.
        schema: Its name.
    """

    database: int
    schema: str


@dataclass(frozen=True)
class Unconnected:
    """What a worker answers that got no connection: others may have theirs, as where the server has no place for more.

    Attributes:
        outcome: What became of the tenant, if no other worker can be given it.
    """

    outcome: Any


class Clock:
    """Time since a command has begun, and what is left of it."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since then."""
        return time.monotonic() - self._began

    def remaining(self, done: int, total: int) -> float | None:
        """Return the seconds that the rest takes at the pace so far; None before the first."""
        return self.seconds / done * (total - done) if done else None
