"""Filtered searches, this package beside langchain-postgres and llama-index, by the same filters on the same documents.

    uv run python benchmarks/filters_of_peers.py [--documents 2000] [--queries 100] [--rounds 2]

Starts an embedded server of its own in a temporary directory and prints the Markdown of its section of RESULTS.md.
Documents are those of retrieval.py, in one version, each with two numbers in its metadata: one at random, its topic,
whose documents are near each other. The peers keep them as their documentation says: langchain-postgres in
columns, llama-index in JSON. CPU is of the client and of its backend: medians of the searches, and of blocks of 20.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack

from compare import measuring, peers, searching
from compare.measuring import Meter, fresh, settle
from compare.ours import Ours, OursThroughPsycopg
from compare.peers import LANGCHAIN, LLAMA_INDEX, Peer
from compare.report import OURS, Report
from compare.systems import System
from compare.workload import Workload

from ragschema.database.settings import Database

KINDS = {
    "permille 1": "0.1 % at random",
    "permille 10": "1 % at random",
    "permille 100": "10 % at random",
    "permille 500": "50 % at random",
    "topic 10": "10 % clustered, queries inside",
    "topic 50": "50 % clustered, queries inside",
}


def measure(server: Database, workload: Workload, queries: int, rounds: int) -> Report:
    """Load every system with the workload, and search by each filter."""
    report = Report()
    numbers = range(workload.documents)
    with ExitStack() as stack:
        ours = Ours(fresh(server, "ours"), workload)
        stack.callback(ours.close)
        ours.load_deferred(numbers)
        through_psycopg = OursThroughPsycopg(ours)
        stack.callback(through_psycopg.close)
        systems: list[System] = [ours, through_psycopg]
        for package in (LANGCHAIN, LLAMA_INDEX):
            database = fresh(server, package.script[5:9])
            peer = stack.enter_context(Peer(package, database, workload.documents, is_described=True))
            peer.create(index=False)
            peer.load(numbers, version=1)
            peer.build_index()
            systems.append(peer)
            print(f"loaded: {package.name}", file=sys.stderr)
        for system in systems:
            settle(system.database, "VACUUM ANALYZE")
        meters = {system.name: Meter(system.database) for system in systems}
        for meter in meters.values():
            stack.callback(meter.close)
        exact = searching.Exact(workload, {number: workload.states(number, 1) for number in numbers})
        for kind, title in KINDS.items():
            searching.measure(report, systems, exact, kind, title, queries, rounds, meters)
            report.at_least(f"{title}: rows of 10", report.rows[f"{title}: rows of 10"][OURS], searching.ROWS)
            report.at_least(f"{title}: recall@10", report.rows[f"{title}: recall@10"][OURS], 0.95)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    for name, value in (("documents", 2000), ("queries", 100), ("rounds", 2)):
        parser.add_argument(f"--{name}", type=int, default=value)
    given = parser.parse_args()
    with measuring.server() as server:
        report = measure(server, Workload(given.documents, is_described=True), given.queries, given.rounds)
        print(f"{measuring.describe(server)}.")
    for each in (LANGCHAIN, LLAMA_INDEX):
        print(f"{each.name}: {peers.versions(each)}.")
    print(f"\n{report.markdown()}")


if __name__ == "__main__":
    main()
