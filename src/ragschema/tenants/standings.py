"""Standings of all tenants of some databases: the revision of each, and how many are at it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ragschema.revisions.manifest import RevisionId, read_manifest
from ragschema.tenants.databases import DatabaseOfTenants, find_all, reached
from ragschema.tenants.finding import Standing, Tenant
from ragschema.tenants.outcomes import DatabaseFailure


@dataclass(frozen=True)
class RevisionCount:
    """How many tenants are at a revision.

    Attributes:
        revision: The revision; None at base, or where it cannot be read.
        standing: How it stands to head.
        tenants: How many.
    """

    revision: str | None
    standing: Standing
    tenants: int


@dataclass(frozen=True)
class DatabaseTenants:
    """The tenants of a database.

    Attributes:
        database: The database, without a password.
        tenants: Its tenants by name.
    """

    database: str
    tenants: tuple[Tenant, ...]


@dataclass(frozen=True)
class FleetStatus:
    """Where all tenants stand.

    Attributes:
        head: The revision this package ends at.
        counts: How many are at each revision, the newest first.
        databases: The tenants of each database.
        failures: The databases that could not be looked at.
    """

    head: RevisionId
    counts: tuple[RevisionCount, ...]
    databases: tuple[DatabaseTenants, ...]
    failures: tuple[DatabaseFailure, ...]

    @property
    def total(self) -> int:
        """How many tenants there are."""
        return sum(each.tenants for each in self.counts)


def read_standings(databases: Sequence[DatabaseOfTenants]) -> FleetStatus:
    """Read where the tenants of some databases stand; reads only, a few statements for each database.

    Args:
        databases: The databases, or their URLs; their ``schema`` is not used.

    Raises:
        UsageError: There is no database.
    """
    with reached(databases) as reachable:
        found = find_all(reachable)
    counted = Counter((each.revision, each.standing) for one in found for each in one.tenants)
    return FleetStatus(
        read_manifest().head,
        tuple(
            RevisionCount(revision, standing, count)
            for (revision, standing), count in sorted(
                counted.items(), key=lambda item: item[0][0] or "", reverse=True
            )
        ),
        tuple(DatabaseTenants(each.name, each.tenants) for each in found if each.failure is None),
        tuple(each.failure for each in found if each.failure is not None),
    )
