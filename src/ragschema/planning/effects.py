"""Effects of a statement on tables: the words that text and rehearsal share."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from ragschema.sql.losses import Loss

MODES = (
    "ACCESS SHARE",
    "ROW SHARE",
    "ROW EXCLUSIVE",
    "SHARE UPDATE EXCLUSIVE",
    "SHARE",
    "SHARE ROW EXCLUSIVE",
    "EXCLUSIVE",
    "ACCESS EXCLUSIVE",
)
"""PostgreSQL's lock modes on tables, the weakest first."""

# What helpers and SQLAlchemy ask of the catalogue, and how they frame their autocommit blocks.
_FRAMING = re.compile(
    r"\s*(SELECT\b(?!.*\bsetval\b).*(\bpg_\w+|\bset_config\b|\bcurrent_\w+)|SHOW\b|SAVEPOINT\b|RELEASE\b"
    r"|ROLLBACK TO\b|(?:SET|RESET) (?:\w+_timeout|enable_\w+)\b)",
    re.I | re.S,
)


@dataclass
class Effect:
    """What a statement does to tables that exist.

    Attributes:
        locks: The strongest mode that it takes on each.
        rewrites: Those it writes anew, or may.
        scans: Those whose rows it reads to check them.
        builds: Those on which it builds an index while their writers wait.
        writes: Those whose rows it updates or deletes.
        empties: Those that it drops or truncates.
        losses: What it may destroy.
        refused: Those that must be empty for it, with the reason.
        is_opaque: Whether its text does not tell what it does.
    """

    locks: dict[str, str] = field(default_factory=dict)
    rewrites: set[str] = field(default_factory=set)
    scans: set[str] = field(default_factory=set)
    builds: set[str] = field(default_factory=set)
    writes: set[str] = field(default_factory=set)
    empties: set[str] = field(default_factory=set)
    losses: list[Loss] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    is_opaque: bool = False


def is_framing(sql: str) -> bool:
    """Whether a statement only reads the catalogue, or frames others: no part of a plan."""
    return _FRAMING.match(sql) is not None


def rank(mode: str | None) -> int:
    """Return how strong a lock mode is, -1 for none."""
    return -1 if mode is None else MODES.index(mode)


def stronger(mode: str, other: str | None) -> str:
    """Return the stronger of two lock modes."""
    return mode if other is None or rank(mode) >= rank(other) else other
