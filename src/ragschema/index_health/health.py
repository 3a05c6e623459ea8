"""Health of HNSW indexes: size, rows, dead entries, last vacuum, and recall measured on the spot."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from ragschema.database.connections import Opened, opened
from ragschema.database.row_security import refuse_hidden
from ragschema.errors import UsageError
from ragschema.index_health.catalogue import HnswIndex, find_hnsw_indexes
from ragschema.index_health.recall import NotMeasured, Recall, measure_recall
from ragschema.index_health.rows import opened_at_rows
from ragschema.migrations.request import DatabaseArgument, resolve_options
from ragschema.queries.planner_hints import EF_SEARCH, EF_SEARCH_MOST

SAMPLE = 100
"""Questions by default: the recall of 0.95 is then known to about 0.01."""

_MOST = 10_000


@dataclass(frozen=True)
class IndexHealth:
    """How an HNSW index is.

    Attributes:
        index: Its name.
        table: Its table.
        expression: What is indexed, as SQL.
        opclass: The operator class.
        predicate: Of a partial index, as SQL; None where every row is in it.
        is_valid: Whether searches may use it.
        is_building: Whether somebody builds or rebuilds it now.
        size: In bytes.
        rows: How many rows it has; None where neither a measurement nor the server knows.
        dead_share: Of the entries that the questions met, the share whose rows are dead, 0 to 1; None if not measured.
        dead_rows: Dead rows of its table that are not vacuumed yet, as the server reckons.
        vacuumed_at: When the table was last vacuumed, by hand or by autovacuum; None if never.
        recall: What searches find; None if it was not measured.
        note: Why the recall was not measured; empty where it was.
    """

    index: str
    table: str
    expression: str
    opclass: str
    predicate: str | None
    is_valid: bool
    is_building: bool
    size: int
    rows: int | None
    dead_share: float | None
    dead_rows: int
    vacuumed_at: datetime | None
    recall: Recall | None
    note: str

    def is_below(self, recall: float) -> bool:
        """Whether a rebuild is due: it is invalid and nobody builds it, or searches find less than a share."""
        if not self.is_valid:
            return not self.is_building
        return self.recall is not None and self.recall.value < recall


def check_indexes(
    database: DatabaseArgument = None,
    *,
    schema: str | None = None,
    sample: int = SAMPLE,
    ef_search: int | None = None,
    seed: int | None = None,
) -> list[IndexHealth]:
    """Look at every HNSW index of our tables and their partitions; only reads, a few seconds for each.

    Args:
        database: A database, its URL, or `Options`; the settings decide by default.
        schema: The schema of the tables; the first of the search_path by default.
        sample: How many questions to ask each index; 0 measures no recall.
        ef_search: How many candidates a search keeps; by default as many as a search of ours does: what the role or
            the database says, and 80 where that is pgvector's default.
        seed: The same seed asks the same questions of an unchanged table.

    Raises:
        UsageError: A number is out of range.
        RowsHidden: Row security hides rows of our tables from this role.
    """
    check_sample(sample, ef_search)
    with opened(resolve_options(database, schema)) as at, opened_at_rows(at) as there:
        return look(there, sample=sample, ef_search=ef_search, seed=seed)


def check_sample(sample: int, ef_search: int | None) -> None:
    """Refuse numbers that no measurement can use.

    Raises:
        UsageError: One is out of range.
    """
    if not 0 <= sample <= _MOST:
        raise UsageError(f"The sample is {sample}.", f"Ask 0 to {_MOST:,} questions.")
    if ef_search is not None and not 1 <= ef_search <= EF_SEARCH_MOST:
        raise UsageError(f"The candidates of a search are {ef_search}.", f"Give 1 to {EF_SEARCH_MOST}.")


def look(at: Opened, *, sample: int, ef_search: int | None, seed: int | None) -> list[IndexHealth]:
    """Look at the indexes through an open connection."""
    schema = at.schemas.target
    indexes = find_hnsw_indexes(at.connection, schema)
    if sample and indexes:
        refuse_hidden(at.connection, schema)
    candidates = _chosen(at) if ef_search is None else ef_search
    return [_look_at(at, each, sample, candidates, seed) for each in indexes]


def _look_at(at: Opened, index: HnswIndex, sample: int, ef_search: int, seed: int | None) -> IndexHealth:
    found, note = None, ""
    if sample:
        try:
            found = measure_recall(at.connection, index, sample=sample, ef_search=ef_search, seed=seed)
        except NotMeasured as exc:
            note = str(exc)
    else:
        note = "no question was asked"
    return IndexHealth(
        index=index.name,
        table=index.table,
        expression=index.expression,
        opclass=index.opclass,
        predicate=index.predicate,
        is_valid=index.is_valid,
        is_building=index.is_building,
        size=index.size,
        rows=found.rows if found else index.rows,
        dead_share=found.dead_share if found else None,
        dead_rows=index.dead_rows,
        vacuumed_at=index.vacuumed_at,
        recall=found.recall if found else None,
        note=note,
    )


def _chosen(at: Opened) -> int:
    """Return how many candidates a search of ours keeps in a session like this one."""
    at.connection.execute("SELECT CAST('[1]' AS vector)")  # loads pgvector, and with it its settings
    row = at.connection.execute("SELECT current_setting('hnsw.ef_search')").fetchone()
    return EF_SEARCH if row is None or row[0] == "40" else int(row[0])
