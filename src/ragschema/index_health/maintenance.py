"""Maintenance of HNSW indexes: measured, rebuilt where searches find too little, vacuumed, measured again."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from psycopg import sql

from ragschema.database.connections import held_reachable
from ragschema.errors import UsageError
from ragschema.index_health.catalogue import choose, find_hnsw_indexes
from ragschema.index_health.health import SAMPLE, IndexHealth, check_indexes, check_sample, look
from ragschema.index_health.rebuilding import Rebuilt, ShowBuild, at_work, drop_left_overs, rebuild_one
from ragschema.migrations.request import DatabaseArgument, resolve_options

log = logging.getLogger(__name__)

ENOUGH = 0.98
"""The recall below which an index is rebuilt, by default."""


@dataclass(frozen=True)
class Maintenance:
    """What `maintain` found and did.

    Attributes:
        threshold: The recall below which an index is rebuilt.
        before: The indexes as they were.
        rebuilt: Those that were rebuilt.
        dropped: Left-overs of an interrupted rebuild, which it dropped.
        vacuumed: The tables that were vacuumed, after the rebuild.
        after: The indexes as they are; the same as before where nothing was due.
    """

    threshold: float
    before: tuple[IndexHealth, ...]
    rebuilt: tuple[Rebuilt, ...]
    dropped: tuple[str, ...]
    vacuumed: tuple[str, ...]
    after: tuple[IndexHealth, ...]

    @property
    def still_below(self) -> tuple[IndexHealth, ...]:
        """The indexes that are below the threshold, or invalid, all the same."""
        return tuple(each for each in self.after if each.is_below(self.threshold))


def maintain(
    database: DatabaseArgument = None,
    *,
    if_recall_below: float = ENOUGH,
    schema: str | None = None,
    sample: int = SAMPLE,
    ef_search: int | None = None,
    seed: int | None = None,
    show_build: ShowBuild | None = None,
    report: Callable[[Rebuilt], None] | None = None,
) -> Maintenance:
    """Rebuild the HNSW indexes whose searches find too little, and those that are invalid; then VACUUM their tables.

    The rebuild comes before the VACUUM: a new index has no entry of a dead row, so that the VACUUM finds none to take
    out of it, which is most of a VACUUM's time, and what lowers the recall. Where nothing is due it only reads.

    Args:
        database: A database, its URL, or `Options`; the settings decide by default.
        if_recall_below: The recall that is enough, 0 to 1.
        schema: The schema of the tables; the first of the search_path by default.
        sample: How many questions to ask each index.
        ef_search: How many candidates a search keeps; as many as a search of ours does by default.
        seed: The same seed asks the same questions of an unchanged table.
        show_build: Shows the progress; lines are logged by default.
        report: Called after each rebuild.

    Raises:
        UsageError: A number is out of range.
        LockNotObtained: Another deployer held the lock for too long, or somebody builds an index.
        RagSchemaError: The server's disk has no room for a second index beside the first.
    """
    if not 0 <= if_recall_below <= 1:
        raise UsageError(f"The recall is {if_recall_below}.", "Give a share of the rows, 0 to 1.")
    check_sample(sample, ef_search)
    with held_reachable(resolve_options(database, schema)) as options:
        before = tuple(check_indexes(options, sample=sample, ef_search=ef_search, seed=seed))
        due = {each.index for each in before if each.is_below(if_recall_below)}
        if not due:
            return Maintenance(if_recall_below, before, (), (), (), before)
        with at_work(replace(options, is_announced=True), None, show_build) as at:
            found = find_hnsw_indexes(at.connection, at.schemas.target)
            dropped = drop_left_overs(at, [each for each in found if each.name in due])
            chosen = [each for each in choose(found, None, at.schemas.target) if each.name in due]
            rebuilt = []
            for each in chosen:
                rebuilt.append(rebuild_one(at, each))
                if report is not None:
                    report(rebuilt[-1])
            tables = {(each.schema, each.stored_table): each.table for each in chosen}
            for stored, table in tables.items():
                log.info("Vacuuming %s", table)
                at.connection.execute(sql.SQL("VACUUM {}").format(sql.Identifier(*stored)))
            after = tuple(look(at, sample=sample, ef_search=ef_search, seed=seed))
    vacuumed = tuple(tables.values())
    return Maintenance(if_recall_below, before, tuple(rebuilt), dropped, vacuumed, after)
