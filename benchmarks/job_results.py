"""What benchmarks/jobs.py measures."""

from __future__ import annotations

import statistics
from collections import defaultdict
from dataclasses import dataclass, field

from job_workers import Rate

Cell = tuple[str, int, str]
"""State of the table or size of what is enqueued, number of workers, name of the way."""


@dataclass(frozen=True)
class Churn:
    """What a number of jobs leave of a queue's tables; sizes in MB, before and after VACUUM FULL."""

    jobs: int
    seconds: float
    wal: float
    dead: int
    table: float
    indexes: float
    full_table: float
    full_indexes: float


@dataclass
class Results:
    """All measurements, a list of rounds each."""

    rates: dict[Cell, list[Rate]] = field(default_factory=lambda: defaultdict(list))
    waits: dict[str, list[list[float]]] = field(default_factory=lambda: defaultdict(list))
    churns: dict[str, Churn] = field(default_factory=dict)
    heartbeats: tuple[int, int] = (0, 0)
    """How many, and how many of them HOT."""

    def median(self, *cell: str | int, of: str = "jobs_a_second") -> float:
        """Return the median of all rounds, NaN where nothing was measured."""
        if not self.rates.get(cell):  # type: ignore[call-overload]
            return float("nan")
        return statistics.median(getattr(rate, of) for rate in self.rates[cell])  # type: ignore[index]

    def ratios(self, dividend: Cell, divisor: Cell, of: str = "jobs_a_second") -> list[float]:
        """Return the sorted ratios of two cells, each of one round."""
        pairs = zip(self.rates[dividend], self.rates[divisor], strict=True)
        return sorted(getattr(a, of) / getattr(b, of) for a, b in pairs)
