"""Six versions of every document, in each system; then disk, searches, a hot document, republishing.

The base schema is written by COPY without its index, which is built at the end: 120,000 rows through an HNSW
index in place would take minutes. The peers keep no history, so they are loaded with the current text and a
fresh index: their best case. Ours goes through every version.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Protocol

from compare import republishing, searching
from compare.base_service import BaseService
from compare.measuring import REPORTED, fresh, settle, table_bytes, vacuum_if_due
from compare.ours import Ours, OursThroughPsycopg
from compare.peers import LANGCHAIN, LLAMA_INDEX, Peer
from compare.report import BASE, OURS, Report
from compare.systems import System
from compare.workload import HOT, VERSIONS, Workload
from ragschema.database.settings import Database

DISK = "disk after six versions, MB"
SEARCH = "search"
HOT_TITLE = "near a hot document"
KINDS = {"article": "filter, 1 article in 100", "title": "filter on title, 1 in 100"}


class Sizes(Protocol):
    """How much is measured: `Size` of retrieval.py."""

    @property
    def rounds(self) -> int: ...
    @property
    def queries(self) -> int: ...
    @property
    def hot(self) -> int: ...
    @property
    def republished(self) -> int: ...


def measure(report: Report, server: Database, workload: Workload, size: Sizes, parts: Sequence[str]) -> None:
    """Put everything that is measured on the full history into the report."""
    with ExitStack() as stack:
        base, ours, *peers = _systems(stack, server, workload, size, "search" in parts)
        assert isinstance(ours, Ours)
        through_psycopg = OursThroughPsycopg(ours)
        stack.callback(through_psycopg.close)
        if "search" in parts:
            _measure_disk(report, base, ours, peers)
            _measure_searches(report, [base, *peers, ours, through_psycopg], workload, size)
            _measure_hot(report, [base, *peers, ours, through_psycopg], workload, size)
        if "republish" in parts:
            republishing.measure(report, [base, *peers, ours], workload, size.republished)


def _systems(
    stack: ExitStack, server: Database, workload: Workload, size: Sizes, history: bool
) -> list[System]:
    """Return the base schema, ours, and the peers, each with the workload; ours with its history if asked."""
    numbers = range(workload.documents)
    base = BaseService(fresh(server, "base"), workload)
    stack.callback(base.close)
    base.drop_index()
    base.load(numbers, VERSIONS)
    _told("base schema: six versions", base.build_index())
    ours = Ours(fresh(server, "ours"), workload)
    stack.callback(ours.close)
    _told("ours: first version", ours.load_deferred(numbers)[1])
    for version in range(2, VERSIONS + 1):
        _told(f"ours: version {version}", ours.publish_versions(numbers, [version]))
        time.sleep(REPORTED)
        ours.search("all", 1, 0, 1)
        time.sleep(REPORTED / 4)
        _told("ours: vacuum", vacuum_if_due(ours.database, "rag_chunks"))
    systems: list[System] = [base, ours]
    by_index_api = republishing.documents_of_ten(workload)[: size.republished + 1]
    others = [number for number in numbers if number not in set(by_index_api)]
    for package in (LANGCHAIN, LLAMA_INDEX):
        peer = stack.enter_context(Peer(package, fresh(server, package.script[5:9]), workload.documents))
        peer.create(index=False)
        first = LANGCHAIN.ways[0] if package is LANGCHAIN else ""
        seconds = peer.load(others, VERSIONS) + peer.load(by_index_api, VERSIONS, first)
        _told(f"{package.name}: current text", seconds + peer.build_index())
        systems.append(peer)
    for system in systems:
        settle(system.database)
    return systems


def _measure_disk(report: Report, base: System, ours: System, peers: Sequence[System]) -> None:
    for system in (base, ours):
        report.put(DISK, system.name, table_bytes(system.database) / 1e6)
    for peer in peers:
        report.put("disk of the current text alone, MB", peer.name, table_bytes(peer.database) / 1e6)
    report.at_most(
        "disk after six versions / base schema's", report.rows[DISK][OURS] / report.rows[DISK][BASE], 0.4
    )


def _measure_searches(report: Report, systems: Sequence[System], workload: Workload, size: Sizes) -> None:
    states = {number: workload.states(number, VERSIONS) for number in range(workload.documents)}
    exact = searching.Exact(workload, states)
    searching.measure(report, systems, exact, "all", SEARCH, size.queries, size.rounds)
    searching.set_targets(report, SEARCH, 0.97, timed=True)
    for kind, title in KINDS.items():
        searching.measure(report, systems, exact, kind, title, size.queries, size.rounds)
        searching.set_targets(report, title, 0.95, timed=False)


def _measure_hot(report: Report, systems: Sequence[System], workload: Workload, size: Sizes) -> None:
    """Publish one document again and again, each time with every chunk slightly changed; search near it."""
    states = {number: workload.states(number, VERSIONS) for number in range(workload.documents)}
    for number in range(size.hot):
        states[HOT] = [100 + number] * len(states[HOT])
        for system in systems:
            if not isinstance(system, OursThroughPsycopg):
                way = LANGCHAIN.ways[1] if system.name == LANGCHAIN.name else ""
                system.republish(HOT, states[HOT], way)
    exact = searching.Exact(workload, states)
    searching.measure(report, systems, exact, "hot", HOT_TITLE, size.queries, size.rounds)
    searching.set_targets(report, HOT_TITLE, 0.97, timed=False)
    start = time.perf_counter()
    settle(systems[-1].database, "VACUUM ANALYZE")
    report.put("VACUUM after all this, s", OURS, time.perf_counter() - start)
    searching.measure(report, systems[-2:], exact, "hot", f"{HOT_TITLE}, vacuumed", size.queries, size.rounds)


def _told(what: str, seconds: float) -> float:
    print(f"{what}: {seconds:.1f} s", file=sys.stderr)
    return seconds
