"""One corpus, larger and larger: load, build, search, publish, prune, delete, claim, rebuild, disk, as growth factors.

    uv run python benchmarks/scale.py [10000 100000 1000000] [--queries 100] [--calls 30] [--peer] [--rebuild]
        [--m 16] [--ef-construction 64] [--without-bits] [--text '/usr/src/linux/**/*.[ch]']

Chunks of 768 dimensions in a halfvec model, and the same vectors once more as bits: HNSW of their signs, re-ranked by
what the bits stand for. Chunks and queries are made of a hundred nearly orthogonal topics; with ``--text`` they are
passages of the files of a pattern, embedded by TF-IDF and a decomposition, and a query is a passage that was not
loaded (see passages.py). Starts an embedded server of its own in a temporary directory, a database for each size, and
prints Markdown. ``--peer`` loads langchain-postgres with the same chunks at the same sizes. A time is the CPU of the
server's process and of the client's, but for loads and builds, which several processes share: the clock's. To publish
with embeddings to come is to publish without what the index of vectors takes. Recall is against the float32 vectors,
compared with all of them. All sizes are loaded first, then each operation is measured at one size after the other. A
million chunks need 20 GB of disk and 10 of memory.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
from compare import measuring, peers
from compare.workload import Query, Text, Vector, Workload, parse
from numpy.typing import NDArray
from passages import Passages, PassageWorkload
from sqlalchemy.orm import Session

from ragschema import create_engine, index_health, jobs, migrations, nearest_chunks
from ragschema.database.settings import Database
from ragschema.embedding_models import add_model, find_model, index_model
from ragschema.publishing import (
    BulkDocument,
    activate_version,
    deferred_index,
    delete_document,
    plan_version,
    prune_versions,
    publish,
    publish_many,
    store_embeddings,
)

DIMENSIONS = 768
CHUNKS = 10  # of a document
ROWS = 10
BATCH = 500  # documents
BUILD_MEMORY = "6GB"
HALF, BITS = "half", "bits"
Near = tuple[set[Text], float]
"""The ten nearest texts, and the distance of the tenth."""
TOLERANCE = 1.01
EQUAL_RECALL, CANDIDATES = 0.95, (80, 100, 120, 160, 240, 320, 480, 640, 1000)
BITS_RECALL, RERANKED = 0.98, (100, 200, 400, 700, 1000)
WRITES = ("publish", "publish, embeddings to come", "republish", "activate", "prune", "delete")
ALLOWED = {"search at equal recall": 2.5, **dict.fromkeys((*WRITES, "claim"), 1.5)}
"""How much more each may cost at the largest size than at the smallest."""


class Corpus:
    """Documents of a workload, and their vectors in a file.

    Args:
        workload: Of documents of ten chunks.
        directory: Of the file.
    """

    def __init__(self, workload: Workload, directory: Path) -> None:
        self.workload = workload
        self.documents = workload.documents
        self.texts = [
            Text(number, place, 0)
            for number, count in enumerate(self.workload.chunk_counts)
            for place in range(count)
        ]
        self.places = {text: place for place, text in enumerate(self.texts)}
        shape = (len(self.texts), DIMENSIONS)
        self.vectors: Vector = np.memmap(directory / "vectors", np.float32, "w+", shape=shape)
        for place, text in enumerate(self.texts):
            self.vectors[place] = self.workload.vector(text)

    def batches(self) -> Iterator[range]:
        for first in range(0, self.documents, BATCH):
            yield range(first, min(first + BATCH, self.documents))

    def documents_of(self, numbers: Sequence[int]) -> list[BulkDocument]:
        return [
            BulkDocument(
                self.workload.article_id(number),
                self.workload.texts(number, 1),
                self.vectors[self._of(number)],
                source_hash=f"{number}/1",
                chunker_version="c1",
                embedder_version="e1",
                title=self.workload.title(number),
            )
            for number in numbers
        ]

    def _of(self, document: int) -> slice:
        first = self.places[Text(document, 0, 0)]
        return slice(first, first + int(self.workload.chunk_counts[document]))

    def nearest(self, queries: Sequence[Query]) -> list[Near]:
        """Return the ten nearest of each query, by comparing with all."""
        asked = np.stack([query.embedding for query in queries])
        best: list[NDArray[Any]] = []
        for first in range(0, len(self.vectors), 50_000):
            near = asked @ np.asarray(self.vectors[first : first + 50_000]).T
            places = np.argsort(-near, axis=1)[:, :ROWS]
            best.append(np.stack([np.take_along_axis(near, places, axis=1), places + first]))
        all_near, all_places = np.concatenate(best, axis=2)
        order = np.argsort(-all_near, axis=1)[:, :ROWS]
        tenths = np.take_along_axis(all_near, order, axis=1)[:, -1]
        return [
            ({self.texts[place] for place in places}, 1 - float(tenth))
            for places, tenth in zip(
                np.take_along_axis(all_places, order, axis=1).astype(int).tolist(), tenths, strict=True
            )
        ]


class Measured:
    """What is measured at one size, by name."""

    def __init__(self) -> None:
        self.values: dict[str, float] = {}

    def put(self, name: str, value: float) -> None:
        self.values[name] = value
        print(f"  {name}: {value:,.3f}", file=sys.stderr, flush=True)


@contextmanager
def clocked(measured: Measured, name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    measured.put(name, time.perf_counter() - start)


@contextmanager
def progress(database: Database) -> Iterator[None]:
    """Print every half minute how far the build of an index is, as the server says."""
    over = threading.Event()

    def watch() -> None:
        with measuring.connect(database) as connection:
            while not over.wait(30):
                for row in connection.execute(
                    "SELECT phase, tuples_done, tuples_total FROM pg_stat_progress_create_index"
                ):
                    print(f"  building: {row}", file=sys.stderr, flush=True)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


class Ours:
    """This package with a corpus in a halfvec model, its operations timed by CPU."""

    def __init__(self, database: Database, corpus: Corpus, measured: Measured, graph: dict[str, int]) -> None:
        self.database, self.corpus, self.measured, self.graph = database, corpus, measured, graph
        migrations.upgrade(database)
        add_model(database, HALF, DIMENSIONS, index_type="halfvec", **graph)
        self.engine = create_engine(database.libpq_url())

    def load(self) -> None:
        with (
            progress(self.database),
            deferred_index(self.engine, search_is_slow_meanwhile=True),
        ):
            seconds = 0.0
            for numbers in self.corpus.batches():
                documents = self.corpus.documents_of(numbers)
                start = time.perf_counter()
                with self.engine.connect() as connection:
                    publish_many(connection, documents)
                seconds += time.perf_counter() - start
            self.measured.put("load, s", seconds)
            start = time.perf_counter()
        self.measured.put("build of HNSW and words, s", time.perf_counter() - start)
        measuring.settle(self.database, "VACUUM ANALYZE")

    def add_bits(self) -> None:
        """Store the same vectors in a model of bits, and index it."""
        add_model(self.database, BITS, DIMENSIONS, index_type="bit", **self.graph)
        with self.engine.connect() as connection:
            result = connection.execution_options(stream_results=True).execute(
                sa.text("SELECT id, content FROM rag_chunks WHERE is_current")
            )
            for rows in result.partitions(5_000):
                vectors = self.corpus.vectors[[self.corpus.places[parse(row.content)] for row in rows]]
                with self.engine.begin() as writing:
                    store_embeddings(writing, [row.id for row in rows], vectors, BITS)
        with measuring.connect(self.database) as connection:
            connection.execute("UPDATE rag_embedding_models SET state = 'standby' WHERE key = %s", (BITS,))
        with clocked(self.measured, "build of HNSW of bits, s"), progress(self.database):
            index_model(self.database, BITS)
        measuring.settle(self.database, "VACUUM ANALYZE")

    def search(self, queries: Sequence[Query], nearest: Sequence[Near], model: str, name: str) -> None:
        """Time searches as a service sends them, then with as many candidates as the wanted recall takes."""
        self._search(queries, nearest, model, name)
        wanted, numbers = (BITS_RECALL, RERANKED) if model == BITS else (EQUAL_RECALL, CANDIDATES)
        for number in numbers:
            recall = self._search(queries, nearest, model, f"{name} at equal recall", number)
            if recall >= wanted:
                break
        self.measured.put(f"{name} at equal recall: candidates", number)

    def _search(
        self,
        queries: Sequence[Query],
        nearest: Sequence[Near],
        model: str,
        name: str,
        candidates: int | None = None,
    ) -> float:
        found: list[float] = []
        near: list[float] = []
        with self.engine.connect() as connection:
            chosen = find_model(connection, model)
        rerank = candidates if model == BITS else None
        engine = self.engine
        if candidates and not rerank:
            options = {"options": f"-c hnsw.ef_search={candidates}"}
            engine = create_engine(self.database.libpq_url(), connect_args=options)

        def one(number: int) -> None:
            with Session(engine) as session, session.begin():
                query = nearest_chunks(queries[number].embedding, model=chosen, limit=ROWS, rerank=rerank)
                rows = session.execute(query).all()
            texts, tenth = nearest[number]
            found.append(len(texts & {parse(row.content) for row in rows}) / ROWS)
            near.append(sum(row.distance <= tenth * TOLERANCE for row in rows) / ROWS)

        self.time(name, one, len(queries), warm=len(queries))
        if engine is not self.engine:
            engine.dispose()
        recall = statistics.mean(found)
        self.measured.put(f"{name}: recall@10", recall)
        self.measured.put(f"{name}: recall@10, 1 % farther allowed", statistics.mean(near))
        return recall

    def time(self, name: str, work: Callable[[int], Any], calls: int, warm: int = 3) -> None:
        """Put the median CPU time of a call, in ms; the first calls warm up: the statement's plan and the cache."""
        meter = measuring.Meter(self.database)
        taken, wall = [], []
        for number in range(-warm, calls):
            server, client, start = meter.cpu(), time.process_time(), time.perf_counter()
            work(number % calls if warm == calls else number + warm)
            ended = time.perf_counter()
            if number >= 0:
                taken.append(1e3 * (time.process_time() - client + meter.cpu() - server))
                wall.append(1e3 * (ended - start))
        meter.close()
        self.measured.put(f"{name}, ms of CPU", statistics.median(taken))
        self.measured.put(f"{name}, ms by the clock", statistics.median(wall))

    def write(self, kind: str, calls: int) -> None:
        """Time one of `WRITES`: each but the first two goes on from what the one before it has left."""
        workload = self.corpus.workload
        count = self.corpus.documents
        step = max(1, count // (calls + 4))

        def put(article: str, states: list[int], number: int, *, embeds: bool = True) -> None:
            texts = [workload.text(Text(number, place, state)) for place, state in enumerate(states)]
            with Session(self.engine) as session, session.begin():
                plan = plan_version(
                    session,
                    article,
                    texts,
                    source_hash=str(states),
                    chunker_version="c1",
                    embedder_version="e1",
                )
                publish(session, plan, [vectors[text] for text in plan.texts_to_embed] if embeds else None)

        vectors: dict[str, Vector] = {}
        chosen = [number * step for number in range(calls + 4)]
        for number in chosen:
            for place in range(int(workload.chunk_counts[number])):
                for state in (0, 1, 2):
                    text = Text(number, place, state)
                    vectors[workload.text(text)] = workload.vector(text)
        article = workload.article_id

        def add(n: int) -> None:
            put(f"new-{n}", [2] * int(workload.chunk_counts[n * step]), n * step)

        def add_text(n: int) -> None:
            put(f"text-{n}", [2] * int(workload.chunk_counts[n * step]), n * step, embeds=False)

        def edit(n: int) -> None:
            put(article(n * step), edited(workload, n * step), n * step)

        def activate(n: int) -> None:
            with Session(self.engine) as session, session.begin():
                activate_version(session, article(n * step), 1)

        def prune(n: int) -> None:
            with Session(self.engine) as session:
                assert prune_versions(session, keep=0, article_ids=[article(n * step)]).versions == 1

        def delete(n: int) -> None:
            with Session(self.engine) as session, session.begin():
                delete_document(session, article(n * step))

        works = dict(zip(WRITES, (add, add_text, edit, activate, prune, delete), strict=True))
        self.time(kind, works[kind], calls)

    def claim(self, calls: int) -> None:
        """Claim and complete among as many jobs as there are documents."""
        made = (
            jobs.NewJob(job_type="embed", payload={"number": number})
            for number in range(self.corpus.documents)
        )
        with self.engine.begin() as connection:
            jobs.enqueue_many(connection, made, notify=False)
        measuring.settle(self.database, "VACUUM ANALYZE rag_jobs")

        def one(_: int) -> None:
            with Session(self.engine) as session:
                claimed = jobs.claim(session, "worker")
                session.commit()
                assert jobs.complete(session, claimed[0])
                session.commit()

        self.time("claim", one, calls)

    def health(self, *, rebuilds: bool) -> None:
        with clocked(self.measured, "index health, s"):
            checked = index_health.check_indexes(self.database)
        for each in checked:
            self.measured.put(f"disk of HNSW {each.index}, MB", each.size / 1e6)
        self.measured.put("disk of all, MB", measuring.table_bytes(self.database) / 1e6)
        if rebuilds:
            name = next(
                each.index for each in checked if each.recall and each.size == max(c.size for c in checked)
            )
            with clocked(self.measured, "rebuild, s"), progress(self.database):
                index_health.rebuild(self.database, name)


def edited(workload: Workload, document: int) -> list[int]:
    """Return the states of a document's chunks of which the first was edited."""
    return [1] + [0] * (int(workload.chunk_counts[document]) - 1)


def measure_peer(
    database: Database,
    corpus: Corpus,
    queries: Sequence[Query],
    nearest: Sequence[Near],
    options: argparse.Namespace,
) -> dict[str, float]:
    """Return what langchain-postgres takes for the same, by the clock."""
    measured = Measured()
    with peers.Peer(peers.LANGCHAIN, database, corpus.documents, DIMENSIONS, text=options.text) as peer:
        peer.create(index=False)
        measured.put("load, s", sum(peer.load(numbers, 1) for numbers in corpus.batches()))
        with progress(database):
            measured.put("build of HNSW and words, s", peer.build_index())
        measuring.settle(database, "VACUUM ANALYZE")
        peer.search("all", len(queries), 0, len(queries))
        answers = peer.search("all", len(queries), 0, len(queries))
        name = "search"
        measured.put(f"{name}, ms by the clock", 1e3 * statistics.median(each.seconds for each in answers))
        recalls = [len(a & {*b.texts}) / ROWS for (a, _), b in zip(nearest, answers, strict=True)]
        measured.put(f"{name}: recall@10", statistics.mean(recalls))
        step = max(1, corpus.documents // options.calls)
        taken = [
            peer.republish(number, edited(corpus.workload, number), "delete + add").seconds
            for number in range(0, step * options.calls, step)
        ]
        measured.put("republish, ms by the clock", 1e3 * statistics.median(taken))
    measured.put("disk of all, MB", measuring.table_bytes(database) / 1e6)
    return measured.values


class Size:
    """One size of the corpus: loaded here and, where asked for, measured in langchain-postgres."""

    def __init__(
        self, server: Database, chunks: int, passages: Passages | None, options: argparse.Namespace
    ) -> None:
        print(f"{chunks:,} chunks", file=sys.stderr, flush=True)
        self.directory = tempfile.TemporaryDirectory(prefix="ragschema-")
        documents = chunks // CHUNKS
        made = PassageWorkload(passages, documents) if passages else Workload(documents, dimension=DIMENSIONS)
        corpus = Corpus(made, Path(self.directory.name))
        self.queries = corpus.workload.queries(options.queries)
        self.nearest = corpus.nearest(self.queries)
        self.theirs: dict[str, float] = {}
        if options.peer:
            database = fresh(server, f"peer_{chunks}")
            self.theirs = measure_peer(database, corpus, self.queries, self.nearest, options)
            measuring.drop(database)
        graph = {"m": options.m, "ef_construction": options.ef_construction}
        self.measured = Measured()
        self.ours = Ours(fresh(server, f"ours_{chunks}"), corpus, self.measured, graph)
        self.ours.load()
        if not options.without_bits:
            self.ours.add_bits()

    def search(self, model: str, name: str) -> None:
        self.ours.search(self.queries, self.nearest, model, name)

    def end(self) -> None:
        self.ours.engine.dispose()
        measuring.drop(self.ours.database)
        self.directory.cleanup()


def measure(sizes: Sequence[Size], options: argparse.Namespace) -> None:
    """Measure each operation at all sizes before the next one: what else the machine does weighs on all of them."""
    steps: list[Callable[[Size], None]] = [lambda size: size.search(HALF, "search")]
    if not options.without_bits:
        steps.append(lambda size: size.search(BITS, "search by bits"))
    steps += [partial(_write, name, options.calls) for name in WRITES]
    steps.append(lambda size: size.ours.claim(options.calls))
    steps.append(lambda size: size.ours.health(rebuilds=options.rebuild))
    for step in steps:
        for size in sizes:
            step(size)


def _write(kind: str, calls: int, size: Size) -> None:
    size.ours.write(kind, calls)


def fresh(server: Database, name: str) -> Database:
    database = measuring.fresh(server, name)
    with measuring.connect(database) as connection:
        connection.execute(f"ALTER DATABASE {name} SET maintenance_work_mem = '{BUILD_MEMORY}'".encode())
    return database


def table(title: str, sizes: Sequence[int], found: Sequence[dict[str, float]]) -> list[str]:
    lines = [
        f"| {title} | {' | '.join(f'{size:,}' for size in sizes)} | growth |",
        "|---" * (len(sizes) + 2) + "|",
    ]
    for name in found[0]:
        values = [each[name] for each in found]
        lines.append(
            f"| {name} | {' | '.join(f'{value:,.4g}' for value in values)} | {values[-1] / values[0]:.2f} |"
        )
    return lines


def targets(found: Sequence[dict[str, float]]) -> list[str]:
    lines = ["| target | at most | growth of CPU | |", "|---|---|---|---|"]
    for name, allowed in ALLOWED.items():
        first, last = (each[f"{name}, ms of CPU"] for each in (found[0], found[-1]))
        verdict = "met" if last / first <= allowed else "**missed**"
        lines.append(f"| {name} | {allowed} | {last / first:.2f} | {verdict} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sizes", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--calls", type=int, default=30, help="of each kind of write")
    parser.add_argument("--m", type=int, default=16, help="of the HNSW of ours")
    parser.add_argument("--ef-construction", type=int, default=64, help="of the HNSW of ours")
    parser.add_argument("--without-bits", action="store_true", help="of halfvec alone")
    parser.add_argument("--peer", action="store_true", help="langchain-postgres at the same sizes")
    parser.add_argument("--rebuild", action="store_true", help="rebuild the largest index too")
    parser.add_argument("--text", metavar="PATTERN", help="of files to take the chunks and the queries from")
    options = parser.parse_args()
    passages = Passages(options.text) if options.text else None
    with measuring.server(shared_buffers="6GB") as server:
        described = measuring.describe(server)
        sizes = [Size(server, chunks, passages, options) for chunks in options.sizes]
        measure(sizes, options)
        for size in sizes:
            size.end()
    ours, theirs = [size.measured.values for size in sizes], [size.theirs for size in sizes]
    print(f"## One corpus, larger and larger: scale.py, {date.today().isoformat()}\n\n{described}.\n")
    print("\n".join([*table("ours", options.sizes, ours), "", *targets(ours)]))
    if options.peer:
        print("\n".join(["", *table("langchain-postgres", options.sizes, theirs)]))


if __name__ == "__main__":
    main()
