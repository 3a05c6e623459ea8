"""Recall of an index, measured: what searches find by it against what is there."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import psycopg
from psycopg import sql

from ragschema.database.server import Connection
from ragschema.index_health.catalogue import HnswIndex
from ragschema.index_health.questions import MEASURABLE, draw_questions

ROWS = 10
_COMPARISONS = 5_000_000  # of 768 numbers each: about two seconds
_NUMBERS = 768
_TIMEOUT = 15_000  # ms for one statement

_SETTINGS = {
    "statement_timeout": str(_TIMEOUT),
    "jit": "off",
    "work_mem": "128MB",  # the questions stay in memory
    "enable_seqscan": "off",
    "enable_sort": "off",
    "enable_bitmapscan": "off",
    "max_parallel_workers_per_gather": "0",
}
_USED = "SELECT pg_stat_get_xact_numscans(%(oid)s), pg_stat_get_xact_tuples_returned(%(oid)s),"
_USED += " pg_stat_get_xact_tuples_fetched(%(oid)s)"


@dataclass(frozen=True)
class Recall:
    """What a search of ten rows finds of the ten nearest.

    Attributes:
        value: The share of the ten nearest rows that was found, 0 to 1, over all questions.
        questions: How many were asked.
        ef_search: How many candidates a search kept.
        compared: The share of the rows that the answers were compared with, 0 to 1; below 1 the value is an estimate.
        seconds: How long it took.
    """

    value: float
    questions: int
    ef_search: int
    compared: float
    seconds: float


@dataclass(frozen=True)
class Measurement:
    """What was measured of an index.

    Attributes:
        recall: What searches find.
        rows: How many rows it has: counted, or extrapolated where not all were compared.
        dead_share: Of the entries that the searches met, the share whose rows are dead, 0 to 1.
    """

    recall: Recall
    rows: int
    dead_share: float


class NotMeasured(Exception):
    """Why a recall was not measured, in words."""


def measure_recall(
    connection: Connection, index: HnswIndex, *, sample: int, ef_search: int, seed: int | None = None
) -> Measurement:
    """Search an index with questions made of its own rows, and compare the answers with an exact search.

    One transaction that only reads, on one snapshot: what others publish meanwhile is no fault of the index. The exact
    search looks at every row, up to 5 million comparisons; of a larger table at as many as that allows, drawn by
    page. Takes a few seconds; a statement that takes 15 is given up.

    Args:
        connection: In autocommit mode, its search_path that of our schema; left as it was.
        index: Any of `find_hnsw_indexes`.
        sample: How many questions.
        ef_search: How many candidates a search keeps, 1 to 1000.
        seed: The same seed draws the same rows of an unchanged table.

    Raises:
        NotMeasured: The index cannot be asked, or took too long.
    """
    if not index.is_valid:
        raise NotMeasured("it is being built" if index.is_building else "it is invalid")
    if index.type not in MEASURABLE:
        raise NotMeasured(f"questions of type {index.type} are not made")
    started = time.monotonic()
    random = np.random.default_rng(seed)
    try:
        with _snapshot(connection, ef_search):
            questions = draw_questions(connection, index, sample, random)
            if not questions:
                raise NotMeasured("it has no rows")
            before = connection.execute(_USED, {"oid": index.oid}).fetchone() or (0, 0, 0)
            hits = _search(connection, index, questions)
            after = connection.execute(_USED, {"oid": index.oid}).fetchone() or (0, 0, 0)
            scans, met, live = (new - old for new, old in zip(after, before, strict=True))
            if not scans:
                raise NotMeasured("PostgreSQL answers by another index")
            share = _affordable_share(index, len(questions))
            nearer, compared = _compare(
                connection, index, questions, hits, share, int(random.integers(1 << 31))
            )
    except psycopg.errors.QueryCanceled as exc:
        raise NotMeasured(f"it took more than {_TIMEOUT // 1000} s: try fewer questions") from exc
    rows = round(compared / share)
    found = [
        _recall(hits.get(number, []), nearer.get(number, []), share, rows) for number in range(len(questions))
    ]
    recall = Recall(float(np.mean(found)), len(questions), ef_search, share, time.monotonic() - started)
    return Measurement(recall, rows, (met - live) / met if met else 0.0)


@contextmanager
def _snapshot(connection: Connection, ef_search: int) -> Iterator[None]:
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        connection.execute("SELECT CAST('[1]' AS vector)")  # loads pgvector, and with it its settings
        settings = _SETTINGS | {"hnsw.ef_search": str(ef_search), "hnsw.iterative_scan": "relaxed_order"}
        connection.execute(
            "SELECT set_config(name, value, true) FROM unnest(%s::text[], %s::text[]) AS wanted (name, value)"
            " WHERE current_setting(name, true) IS NOT NULL",
            (list(settings), list(settings.values())),
        )
        yield


_SEARCH = """
WITH question AS MATERIALIZED (
    SELECT number, value::{type} AS rag_question FROM unnest(%(questions)s::text[]) WITH ORDINALITY AS q (value, number)
)
SELECT question.number - 1, hit.place, hit.distance FROM question CROSS JOIN LATERAL (
    SELECT ctid::text AS place, {expression} {operator} rag_question AS distance
    FROM ONLY {table} WHERE {predicate} ORDER BY {expression} {operator} rag_question LIMIT {rows}
) hit ORDER BY question.number, hit.distance
"""


def _search(
    connection: Connection, index: HnswIndex, questions: Sequence[str]
) -> dict[int, list[tuple[str, float]]]:
    """Return the rows that each question finds by the index: place and distance, the nearest first."""
    hits: dict[int, list[tuple[str, float]]] = defaultdict(list)
    cursor = connection.execute(
        _SEARCH.format(**_names(index), rows=ROWS).encode(), {"questions": list(questions)}
    )
    for number, place, distance in cursor.fetchall():
        hits[number].append((place, distance))
    return hits


# Each row's value is read once, out of line, then compared with all questions: the offsets keep that order.
_COMPARE = """
WITH question AS MATERIALIZED (
    SELECT number - 1 AS number, value::{type} AS rag_question, farthest
    FROM unnest(%(questions)s::text[], %(farthest)s::float8[]) WITH ORDINALITY AS q (value, farthest, number)
)
SELECT near.number, count(*), array_agg(compared.place), array_agg(near.distance) FILTER (WHERE near.number IS NOT NULL)
FROM (
    SELECT ctid::text AS place, {read} AS value FROM ONLY {table} {sampled} WHERE {predicate} OFFSET 0
) compared
LEFT JOIN LATERAL (
    SELECT number, compared.value {operator} rag_question AS distance FROM question
    WHERE compared.value {operator} rag_question < farthest OFFSET 0
) near ON true
WHERE compared.value IS NOT NULL
GROUP BY near.number
"""


def _compare(
    connection: Connection,
    index: HnswIndex,
    questions: Sequence[str],
    hits: dict[int, list[tuple[str, float]]],
    share: float,
    seed: int,
) -> tuple[dict[int, list[tuple[float, bool]]], int]:
    """Compare rows with all questions.

    Returns:
        For each question the rows that are nearer than the last that it found: their distance, and whether the index
        found them; and how many rows were compared.
    """
    farthest = [hits[number][-1][1] if number in hits else float("-inf") for number in range(len(questions))]
    names = _names(index)
    expression = names["expression"]
    sampled = f"TABLESAMPLE SYSTEM ({100 * share}) REPEATABLE ({seed})" if share < 1 else ""
    is_read_once = index.dimensions is not None and index.type != "bit"
    read = f"subvector({expression}, 1, {index.dimensions})" if is_read_once else expression
    statement = _COMPARE.format(**names, sampled=sampled, read=read)
    connection.execute("SET LOCAL enable_seqscan = on")
    cursor = connection.execute(statement.encode(), {"questions": list(questions), "farthest": farthest})
    nearer: dict[int, list[tuple[float, bool]]] = {}
    places: set[str] = set()
    compared = 0
    for number, count, found, distances in cursor.fetchall():
        if number is None:
            compared += count
            continue
        places |= set(found)
        known = {place for place, _ in hits[number]}
        nearer[number] = [
            (distance, place in known) for place, distance in zip(found, distances, strict=True)
        ]
    return nearer, compared + len(places)


def _recall(
    hits: Sequence[tuple[str, float]], nearer: Sequence[tuple[float, bool]], share: float, rows: int
) -> float:
    """Return the share of the nearest rows that one question has found.

    A row that was missed stands for ``1 / share`` of them, and counts if it is one of the ten nearest, those that were
    found before it where they are as near. With all rows compared that is the recall itself.
    """
    wanted = min(ROWS, rows)
    if wanted == 0:
        return 1.0
    missed = sorted(distance for distance, is_known in nearer if not is_known)
    among = 0.0
    for place, distance in enumerate(missed):
        before = sum(other <= distance for _, other in hits)
        if before + place / share < wanted:
            among += 1 / share
    short = max(0, wanted - len(hits))  # nothing is known of what is farther than the last that was found
    return max(0.0, 1 - max(among, short) / wanted)


def _affordable_share(index: HnswIndex, questions: int) -> float:
    rows = index.rows if index.rows is not None else index.table_rows
    weight = (index.dimensions or _NUMBERS) / _NUMBERS
    return min(1.0, _COMPARISONS / max(1.0, rows * questions * weight))


def _names(index: HnswIndex) -> dict[str, Any]:
    names = {
        "type": f"{index.type}({index.dimensions})" if index.dimensions else index.type,
        "expression": index.expression,
        "operator": index.operator,
        "predicate": index.predicate or "true",
        "table": sql.Identifier(index.schema, index.stored_table).as_string(),
    }
    return {name: value.replace("%", "%%") for name, value in names.items()}
