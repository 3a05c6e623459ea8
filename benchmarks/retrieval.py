"""Retrieval, side by side: this package, a service on the base schema, langchain-postgres, and llama-index.

    uv run python benchmarks/retrieval.py [--quick] [--only load|search|republish|removal] [--save]

Starts an embedded server of its own in a temporary directory and prints the Markdown of its section of
RESULTS.md: medians of one run, and for each target whether it is met. Makes a virtual environment for each of
the two packages on first use, below ~/.cache. ``--quick`` is for development: few documents, for which exact
scans win, and ratios that mean little.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass

from compare import loading, measuring, peers, removal, results
from compare.history import measure as measure_history
from compare.report import Report
from compare.workload import Workload

from ragschema.database.settings import Database

PARTS = ("load", "search", "republish", "removal")


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        documents: Of the workload.
        loaded: Documents of the first load, which is timed several times over.
        rounds: Of the first load, and of the searches.
        queries: Of each kind.
        hot: Times that one document is published again.
        republished: Documents that are published again once.
        events: Sizes at which documents are deleted.
    """

    documents: int
    loaded: int
    rounds: int
    queries: int
    hot: int
    republished: int
    events: tuple[int, ...]


FULL = Size(2_000, 500, 3, 200, 50, 100, (10_000, 1_000_000))
QUICK = Size(200, 50, 1, 40, 10, 8, (10_000, 50_000))


def run(server: Database, size: Size, parts: tuple[str, ...]) -> Report:
    """Measure the parts that are asked for."""
    report = Report()
    workload = Workload(size.documents)
    if "load" in parts:
        loading.measure(report, server, workload, size.loaded, size.rounds)
    if "search" in parts or "republish" in parts:
        measure_history(report, server, workload, size, parts)
    if "removal" in parts:
        removal.measure(report, server, size.events, size.rounds)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few documents, about a minute")
    parser.add_argument("--only", choices=PARTS, help="measure one part")
    parser.add_argument("--save", action="store_true", help="put the section into RESULTS.md too")
    options = parser.parse_args()
    if options.save and (options.quick or options.only):
        parser.error("--save is for a full run")
    size = QUICK if options.quick else FULL
    start = time.perf_counter()
    with measuring.server() as server:
        report = run(server, size, (options.only,) if options.only else PARTS)
        described = [f"{measuring.describe(server)}."]
    described += [f"{each.name}: {peers.versions(each)}." for each in (peers.LANGCHAIN, peers.LLAMA_INDEX)]
    text = results.section(size, "\n".join(described), report.markdown())
    print(text)
    if options.save:
        results.save(text)
    print(f"{(time.perf_counter() - start) / 60:.1f} minutes", file=sys.stderr)


if __name__ == "__main__":
    main()
