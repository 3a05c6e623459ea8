"""Hazards: what may hurt a database in use when a statement runs on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ragschema.planning.effects import Effect, rank, stronger
from ragschema.planning.table_sizes import Table
from ragschema.words import counted

Kind = Literal[
    "rewrite",
    "scan",
    "index",
    "lock",
    "write",
    "data-loss",
    "failure",
    "opaque",
    "precheck",
    "contract",
    "autocommit",
]

_STOPS_WRITERS = rank("SHARE")


@dataclass(frozen=True)
class Hazard:
    """What may hurt, and whom.

    Attributes:
        kind: ``rewrite``, ``scan`` or ``index``: a table's writers, and often its readers, wait while all of
            its rows are written, read or indexed; ``lock``: they wait for the end of the transaction;
            ``write``: rows stay locked until it; ``data-loss``: rows or values are destroyed; ``failure``: the
            statement fails; ``opaque``: nothing is known of it; ``precheck``: rows are in a revision's way;
            ``contract`` and ``autocommit``: what the whole revision is.
        message: One sentence that names the table and its size.
    """

    kind: Kind
    message: str


def find_hazards(
    effect: Effect,
    tables: Mapping[str, Table],
    held: Mapping[str, str],
    *,
    is_autocommit: bool,
    is_helper: bool,
) -> list[Hazard]:
    """Return the hazards of one statement; of its locks, rewrite, scan and index build the worst by table.

    Args:
        effect: What it does.
        tables: The tables that exist, by name.
        held: The locks that its transaction holds already, the strongest mode by table.
        is_autocommit: Whether it commits by itself.
        is_helper: Whether a safe form of ragschema.operations_v1 runs it, which writes rows in batches.
    """
    hazards = []
    for table, mode in effect.locks.items():
        if tables[table].has_rows and (
            hazard := _find_blocking(effect, tables[table], mode, held.get(table), is_autocommit)
        ):
            hazards.append(hazard)
    for name in sorted(effect.writes):
        if tables[name].has_rows and not is_helper:
            message = (
                f"updates or deletes rows of {describe(tables[name])} in one transaction: they stay locked"
                " until it commits; `backfill` goes in batches."
            )
            hazards.append(Hazard("write", message))
    for name, reason in effect.refused.items():
        if tables[name].has_rows:
            hazards.append(Hazard("failure", f"fails where {name} has rows: {reason}."))
    return hazards


def _find_blocking(
    effect: Effect, table: Table, mode: str, held: str | None, is_autocommit: bool
) -> Hazard | None:
    strongest = stronger(mode, held)
    if rank(strongest) < _STOPS_WRITERS:
        return None
    size = describe(table)
    stops = "its readers and writers" if strongest == "ACCESS EXCLUSIVE" else "its writers"
    if table.name in effect.rewrites:
        return Hazard("rewrite", f"rewrites {size} while {strongest} on it stops {stops}.")
    if table.name in effect.builds:
        return Hazard(
            "index",
            f"builds an index on {size} while {strongest} on it stops {stops};"
            " `concurrent_index` stops nobody.",
        )
    if table.name in effect.scans:
        return Hazard("scan", f"reads every row of {size} while {strongest} on it stops {stops}.")
    if rank(mode) < _STOPS_WRITERS or rank(held) >= rank(mode):
        return None
    end = "it ends" if is_autocommit else "the revision commits"
    return Hazard("lock", f"{mode} on {size} stops {stops} until {end}.")


def describe(table: Table) -> str:
    """Return a table's name and its size: ``rag_chunks (about 12,000 rows, 94 MB)``."""
    rows = "rows not counted yet" if table.rows is None else f"about {counted(table.rows, 'row')}"
    return f"{table.name} ({rows}, {describe_bytes(table.bytes)})"


def describe_bytes(count: int) -> str:
    """Return a number of bytes as PostgreSQL writes it: ``94 MB``."""
    size, unit = float(count), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 10240:
            break
        size, unit = size / 1024, larger
    return f"{size:.0f} {unit}"
