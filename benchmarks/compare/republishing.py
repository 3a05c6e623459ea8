"""Re-ingest one changed document of 10 chunks with one edited: time, server CPU, WAL, rows, texts embedded."""

from __future__ import annotations

import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from compare.measuring import REPORTED, Meter, connect
from compare.peers import LANGCHAIN, LLAMA_INDEX, Peer
from compare.report import BASE, OURS, Report
from compare.report import LANGCHAIN as LANGCHAIN_NAME
from compare.systems import System
from compare.workload import HOT, Workload

CHUNKS = 10
WAL = "WAL kB"
WAL_AND_IMAGES = "WAL kB with page images, after a checkpoint"


@dataclass(frozen=True, eq=False)
class Way:
    """A system and the way it re-ingests; the documents it does so with."""

    system: System
    way: str
    documents: Sequence[int]

    @property
    def label(self) -> str:
        return f", {self.way}" if self.way and self.way != LLAMA_INDEX.ways[0] else ""


def documents_of_ten(workload: Workload) -> list[int]:
    """Return the documents with ten chunks, but for the hot one."""
    return [number for number, count in enumerate(workload.chunk_counts) if count == CHUNKS and number != HOT]


def measure(report: Report, systems: Sequence[System], workload: Workload, rounds: int) -> None:
    """Put medians into the report, all systems in turn in each round; the first round warms up.

    langchain-postgres has two ways, each with documents of its own: the indexing API knows only what it wrote.
    """
    candidates = documents_of_ten(workload)[: 2 * rounds + 2]
    halves = candidates[: rounds + 1], candidates[rounds + 1 :]
    rounds = min(rounds, len(halves[1]) - 1)
    ways = []
    for system in systems:
        if isinstance(system, Peer) and system.package is LANGCHAIN:
            ways += [Way(system, way, half) for way, half in zip(LANGCHAIN.ways, halves, strict=True)]
        else:
            ways.append(Way(system, "", halves[0]))
    with connect(systems[0].database) as connection:
        connection.execute("CHECKPOINT")
    seconds: dict[Way, list[float]] = defaultdict(list)
    cpu: dict[Way, list[float]] = defaultdict(list)
    wal: dict[Way, list[tuple[int, int]]] = defaultdict(list)
    texts: dict[Way, list[int]] = defaultdict(list)
    for number in range(rounds + 1):
        for way in ways:
            meter = Meter(way.system.database)
            document = way.documents[number]
            states = workload.states(document, 6)
            states[number % CHUNKS] = 50
            wal_before, cpu_before = meter.wal(), meter.cpu()
            done = way.system.republish(document, states, way.way)
            if number:
                seconds[way].append(done.seconds)
                texts[way].append(done.texts_sent)
                cpu[way].append(meter.cpu() - cpu_before)
                wal[way].append(meter.wal_bytes(wal_before))
            meter.close()
    for way in ways:
        name = way.system.name
        report.put(f"republish{way.label}: ms", name, 1e3 * statistics.median(seconds[way]))
        report.put(f"republish{way.label}: server CPU ms", name, 1e3 * statistics.median(cpu[way]))
        records = statistics.median(records for records, _ in wal[way])
        both = statistics.median(records + images for records, images in wal[way])
        report.put(f"republish{way.label}: {WAL}", name, records / 1e3)
        report.put(f"republish{way.label}: {WAL_AND_IMAGES}", name, both / 1e3)
        report.put(f"republish{way.label}: rows written", name, _rows_written(way, workload, rounds))
        report.put(f"republish{way.label}: texts embedded", name, statistics.median(texts[way]))
    print("republished", file=sys.stderr)
    _set_targets(report)


def _rows_written(way: Way, workload: Workload, rounds: int) -> float:
    """Republish one more document; count the rows that its database was told of."""
    document = way.documents[rounds]
    states = workload.states(document, 6)
    states[(rounds + 1) % CHUNKS] = 51
    meter = Meter(way.system.database)
    before = _reported(way.system, meter)
    way.system.republish(document, states, way.way)
    after = _reported(way.system, meter)
    meter.close()
    return after - before


def _reported(system: System, meter: Meter) -> int:
    """Return the rows written, when the backend has had two occasions to report them: it may skip one."""
    for _ in range(2):
        time.sleep(REPORTED)
        system.search("all", 1, 0, 1)
    time.sleep(REPORTED / 4)
    return meter.rows()


def _set_targets(report: Report) -> None:
    rows = report.rows
    cpu, wal, images, texts = (
        rows[f"republish: {what}"] for what in ("server CPU ms", WAL, WAL_AND_IMAGES, "texts embedded")
    )
    report.at_most("republish: server CPU / base schema's", cpu[OURS] / cpu[BASE], 0.5)
    report.at_most("republish: WAL / base schema's", wal[OURS] / wal[BASE], 1 / 3)
    report.at_most("republish: WAL with page images / base schema's", images[OURS] / images[BASE], 1 / 3)
    ms = rows["republish: ms"]
    times = [ms[LLAMA_INDEX.name], *(rows[f"republish, {way}: ms"][LANGCHAIN_NAME] for way in LANGCHAIN.ways)]
    report.at_most("republish: time / best peer's", ms[OURS] / min(times), 0.4)
    report.at_most("republish: texts sent to the embedder, 1 changed", texts[OURS], 1)
