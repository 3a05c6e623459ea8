"""The graph: what walks cost beside a recursive query, what a hub costs, and how fast Neo4j's exports are imported.

    uv run python benchmarks/graph.py [--entities N] [--relations N] [--rounds N] [--imported N]

200,000 entities and 1,000,000 relations by default, of which one entity has 100,000. Starts an embedded server of its
own in a temporary directory and prints the Markdown of its section of RESULTS.md. The ways of walking take turns in one
run, from the same entities; their times are medians by the clock, and the CPU time of the server's process.
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
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
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
from ragschema.importing.neo4j import import_graph

HEADING = "## The graph: graph.py"
HUB = 1
HOP_MOST = {1: 5, 2: 20, 3: 100}
HUB_MOST = 50
IMPORT_LEAST = 20_000
PLAIN_ROUNDS = 3  # it takes seconds, where a hub is near
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
PLAIN = sa.text("""
WITH RECURSIVE walk (id, hops) AS (
    SELECT CAST(:id AS uuid), 0
    UNION
    SELECT f.id, w.hops + 1
    FROM walk w CROSS JOIN LATERAL (
        SELECT r.target_id AS id FROM rag_relations r WHERE r.is_current AND r.source_id = w.id
        UNION ALL
        SELECT r.source_id FROM rag_relations r WHERE r.is_current AND r.target_id = w.id
    ) f
    WHERE w.hops < :hops
)
SELECT e.id, e.entity_type, e.name, min(w.hops) AS hops
FROM walk w JOIN rag_entities e ON e.id = w.id AND e.is_current
GROUP BY e.id ORDER BY min(w.hops) LIMIT 1500
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


def measure_walks(database: Database, entities: int, rounds: int) -> dict[str, tuple[Cost, ...]]:
    """Return what each walk costs, and the recursive query of the same beside it."""
    engine = create_engine(database.libpq_url())
    chosen = random.Random(7)
    found: dict[str, tuple[Cost, ...]] = {}
    with Session(engine) as session:
        pid = int(session.execute(sa.text("SELECT pg_backend_pid()")).scalar_one())
        cases: list[tuple[str, int, list[UUID]]] = [
            (f"{hops} hops" if hops > 1 else "1 hop", hops, []) for hops in HOP_MOST
        ]
        for name, hops, ids in cases:
            ids += [UUID(int=chosen.randint(2, entities)) for _ in range(rounds)]
            found[name] = measure_ways(session, pid, ids, hops)
        found["the hub, 2 hops"] = measure_ways(session, pid, [UUID(int=HUB)] * rounds, 2)
        pairs = [
            (UUID(int=chosen.randint(2, entities)), UUID(int=chosen.randint(2, entities)))
            for _ in range(rounds)
        ]
        measured = [measure(pid, lambda: paths(session, a, b)) for a, b in pairs]  # noqa: B023
        found["a path of at most 4"] = (median(measured),)
    engine.dispose()
    return found


def measure_ways(session: Session, pid: int, ids: list[UUID], hops: int) -> tuple[Cost, ...]:
    """Return the costs of our walk, of the recursive query with the same fanout, and of the plain one, by turns."""
    costs: tuple[list[Cost], ...] = ([], [], [])
    for number, each in enumerate(ids):
        values = {"id": each, "hops": hops}
        works = (
            lambda: neighbours(session, [each], hops=hops),  # noqa: B023
            lambda: session.execute(RECURSIVE, values).all(),  # noqa: B023
            lambda: session.execute(PLAIN, values).all(),  # noqa: B023
        )
        for kept, work in zip(costs, works if number < PLAIN_ROUNDS else works[:2], strict=False):
            kept.append(measure(pid, work))
    return tuple(map(median, costs))


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


@dataclass(frozen=True)
class Rate:
    """Relations a second by the clock; microseconds of CPU that one took client and server; the client's peak in MB."""

    clock: float
    client: float
    server: float
    memory: int


def measure_import(database: Database, directory: Path, relations: int) -> Rate:
    """Return how fast JSON lines of apoc.export.json are imported, beside the relations that are there."""
    path = directory / "exported.jsonl"
    chosen = random.Random(11)
    nodes = max(10, relations // 5)
    with path.open("w") as out:
        for number in range(nodes):
            properties = {"name": f"Imported {number}", "born": "2015-07-04", "age": number % 90}
            out.write(
                json.dumps(
                    {"type": "node", "id": str(number), "labels": ["Person"], "properties": properties}
                )
                + "\n"
            )
        for number in range(relations):
            start, end = chosen.randrange(nodes), chosen.randrange(nodes)
            row = {
                "id": str(number),
                "type": "relationship",
                "label": f"TYPE_{number % 5}",
                "properties": {"since": 1990 + number % 30},
                "start": {"id": str(start), "labels": ["Person"]},
                "end": {"id": str(end), "labels": ["Person"]},
            }
            out.write(json.dumps(row) + "\n")
    own, started = time.process_time(), time.perf_counter()
    with watched(database) as server:
        done = import_graph(find_options(database), [path])
    assert done.relationships == relations, done
    seconds, spent = time.perf_counter() - started, (time.process_time() - own, server())
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    client, ours = (each / relations * 1e6 for each in spent)
    return Rate(relations / seconds, client, ours, memory)


@contextmanager
def watched(database: Database) -> Iterator[Callable[[], float]]:
    """Yield what says the seconds of CPU of the server's processes since, those that have ended meanwhile too."""
    engine = sa.create_engine(database.url())
    with engine.connect() as connection:
        directory = Path(str(connection.execute(sa.text("SHOW data_directory")).scalar_one()))
    engine.dispose()
    postmaster = int((directory / "postmaster.pid").read_text().split()[0])
    before = of_children(postmaster)
    yield lambda: of_children(postmaster) - before


def of_children(pid: int) -> float:
    """Return the seconds of CPU of a process's children, living and gone."""
    ticks = os.sysconf("SC_CLK_TCK")
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    total = (int(fields[13]) + int(fields[14])) / ticks
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        with suppress(OSError):
            total += cpu(int(child)) / 1e3
    return total


def report(
    given: argparse.Namespace, walks: dict[str, tuple[Cost, ...]], rate: Rate, loads: tuple[float, float]
) -> int:
    """Print the section; return how many targets are missed by the clock."""
    command = " ".join(["uv run python benchmarks/graph.py", *sys.argv[1:]])
    print(f"{HEADING}\n\n`{command}`, {date.today()}\n")
    print(
        f"{given.entities:,} entities, {given.relations:,} relations, a tenth of them of one hub. The load of the two"
        f" cores was {loads[0]:.1f} before and {loads[1]:.1f} after. Medians of {given.rounds}; ms by the clock, and"
        " of the server's CPU.\n"
    )
    print(
        "| walk | ours: ms, CPU, found | recursive, same fanout | recursive, plain | target | by the clock, by CPU |"
    )
    print("|---|---|---|---|---|---|")
    missed = 0
    mosts = {
        **{f"{hops} hops" if hops > 1 else "1 hop": most for hops, most in HOP_MOST.items()},
        "the hub, 2 hops": HUB_MOST,
    }
    for name, costs in walks.items():
        shown = [f"{each.clock:.1f}, {each.cpu:.2f}, {each.found:.0f}" for each in costs]
        shown += ["-"] * (3 - len(shown))
        most = mosts.get(name)
        verdict = "-"
        if most is not None:
            verdict = ", ".join(
                "met" if each <= most else "missed" for each in (costs[0].clock, costs[0].cpu)
            )
            missed += costs[0].clock > most
        print(f"| {name} | {' | '.join(shown)} | {'-' if most is None else f'at most {most}'} | {verdict} |")
    missed += rate.clock < IMPORT_LEAST
    print(
        f"\nImport of {given.imported:,} relationships between {given.imported // 5:,} nodes: {rate.clock:,.0f}"
        f" relations/s by the clock; at least {IMPORT_LEAST:,} wanted. A relation, and its share of the nodes, took"
        f" {rate.client:.0f} us of CPU of the client and {rate.server:.0f} us of the server, at once: with a core for"
        f" each at most {1e6 / max(rate.client, rate.server):,.0f}/s. Peak memory of the client {rate.memory:,} MB."
    )
    return missed


if __name__ == "__main__":
    sys.exit(main())
