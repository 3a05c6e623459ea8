"""First load: rows a second, without the HNSW index, with it in place, and with it built afterwards."""

from __future__ import annotations

import statistics
import sys
import time
from collections import defaultdict
from datetime import UTC, datetime
from uuid import uuid4

from pgvector.psycopg import register_vector

from compare.base_service import CHUNK_COLUMNS, BaseService, copy_rows
from compare.measuring import connect, fresh
from compare.ours import Ours
from compare.peers import LANGCHAIN, LLAMA_INDEX, Peer
from compare.report import BASE, OURS, Report
from compare.report import LANGCHAIN as LANGCHAIN_NAME
from compare.report import LLAMA_INDEX as LLAMA_INDEX_NAME
from compare.workload import Workload
from ragschema.database.settings import Database

BARE = "bare COPY into an unlogged table, rows/s"
COPY = "first load without the HNSW index, COPY, rows/s"
ORM = "first load without the HNSW index, ORM, rows/s"
PUBLISH = "first load without the HNSW index, a publish per document, rows/s"
IN_PLACE = "first load, index in place, rows/s"
DEFERRED = "first load, index built afterwards, rows/s in total"

Seconds = dict[tuple[str, str], list[float]]


def measure(report: Report, server: Database, workload: Workload, documents: int, rounds: int) -> None:
    """Put the medians of the rounds into the report; systems take turns, each in a new database."""
    numbers = range(documents)
    rows = int(workload.chunk_counts[:documents].sum())
    seconds: Seconds = defaultdict(list)
    for number in range(rounds):
        seconds[BARE, OURS].append(_bare_copy(fresh(server, "load_bare"), workload, documents))
        _load_base(seconds, server, workload, numbers)
        _load_ours(seconds, server, workload, numbers)
        for package in (LANGCHAIN, LLAMA_INDEX):
            with Peer(package, fresh(server, "load_peer"), workload.documents) as peer:
                peer.create(index=False)
                plain = peer.load(numbers, 1)
                seconds[ORM, package.name].append(plain)
                seconds[DEFERRED, package.name].append(plain + peer.build_index())
                peer.create(index=True)
                seconds[IN_PLACE, package.name].append(peer.load(numbers, 1))
        print(f"load: round {number + 1} of {rounds}", file=sys.stderr)
    for title in (BARE, COPY, ORM, PUBLISH, IN_PLACE, DEFERRED):
        for (measured, name), values in seconds.items():
            if measured == title:
                report.put(title, name, rows / statistics.median(values))
    _set_targets(report)


def _load_base(seconds: Seconds, server: Database, workload: Workload, numbers: range) -> None:
    base = BaseService(fresh(server, "load_base"), workload)
    seconds[IN_PLACE, BASE].append(base.load(numbers, 1))
    base.empty()
    base.drop_index()
    plain = base.load(numbers, 1)
    seconds[COPY, BASE].append(plain)
    seconds[DEFERRED, BASE].append(plain + base.build_index())
    base.close()


def _load_ours(seconds: Seconds, server: Database, workload: Workload, numbers: range) -> None:
    ours = Ours(fresh(server, "load_ours"), workload)
    seconds[IN_PLACE, OURS].append(ours.load(numbers))
    ours.empty()
    plain, total = ours.load_deferred(numbers)
    seconds[COPY, OURS].append(plain)
    seconds[DEFERRED, OURS].append(total)
    ours.empty()
    ours.drop_index()
    seconds[ORM, OURS].append(ours.load_by_orm(numbers))
    ours.empty()
    seconds[PUBLISH, OURS].append(ours.load_by_publish(numbers))
    ours.close()


def _bare_copy(database: Database, workload: Workload, documents: int) -> float:
    """Copy the same chunks into a table with the same columns and nothing else: the floor."""
    texts = [text for number in range(documents) for text in workload.texts(number, 1)]
    embeddings = [workload.embed(text) for text in texts]
    with connect(database) as connection:
        register_vector(connection)
        columns = ", ".join(f"{name} {kind}" for name, kind in CHUNK_COLUMNS.items())
        connection.execute(f"CREATE UNLOGGED TABLE chunks ({columns})".encode())
        now = datetime.now(UTC)
        rows = [
            (uuid4(), uuid4(), number, text, embedding, now)
            for number, (text, embedding) in enumerate(zip(texts, embeddings, strict=True))
        ]
        start = time.perf_counter()
        copy_rows(connection, "chunks", CHUNK_COLUMNS, rows)
        return time.perf_counter() - start


def _set_targets(report: Report) -> None:
    rows = report.rows
    copy = rows[COPY][OURS]
    best = max(rows[ORM][LANGCHAIN_NAME], rows[ORM][LLAMA_INDEX_NAME])
    report.at_least("load by COPY without an index / best peer", copy / best, 5)
    report.at_least("load by COPY without an index / bare COPY, unlogged", copy / rows[BARE][OURS], 0.2)
    report.at_least("load by ORM / best peer", rows[ORM][OURS] / best, 2.5)
    in_place = report.best_peer(IN_PLACE, low=False)
    report.at_least("load with the index in place / best peer", rows[IN_PLACE][OURS] / in_place, 1.4)
    report.at_least(
        "load, index afterwards, in total / best peer with the index in place",
        rows[DEFERRED][OURS] / in_place,
        2.5,
    )
    deferred = report.best_peer(DEFERRED, low=False)
    report.notes.append(
        "Load with the index built afterwards, where the peer builds it afterwards too:"
        f" {rows[DEFERRED][OURS] / deferred:.1f} times the best peer."
    )
