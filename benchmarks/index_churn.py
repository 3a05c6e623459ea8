"""What republishing does to the recall of the vector index, and what brings it back.

    uv run python benchmarks/index_churn.py [--documents 2000] [--corpora topics text] [--data DIRECTORY]

Starts an embedded server of its own, with autovacuum off, and prints the Markdown of its section of RESULTS.md. About
20,000 current chunks on the schema at head; five versions, each of which replaces 10 to 20 % of them, by direct
statements: the index sees what `publish` does to it. Databases are cloned, so every way begins with the same index.
Recall is of ten rows against all current chunks, of 200 queries on the bare index, with an iterative scan as in our
statements.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import numpy as np
import psycopg
from churn_corpora import Corpus, RealText, Topics, unit
from compare.measuring import SETTINGS, Connection, connect, cpu_seconds
from numpy.typing import NDArray
from pgvector.psycopg import register_vector
from sqlalchemy import text
from sqlalchemy.orm import Session

from ragschema import create_engine, embedded, migrations
from ragschema.database.settings import Database
from ragschema.queries import nearest_chunks
from ragschema.schema.ids import uuid7

INDEX = "rag_chunks_current_embedding_idx"
ROWS = 10
QUERIES = 200
PROBES = 300
ROUNDS = 6
BLOCK = 20  # queries that one way runs before the other takes its turn
VERSIONS = 6
CORPORA: dict[str, Callable[[int], Corpus]] = {"topics": Topics, "text": RealText}


class Store:
    """A corpus in a database, and its databases' clones."""

    def __init__(self, server: Database, corpus: Corpus) -> None:
        self.server = server
        self.corpus = corpus
        self.vectors = corpus.vectors.copy()
        self.ids = [uuid7() for _ in self.vectors]
        self.queries = corpus.queries(QUERIES)

    def database(self, name: str) -> Database:
        return Database({**self.server.parameters, "dbname": name}, "this benchmark")

    @contextmanager
    def open(self, name: str) -> Iterator[Connection]:
        with connect(self.database(name)) as connection:
            register_vector(connection)
            connection.execute("SET session_replication_role = replica; SET jit = off")
            yield connection

    def clone(self, source: str, name: str) -> None:
        with connect(self.server) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {source} STRATEGY file_copy".encode())

    def load(self, name: str) -> None:
        """Make a database at head with the first version, and a new index."""
        with connect(self.server) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())
            connection.execute(f"CREATE DATABASE {name}".encode())
        migrations.upgrade(self.database(name))
        with self.open(name) as connection, connection.transaction():
            connection.execute(f"DROP INDEX {INDEX}")
            connection.execute(
                "INSERT INTO rag_documents (article_id) SELECT 'article-' || n FROM generate_series(0, %s::int) n",
                (int(self.corpus.documents.max()),),
            )
            connection.execute(
                "INSERT INTO rag_document_versions (document_id, version_number, source_hash, chunker_version,"
                " embedder_version) SELECT id, 1, 'h', 'c', 'e' FROM rag_documents"
            )
            connection.execute(
                "UPDATE rag_documents d SET current_version_id = v.id FROM rag_document_versions v"
                " WHERE v.document_id = d.id"
            )
            self._insert(connection, np.arange(len(self.vectors)), 0)
            connection.execute(
                f"CREATE INDEX {INDEX} ON rag_chunks USING hnsw (embedding vector_cosine_ops) WHERE is_current"
            )
        with self.open(name) as connection:
            connection.execute("VACUUM ANALYZE")

    def publish(
        self, name: str, edited: NDArray[np.int64], ids: Sequence[UUID], old: Sequence[UUID], version: int
    ) -> None:
        """Replace chunks in a database; their new vectors and ids stand in the store."""
        with self.open(name) as connection, connection.transaction():
            connection.execute("UPDATE rag_chunks SET is_current = false WHERE id = ANY (%s)", (list(old),))
            self._insert(connection, edited, version)

    def _insert(self, connection: Connection, numbers: NDArray[np.int64], version: int) -> None:
        versions = dict(
            connection.execute(
                "SELECT substr(article_id, 9)::int, v.id FROM rag_documents d JOIN rag_document_versions v"
                " ON v.id = d.current_version_id"
            ).fetchall()
        )
        with connection.cursor().copy(
            "COPY rag_chunks (id, version_id, ordinal, content, embedding, is_current) FROM STDIN (FORMAT binary)"
        ) as copy:
            copy.set_types(["uuid", "uuid", "int4", "text", "vector", "bool"])
            for number in map(int, numbers):
                document = int(self.corpus.documents[number])
                place = version * 1_000_000 + number
                copy.write_row(
                    (
                        self.ids[number],
                        versions[document],
                        place,
                        f"chunk {number} " * 60,
                        self.vectors[number],
                        True,
                    )
                )

    def recall(self, name: str, queries: NDArray[np.float32], ef: int) -> float:
        """Return recall@10 of the bare index."""
        truth = self.truth(queries)
        with self.open(name) as connection:
            found = search(connection, queries, ef)
        return float(np.mean([len(near & {*hits}) / ROWS for near, hits in zip(truth, found, strict=True)]))

    def truth(self, queries: NDArray[np.float32]) -> list[set[UUID]]:
        nearest = np.argpartition(-(queries @ self.vectors.T), ROWS, axis=1)[:, :ROWS]
        return [{self.ids[number] for number in row} for row in nearest]


def search(connection: Connection, queries: NDArray[np.float32], ef: int) -> list[list[UUID]]:
    """Search the index for each query; return the ids found."""
    connection.execute(
        f"SET enable_seqscan = off; SET hnsw.ef_search = {ef}; SET hnsw.iterative_scan = relaxed_order"
    )
    statement = "SELECT id FROM rag_chunks WHERE is_current ORDER BY embedding <=> %s LIMIT 10"
    return [
        [row[0] for row in connection.execute(statement, (query,), binary=True).fetchall()]
        for query in queries
    ]


def probes(store: Store) -> dict[str, NDArray[np.float32]]:
    """Return what the current embeddings are made into, to be searched with: by kind."""
    random = np.random.default_rng(7)
    count = len(store.vectors)
    one, other = (store.vectors[random.choice(count, PROBES, replace=False)] for _ in range(2))
    noise = unit(random.standard_normal(one.shape, dtype=np.float32))
    spread = store.vectors.std(axis=0)
    alike = unit(random.standard_normal(one.shape, dtype=np.float32) * spread)
    kinds = {"stored": one, "midpoint of two": unit(one + other), "noise": noise}
    kinds |= {f"stored + {scale} noise": unit(one + scale * noise) for scale in (0.25, 0.5, 1.0, 2.0)}
    kinds |= {f"stored + {scale} noise as the data": unit(one + scale * alike) for scale in (1.0, 2.0)}
    kinds |= {"stored + 0.5 of another": unit(one + 0.5 * other)}
    return kinds


def maintain(store: Store, name: str, *statements: str) -> list[float]:
    """Execute statements; return the seconds of each."""
    spent = []
    with connect(store.database(name)) as connection:
        for statement in statements:
            start = time.perf_counter()
            connection.execute(statement.encode())
            spent.append(time.perf_counter() - start)
    return spent


def end_to_end(database: Database, queries: NDArray[np.float32], truth: Sequence[set[UUID]]) -> list[str]:
    """Return recall, p50 and the backend's CPU of our whole statement with 40 candidates and by default, and ratios."""
    engine = create_engine(database.libpq_url())
    statements = [nearest_chunks(query) for query in queries]
    connections = {way: engine.connect() for way in ("40", "default")}
    sessions = {way: Session(connection) for way, connection in connections.items()}
    pids, times, cpu, found = {}, defaultdict(list), Counter[str](), defaultdict(list)
    for way, session in sessions.items():
        pids[way] = session.scalar(text("SELECT pg_backend_pid()"))
        if way == "40":
            session.execute(text("SET ragschema.ef_search = 'chosen'"))
        session.commit()
    for number in range(ROUNDS + 1):  # the first warms up
        for start in range(0, len(queries), BLOCK):
            for way in sorted(sessions, reverse=bool((number + start // BLOCK) % 2)):
                before = cpu_seconds(pids[way])
                for place in range(start, min(start + BLOCK, len(queries))):
                    began = time.perf_counter()
                    rows = sessions[way].execute(statements[place]).all()
                    sessions[way].rollback()
                    if number:
                        times[way].append(time.perf_counter() - began)
                    else:
                        found[way].append(len(truth[place] & {row.chunk_id for row in rows}) / ROWS)
                if number:
                    cpu[way] += cpu_seconds(pids[way]) - before
    for way, connection in connections.items():
        sessions[way].close()
        connection.close()
    engine.dispose()
    recall = [f"{np.mean(found[way]):.3f}" for way in sessions]
    p50 = [1e3 * float(np.median(times[way])) for way in sessions]
    spent = [1e3 * cpu[way] / ROUNDS / len(queries) for way in sessions]
    return [
        *recall,
        f"{p50[0]:.2f} / {p50[1]:.2f}",
        f"{p50[1] / p50[0]:.2f}",
        f"{spent[0]:.2f} / {spent[1]:.2f}",
        f"{spent[1] / spent[0]:.2f}",
    ]


REBUILD = f"REINDEX INDEX CONCURRENTLY {INDEX}"
VACUUM = "VACUUM (ANALYZE, INDEX_CLEANUP ON) rag_chunks"
ENDS = ("vacuumed each time", "vacuumed once at the end", "rebuilt, then vacuumed")
WAYS = {
    "never vacuumed": (),
    "vacuumed once at the end": (VACUUM,),
    "vacuumed, then rebuilt": (VACUUM, REBUILD),
    "rebuilt, then vacuumed": (REBUILD, VACUUM),
}


def measure(server: Database, corpus: Corpus) -> None:
    store = Store(server, corpus)
    said(f"{corpus.name}: {len(store.vectors)} chunks")
    store.load("fresh")
    said("loaded")
    for name in ("never", "each"):
        store.clone("fresh", name)
    curve = [["1 (new index)", *recalls(store, "fresh"), *recalls(store, "fresh"), ""]]
    for version in range(2, VERSIONS + 1):
        edited, vectors = corpus.edit(version)
        old = [store.ids[number] for number in edited]
        store.vectors[edited] = vectors
        for number in edited:
            store.ids[number] = uuid7()
        for name in ("never", "each"):
            store.publish(name, edited, old, version)
        (spent,) = maintain(store, "each", VACUUM)
        curve.append([str(version), *recalls(store, "never"), *recalls(store, "each"), f"{spent:.1f}"])
        said(str(curve[-1]))
    print_table(
        f"{corpus.name}: recall@10 after each version",
        ["version", "never vacuumed, ef 40", "ef 80", "vacuumed each time, ef 40", "ef 80", "VACUUM s"],
        curve,
    )
    ends = {
        "vacuumed each time": ("each", []),
        "vacuumed each time, then rebuilt": ("each_rebuilt", [REBUILD]),
    }
    store.clone("each", "each_rebuilt")
    for number, (way, statements) in enumerate(WAYS.items()):
        store.clone("never", f"end_{number}")
        ends[way] = (f"end_{number}", list(statements))
    lines = []
    for way, (name, statements) in ends.items():
        spent = maintain(store, name, *statements)
        lines.append([way, *recalls(store, name), " + ".join(f"{each:.1f}" for each in spent)])
        said(str(lines[-1]))
    print_table(f"{corpus.name}: recall@10 after the last version", ["", "ef 40", "ef 80", "s"], lines)
    measured = [
        [way, *end_to_end(store.database(name), store.queries, store.truth(store.queries))]
        for way, (name, _) in ends.items()
        if way in ENDS
    ]
    print_table(
        f"{corpus.name}: `nearest_chunks` through SQLAlchemy, with 40 candidates and by default",
        ["", "recall@10, 40", "default", "p50 ms", "ratio", "server CPU ms", "ratio"],
        measured,
    )
    kinds = probes(store)
    states = [ends[way][0] for way in ("never vacuumed", "vacuumed each time", "rebuilt, then vacuumed")]
    lines = []
    for kind, made in {"the queries above": store.queries, **kinds}.items():
        similarity = -np.partition(-(made @ store.vectors.T), ROWS, axis=1)[:, :ROWS].mean()
        found = [f"{store.recall(state, made, ef):.3f}" for ef in (40, 80) for state in states]
        lines.append([kind, f"{similarity:.2f}", *found])
        said(str(lines[-1]))
    print_table(
        f"{corpus.name}: recall@10 by what is searched with",
        [
            "",
            "similarity of the ten",
            *(
                f"{state}, ef {ef}"
                for ef in (40, 80)
                for state in ("never vacuumed", "vacuumed each time", "rebuilt")
            ),
        ],
        lines,
    )


def recalls(store: Store, name: str) -> list[str]:
    return [f"{store.recall(name, store.queries, ef):.3f}" for ef in (40, 80)]


def said(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    print(f"\n### {title[0].upper()}{title[1:]}\n\n| {' | '.join(header)} |\n|{'---|' * len(header)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--documents", type=int, default=2_000)
    parser.add_argument("--corpora", nargs="+", choices=CORPORA, default=list(CORPORA))
    parser.add_argument("--data", type=Path, help="keep the server's data there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ragschema-") as directory:
        data = options.data or Path(directory) / "postgres"
        with (
            embedded.running(data) as parameters,
            psycopg.connect(Database(parameters, "this").libpq_url(), autocommit=True) as connection,
        ):
            for name, value in SETTINGS.items():
                connection.execute(f"ALTER SYSTEM SET {name} = '{value}'".encode())
        with embedded.running(data) as parameters:
            for name in options.corpora:
                measure(Database(parameters, "this benchmark"), CORPORA[name](options.documents))


if __name__ == "__main__":
    main()
