"""Searches by embedding models: the column beside partitions, then this package beside its peers at 1,536 dimensions.

    uv run python benchmarks/models.py [--quick] [--documents N] [--only models|peers] [--save]

Starts an embedded server of its own in a temporary directory and prints the Markdown of its section of RESULTS.md:
medians of one run, and for each target whether it is met. The peers are installed as for retrieval.py. ``--quick`` is
for development: few documents, for which exact scans win.
"""

from __future__ import annotations

import argparse
import gc
import re
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from uuid import UUID

import numpy as np
import sqlalchemy as sa
from compare import measuring, peers, searching
from compare.ours import Ours, OursThroughPsycopg
from compare.report import Report, Target
from compare.workload import Vector, Workload
from sqlalchemy.orm import Session

from ragschema import EmbeddingModel, nearest_chunks, store_embeddings
from ragschema.database.settings import Database
from ragschema.embedding_models import add_model, find_model, index_model
from ragschema.schema.embedding_models import IndexType

HEADING = "## Searches by embedding models: models.py"
RESULTS = Path(__file__).parent / "RESULTS.md"
ROWS = 10
DIMENSION = 1_536  # of the comparison with the peers
MODELS: dict[str, tuple[int, IndexType]] = {
    "768, halfvec": (768, "halfvec"),
    "768, vector": (768, "vector"),
    "1,024, halfvec": (1_024, "halfvec"),
    "1,536, halfvec": (1_536, "halfvec"),
    "3,072, halfvec": (3_072, "halfvec"),
    "5,000, bit": (5_000, "bit"),
}
"""Models beside the column, all of them live while each is searched."""


@dataclass(frozen=True)
class Way:
    """A model, and how a search names it.

    Attributes:
        name: Its row of the table.
        model: Its key, or itself.
        queries: Shape ``(n, dimensions)``.
        nearest: The ten nearest chunks of each, by its float32 embeddings.
    """

    name: str
    model: str | EmbeddingModel
    queries: Vector
    nearest: list[set[UUID]]


@dataclass(frozen=True)
class Measured:
    """Medians of the rounds, in microseconds of a search."""

    client: float
    server: float
    wall: float
    recall: float

    @property
    def cpu(self) -> float:
        return self.client + self.server


def measure_models(server: Database, documents: int, queries: int, rounds: int) -> list[str]:
    """Return the table of the column and of every other model, in one database."""
    column = Workload(documents)
    with ExitStack() as stack:
        ours = Ours(measuring.fresh(server, "models"), column)
        stack.callback(ours.close)
        ours.load_deferred(range(documents))
        print("loaded the column", file=sys.stderr)
        with ours.engine.connect() as connection:
            texts = {
                row.id: row.content
                for row in connection.execute(sa.text("SELECT id, content FROM rag_chunks"))
            }
        asked = {}
        for key, (dimension, index_type) in {"default": (768, "vector"), **MODELS}.items():
            workload = column if dimension == 768 else Workload(documents, dimension=dimension)
            ids, vectors = [*texts], np.stack([workload.embed(text) for text in texts.values()])
            asked[key] = _ask(workload, queries, ids, vectors)
            if key != "default":
                _add(ours, key, dimension, index_type, ids, vectors)
        ways = [way for key, question in asked.items() for way in _ways(ours, key, *question)]
        measuring.settle(ours.database, "VACUUM ANALYZE")
        table = _table(_measure(ours, ways, rounds))
    print("\n".join(table), file=sys.stderr)
    return table


def _add(
    ours: Ours, key: str, dimension: int, index_type: IndexType, ids: Sequence[UUID], vectors: Vector
) -> None:
    add_model(ours.database, key, dimension, index_type=index_type)
    for first in range(0, len(ids), 1_000):
        chosen = slice(first, first + 1_000)
        with ours.engine.begin() as connection:
            store_embeddings(connection, ids[chosen], vectors[chosen], key)
    with ours.engine.begin() as connection:
        connection.execute(
            sa.text("UPDATE rag_embedding_models SET state = 'standby' WHERE key = :key"), {"key": key}
        )
    start = time.perf_counter()
    index_model(ours.database, key)
    print(f"{key}: stored, and indexed in {time.perf_counter() - start:.1f} s", file=sys.stderr)


def _ask(
    workload: Workload, queries: int, ids: Sequence[UUID], vectors: Vector
) -> tuple[Vector, list[set[UUID]]]:
    """Return queries, and the ten nearest of each."""
    asked = np.stack([query.embedding for query in workload.queries(queries)])
    order = np.argsort(-(asked @ vectors.T), axis=1)[:, :ROWS]
    return asked, [{ids[place] for place in places} for places in order]


def _ways(ours: Ours, key: str, asked: Vector, nearest: list[set[UUID]]) -> list[Way]:
    with ours.engine.connect() as connection:
        model = find_model(connection, key)
    ways = [Way(f"{key}, itself", model, asked, nearest)]
    if model.index_type != "vector" or key == "default":  # what a search assumes of a key
        ways.insert(0, Way(f"{key}, by its key", key, asked, nearest))
    return ways


def _measure(ours: Ours, ways: Sequence[Way], rounds: int) -> dict[str, Measured]:
    """Time each way in turn, on a connection of its own; the first round warms up, and its answers count."""
    meter = measuring.Meter(ours.database)
    times: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
    recalls: dict[str, float] = {}
    gc.disable()
    for turn in range(rounds + 1):
        for way in [*ways[turn % len(ways) :], *ways[: turn % len(ways)]]:
            server, client, wall, found = meter.cpu(), time.process_time(), [], []
            for query in way.queries:
                start = time.perf_counter()
                with Session(ours.engine) as session, session.begin():
                    rows = session.execute(nearest_chunks(query, model=way.model, limit=ROWS)).all()
                wall.append(time.perf_counter() - start)
                found.append({row.chunk_id for row in rows})
            client, server = time.process_time() - client, meter.cpu() - server
            if turn:
                each = len(way.queries)
                times[way.name].append((client / each, server / each, statistics.median(wall)))
            else:
                recalls[way.name] = float(
                    np.mean([len(a & b) / ROWS for a, b in zip(found, way.nearest, strict=True)])
                )
        gc.collect()
    meter.close()
    return {
        name: Measured(
            *(1e6 * statistics.median(column) for column in zip(*each, strict=True)), recalls[name]
        )
        for name, each in times.items()
    }


def _table(measured: dict[str, Measured]) -> list[str]:
    column = measured["default, itself"]
    lines = [
        "| model | client µs | server µs | CPU against the column's | p50 ms | recall@10 |",
        "|---|---|---|---|---|---|",
    ]
    for name, each in measured.items():
        lines.append(
            f"| {name} | {each.client:,.0f} | {each.server:,.0f} | {each.cpu / column.cpu:.2f}"
            f" | {each.wall / 1e3:.2f} | {each.recall:.3f} |"
        )
    ratio = measured["768, halfvec, by its key"].cpu / column.cpu
    target = Target("a partition of the same vectors, CPU against the column's", ratio, 1.1, at_most=True)
    return [*lines, "", "| target | wanted | measured | |", "|---|---|---|---|", target.markdown()]


def measure_peers(server: Database, documents: int, queries: int, rounds: int) -> list[str]:
    """Return the tables of the comparison with the peers: the same vectors, each in its own database."""
    workload = Workload(documents, dimension=DIMENSION)
    report = Report()
    with ExitStack() as stack:
        ours = Ours(measuring.fresh(server, "ours"), workload, model="large")
        stack.callback(ours.close)
        ours.load_deferred(range(documents))
        through_psycopg = OursThroughPsycopg(ours)
        stack.callback(through_psycopg.close)
        others = []
        for package in (peers.LANGCHAIN, peers.LLAMA_INDEX):
            database = measuring.fresh(server, package.script[5:9])
            peer = stack.enter_context(peers.Peer(package, database, documents, DIMENSION))
            peer.create(index=False)
            peer.load(range(documents), 1)
            peer.build_index()
            others.append(peer)
            print(f"loaded {package.name}", file=sys.stderr)
        systems = [*others, ours, through_psycopg]
        for system in systems:
            measuring.settle(system.database, "VACUUM ANALYZE")
        states = {number: workload.states(number, 1) for number in range(documents)}
        exact = searching.Exact(workload, states)
        title = f"search, {DIMENSION:,} dimensions"
        searching.measure(report, systems, exact, "all", title, queries, rounds)
        searching.set_targets(report, title, 0.97, timed=True)
        for system in systems:
            report.put("disk, MB", system.name, measuring.table_bytes(system.database) / 1e6)
    return report.markdown().splitlines()


METHOD = """\
{documents:,} documents of 8 to 12 chunks: clustered unit vectors as in retrieval.py, {queries} queries,
{rounds} rounds; medians, side by side in one run. CPU is of the client (SQLAlchemy, statement and rows
included) and of its backend. Recall is against the float32 vectors. Ours keeps 80 candidates by default, the
peers 40. All models are live while each is searched; "itself" is a search by the `EmbeddingModel`, for which
one table is planned.
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="200 documents, about a minute")
    parser.add_argument("--documents", type=int, default=2_000, help="2,000: 20,000 chunks")
    parser.add_argument("--only", choices=("models", "peers"), help="measure one part")
    parser.add_argument("--save", action="store_true", help="put the section into RESULTS.md too")
    options = parser.parse_args()
    if options.save and (options.quick or options.only):
        parser.error("--save is for a full run")
    documents, queries, rounds = (200, 40, 2) if options.quick else (options.documents, 200, 5)
    lines = []
    with measuring.server() as server:
        described = f"{measuring.describe(server)}."
        if options.only != "peers":
            lines += ["", *measure_models(server, documents, queries, rounds)]
        if options.only != "models":
            described += "".join(
                f"\n{each.name}: {peers.versions(each)}." for each in (peers.LANGCHAIN, peers.LLAMA_INDEX)
            )
            lines += ["", *measure_peers(server, documents, queries, rounds)]
    command = f"`uv run python benchmarks/models.py --documents {documents}`, {date.today().isoformat()}."
    method = METHOD.format(documents=documents, queries=queries, rounds=rounds)
    text = "\n".join([HEADING, "", command, "", method, described, *lines]) + "\n"
    print(text)
    if options.save:
        save(text)


def save(text: str) -> None:
    """Put the section into RESULTS.md, in place of the one before."""
    results = RESULTS.read_text()
    pattern = re.compile(rf"^{re.escape(HEADING)}\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
    kept = pattern.sub("", results).rstrip()
    RESULTS.write_text(f"{kept}\n\n{text}")


if __name__ == "__main__":
    main()
