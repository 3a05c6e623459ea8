"""Outcomes of a command over many tenants: what became of each, and of all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from ragschema.revisions.manifest import RevisionId

Fate = Literal["migrated", "up to date", "failed", "locked", "interrupted", "not started", "dropped"]
"""What became of a tenant; ``locked``: another deployer or a session held on for too long, so run again; ``dropped``:
by somebody else meanwhile, and not made again."""

Interruption = Literal["SIGINT", "SIGTERM"]
"""A signal that ends a command; Ctrl-C sends the first."""


@dataclass(frozen=True)
class TenantOutcome:
    """What became of one tenant.

    Attributes:
        database: Its database, without a password.
        schema: The tenant.
        fate: What became of it.
        revision: The revision it is at, as far as it is known.
        applied: The revisions that were applied, in order.
        owed: The contract revisions that were passed over.
        seconds: How long it took; 0 where it was not visited.
        error: Why it failed, or is locked.
        evidence: What to do about it, and the server's own words on it.
    """

    database: str
    schema: str
    fate: Fate
    revision: str | None
    applied: tuple[RevisionId, ...] = ()
    owed: tuple[RevisionId, ...] = ()
    seconds: float = 0.0
    error: str | None = None
    evidence: str | None = None

    @property
    def name(self) -> str:
        """The tenant with its database."""
        return f"{self.schema} in {self.database}"


@dataclass(frozen=True)
class DatabaseFailure:
    """A database whose tenants could not be found.

    Attributes:
        database: The database, without a password.
        error: Why not.
        evidence: The server's own words on that.
    """

    database: str
    error: str
    evidence: str | None = None


@dataclass(frozen=True)
class FleetResult:
    """What became of all tenants.

    Attributes:
        target: The revision they were to reach.
        counts: How many tenants met each fate.
        tenants: Each tenant, by database and name.
        databases: The databases that could not be looked at.
        interrupted_by: The signal that ended it early, if one did.
        seconds: How long it took.
    """

    target: RevisionId
    counts: Mapping[str, int]
    tenants: tuple[TenantOutcome, ...]
    databases: tuple[DatabaseFailure, ...]
    interrupted_by: Interruption | None
    seconds: float

    def of(self, *fates: Fate) -> list[TenantOutcome]:
        """Return the tenants that met one of these fates."""
        return [each for each in self.tenants if each.fate in fates]

    @property
    def has_failed(self) -> bool:
        """Whether a tenant or a database has failed, or was not reached."""
        return bool(self.databases or self.of("failed", "interrupted", "not started"))


@dataclass(frozen=True)
class Progress:
    """How far a command over many tenants is.

    Attributes:
        done: Tenants that it is done with.
        total: Tenants in all.
        failed: Of those done, how many failed.
        locked: Of those done, how many are locked.
        remaining: Estimated seconds to the end; None before the first.
    """

    done: int
    total: int
    failed: int
    locked: int
    remaining: float | None


def count_fates(outcomes: Iterable[TenantOutcome]) -> dict[str, int]:
    """Return how many tenants met each fate, those that nobody met left out."""
    return dict(sorted(Counter(each.fate for each in outcomes).items()))
