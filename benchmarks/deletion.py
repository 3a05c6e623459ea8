"""Documents deleted and purged as one set, against one at a time, and against rows of a flat table.

    uv run python benchmarks/deletion.py [--documents 500] [--rounds 3] [--peers]

Starts an embedded server of its own in a temporary directory, and prints the Markdown of its section of RESULTS.md.
Each document has two versions of 10 chunks, nine of which they share, with embeddings of 768 dimensions in the index.
The flat table is what langchain-postgres and llama-index keep: a text, an embedding and JSON a row, an HNSW index, no
other table; its 11 rows of each document go by their ids in one statement. What is measured is the CPU time of this
process and of the connection's, commits included, so that neither the disk nor what runs beside it counts.

With ``--peers`` the stores of langchain-postgres and llama-index delete as many documents of 10 chunks too, at once,
by the ids that came back when they were added, and by a filter of their article ids, each in a process of its own whose
CPU counts with that of its backends.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from uuid import uuid4

import numpy as np
import sqlalchemy as sa
from compare.measuring import Meter, cpu_seconds, fresh, server, settle
from compare.peers import LANGCHAIN, LLAMA_INDEX, Package, Peer, versions
from compare.workload import Workload

from ragschema import create_engine, migrations
from ragschema.database.settings import Database
from ragschema.embeddings.wire import Vector
from ragschema.publishing import (
    BulkDocument,
    deferred_index,
    delete_document,
    delete_documents,
    publish_many,
    purge_document,
    purge_documents,
    undelete_document,
)

CHUNKS = 10
FLAT = (
    "CREATE TABLE flat AS SELECT d.article_id || ' ' || c.id AS id, c.content AS document, c.embedding,"
    " jsonb_build_object('id', d.article_id) AS metadata FROM rag_chunks c"
    " JOIN rag_document_versions v ON v.id = c.version_id JOIN rag_documents d ON d.id = v.document_id",
    "ALTER TABLE flat ADD PRIMARY KEY (id)",
    "CREATE INDEX ON flat USING hnsw (embedding vector_cosine_ops)",
)


def vectors(count: int, seed: int) -> Vector:
    return np.random.default_rng(seed).standard_normal((count, 768)).astype(np.float32)


def load(engine: sa.Engine, article_ids: Sequence[str]) -> None:
    for number in (1, 2):
        texts = [f"text {place + (place == 0) * 100 * number}" for place in range(CHUNKS)]
        documents = (
            BulkDocument(article_id, texts, vectors(CHUNKS, seed), str(number), "c1", "e1")
            for seed, article_id in enumerate(article_ids)
        )
        with engine.connect() as connection, deferred_index(engine, search_is_slow_meanwhile=True):
            publish_many(connection, documents)


def one_by_one(act: Callable[[sa.Connection, str], object]) -> Callable[[sa.Connection, Sequence[str]], None]:
    def do(connection: sa.Connection, article_ids: Sequence[str]) -> None:
        for article_id in article_ids:
            with connection.begin():
                act(connection, article_id)

    return do


def in_one(
    act: Callable[[sa.Connection, Sequence[str]], object],
) -> Callable[[sa.Connection, Sequence[str]], None]:
    def do(connection: sa.Connection, article_ids: Sequence[str]) -> None:
        with connection.begin():
            act(connection, article_ids)

    return do


def delete_flat(connection: sa.Connection, article_ids: Sequence[str]) -> None:
    of_them = "SELECT id FROM flat WHERE split_part(id, ' ', 1) = ANY(:article_ids)"
    with connection.begin():
        ids = connection.scalars(sa.text(of_them), {"article_ids": list(article_ids)}).all()
    with measured(connection), connection.begin():
        connection.execute(sa.text("DELETE FROM flat WHERE id = ANY(:ids)"), {"ids": list(ids)})


WAYS: dict[str, Callable[[sa.Connection, Sequence[str]], None]] = {
    "flat table: DELETE by ids": delete_flat,
    "delete_documents": in_one(delete_documents),
    "delete_document, a transaction each": one_by_one(delete_document),
    "undelete_document, a transaction each": one_by_one(undelete_document),
    "purge_documents": in_one(purge_documents),
    "purge_document, a transaction each": one_by_one(purge_document),
}
taken: list[float] = []


@contextmanager
def measured(connection: sa.Connection) -> Iterator[None]:
    """Append the CPU seconds of the block to `taken`."""
    pid = connection.connection.driver_connection.info.backend_pid  # type: ignore[union-attr]
    before = time.process_time() + cpu_seconds(pid)
    yield
    taken.append(time.process_time() + cpu_seconds(pid) - before)


def measure(database: Database, documents: int, rounds: int) -> dict[str, list[float]]:
    engine = create_engine(database.libpq_url())
    migrations.upgrade(database)
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(rounds + 1):
        article_ids = [str(uuid4()) for _ in range(2 * documents)]
        load(engine, article_ids)
        with engine.begin() as connection:
            connection.execute(sa.text("DROP TABLE IF EXISTS flat"))
            for statement in FLAT:
                connection.execute(sa.text(statement))
        settle(database, "VACUUM ANALYZE")
        one, other = article_ids[:documents], article_ids[documents:]
        for name, way in WAYS.items():
            with engine.connect() as connection:
                if way is delete_flat:
                    way(connection, one)
                else:
                    with measured(connection):
                        way(connection, one if name in ("delete_documents", "purge_documents") else other)
            seconds[name].append(taken[-1])
    engine.dispose()
    return seconds


def measure_peer(package: Package, running: Database, documents: int, rounds: int) -> list[float]:
    """Return the CPU seconds that a peer takes to delete documents at once, in each round; the first warms up."""
    count = documents * (rounds + 1)
    workload = Workload(10 * count)
    numbers = [each for each in range(workload.documents) if workload.chunk_counts[each] == CHUNKS][:count]
    database = fresh(running, package.script[5:9])
    seconds = []
    with Peer(package, database, workload.documents) as peer:
        peer.create(index=False)
        peer.load(numbers, version=1)
        peer.build_index()
        settle(database, "VACUUM ANALYZE")
        meter = Meter(database)
        for turn in range(rounds + 1):
            before = meter.cpu()
            client = peer.delete(numbers[turn * documents : (turn + 1) * documents])
            seconds.append(client + meter.cpu() - before)
        meter.close()
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--documents", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", action="store_true", help="measure their stores too")
    given = parser.parse_args()
    with server() as running:
        seconds = measure(fresh(running, "deletion"), given.documents, given.rounds)
        for package in (LANGCHAIN, LLAMA_INDEX) if given.peers else ():
            seconds[package.name] = measure_peer(package, running, given.documents, given.rounds)
    medians = {name: statistics.median(each[1:]) for name, each in seconds.items()}
    flat = medians["flat table: DELETE by ids"]
    print("| way | CPU ms | of the flat table's |\n|---|---|---|")
    for name, median in medians.items():
        print(f"| {name} | {1000 * median:,.0f} | {median / flat:.1f} |")
    for package in (LANGCHAIN, LLAMA_INDEX) if given.peers else ():
        print(f"{package.name}: {versions(package)}.")


if __name__ == "__main__":
    main()
