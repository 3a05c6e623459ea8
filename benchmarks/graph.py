"""The graph: what walks cost beside a recursive query, what a hub costs, and how fast Neo4j's exports are imported.

    uv run python benchmarks/graph.py [--entities N] [--relations N] [--rounds N] [--imported N]

200,000 entities and 1,000,000 relations by default, of which one entity has 100,000. Starts an embedded server of its own
in a temporary directory and prints the Markdown of its section of RESULTS.md. The two ways of walking take turns in one
run, from the same entities; their times are medians by the clock, and the CPU time of the server's process beside them.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ragschema import create_engine, embedded, migrations
from ragschema.database.options import find_options
from ragschema.database.settings import Database
from ragschema.graph import neighbours, paths

HEADING = "## The graph: graph.py"
HUB = 1
HOP_MOST = {1: 5, 2: 20, 3: 100}
HUB_MOST = 50
IMPORT_LEAST = 20_000
_ID = "CAST(lpad(to_hex({}), 32, '0') AS uuid)"
FILL = (
    """
    INSERT INTO rag_entities (id, entity_type, name, is_current, is_imported)
    SELECT {id}, (ARRAY['person', 'place', 'product', 'company'])[1 + n % 4], 'Entity ' || n, true, true
    FROM generate_series(1, :entities) n
    """.format(id=_ID.format("n")),
    # squared, so that some entities have many relations; a tenth of all are the hub's
    """
    INSERT INTO rag_relations (source_id, relation_type, target_id, weight, is_current, is_imported)
    SELECT {source}, 'type ' || n % 20, {target}, random(), true, true
    FROM (
        SELECT n, CASE WHEN n % 10 = 0 THEN 1 ELSE 1 + floor(random() * random() * :entities)::int END AS source,
            1 + floor(random() * :entities)::int AS target
        FROM generate_series(1, :relations) n
    ) pairs
    ON CONFLICT DO NOTHING
    """.format(source=_ID.format("source"), target=_ID.format("target")),
)
RECURSIVE = sa.text("""
WITH RECURSIVE walk (id, hops) AS (
    SELECT CAST(:id AS uuid), 0
    UNION
    SELECT f.id, w.hops + 1
    FROM walk w CROSS JOIN LATERAL (
        (SELECT r.target_id AS id, r.weight FROM rag_relations r WHERE r.is_current AND r.source_id = w.id
         ORDER BY r.weight DESC, r.id LIMIT 25)
        UNION ALL
        (SELECT r.source_id, r.weight FROM rag_relations r WHERE r.is_current AND r.target_id = w.id
         ORDER BY r.weight DESC, r.id LIMIT 25)
        ORDER BY weight DESC LIMIT 25
    ) f
    WHERE w.hops < :hops
)
SELECT e.id, e.entity_type, e.name, min(w.hops) AS hops
FROM walk w JOIN rag_entities e ON e.id = w.id AND e.is_current
GROUP BY e.id ORDER BY min(w.hops)
""").columns(id=sa.Uuid())


@dataclass(frozen=True)
class Cost:
    """Milliseconds by the clock and of the server's CPU, and how many entities were found."""

    clock: float
    cpu: float
    found: float


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--entities", type=int, default=200_000)
    parser.add_argument("--relations", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument(
        "--imported", type=int, default=200_000, help="Relations of the file that is imported."
    )
    given = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        with embedded.running(directory / "postgres", makes=True) as parameters:
            database = Database({**parameters, "dbname": "postgres"}, "the benchmark")
            migrations.upgrade(database)
            fill(database, given.entities, given.relations)
            walks = measure_walks(database, given.entities, given.rounds)
            rates = measure_import(database, directory, given.imported)
    return report(given, walks, rates, (load, os.getloadavg()[0]))


def fill(database: Database, entities: int, relations: int) -> None:
    engine = sa.create_engine(database.url(), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in ("SELECT setseed(0.42)", *FILL):
            connection.execute(sa.text(statement), {"entities": entities, "relations": relations})
        connection.execute(sa.text("VACUUM (ANALYZE)"))
    engine.dispose()


def measure_walks(database: Database, entities: int, rounds: int) -> dict[str, tuple[Cost, Cost | None]]:
    """Return what each walk costs, and the recursive query of the same beside it."""
    engine = create_engine(database.libpq_url())
    chosen = random.Random(7)
    found: dict[str, tuple[Cost, Cost | None]] = {}
    with Session(engine) as session:
        pid = int(session.execute(sa.text("SELECT pg_backend_pid()")).scalar_one())
        cases: list[tuple[str, int, list[UUID]]] = [
            (f"{hops} hops" if hops > 1 else "1 hop", hops, []) for hops in HOP_MOST
        ]
        for name, hops, ids in cases:
            ids += [UUID(int=chosen.randint(2, entities)) for _ in range(rounds)]
            found[name] = measure_pair(session, pid, ids, hops)
        found["the hub, 2 hops"] = measure_pair(session, pid, [UUID(int=HUB)] * rounds, 2)
        pairs = [
            (UUID(int=chosen.randint(2, entities)), UUID(int=chosen.randint(2, entities)))
            for _ in range(rounds)
        ]
        measured = [measure(pid, lambda: paths(session, a, b)) for a, b in pairs]  # noqa: B023
        found["a path of at most 4"] = (median(measured), None)
    engine.dispose()
    return found


def measure_pair(session: Session, pid: int, ids: list[UUID], hops: int) -> tuple[Cost, Cost]:
    ours, recursive = [], []
    for each in ids:
        ours.append(measure(pid, lambda: neighbours(session, [each], hops=hops)))  # noqa: B023
        values = {"id": each, "hops": hops}
        recursive.append(measure(pid, lambda: session.execute(RECURSIVE, values).all()))  # noqa: B023
    return median(ours), median(recursive)


def measure(pid: int, work: Callable[[], list[object]]) -> Cost:
    before, started = cpu(pid), time.perf_counter()
    found = len(work())
    return Cost((time.perf_counter() - started) * 1e3, cpu(pid) - before, found)


def cpu(pid: int) -> float:
    """Return the milliseconds of CPU that the server's process has taken, from Linux's count."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e6


def median(costs: list[Cost]) -> Cost:
    return Cost(
        *(statistics.median(getattr(each, name) for each in costs) for name in ("clock", "cpu", "found"))
    )
