"""Embeddings loaded by COPY as ``halfvec``, as those of models are, beside the same as ``vector``.

    uv run python benchmarks/half_copy.py [--rows 5000] [--rounds 9] [--dimensions 768,1536]

Starts an embedded server of its own in a temporary directory, and prints the Markdown of its section of RESULTS.md.
The tables are like a partition of rag_chunk_embeddings, its checks and its primary key included, without the foreign
key and the HNSW index, whose costs are the same for both. What is measured is a load from float32 arrays: checked, made
into rows, sent and committed. The two take turns, either first; CPU is of this process and of the connection's.
"""

from __future__ import annotations

import argparse
import statistics
import struct
import time
from collections import defaultdict

import numpy as np
import psycopg
from compare.measuring import connect, cpu_seconds, describe, fresh, server

from ragschema import migrations
from ragschema.database.settings import Database
from ragschema.embedding_models import add_model
from ragschema.embeddings.column_type import Embedding
from ragschema.embeddings.half_column_type import HalfEmbedding
from ragschema.embeddings.wire import Vector
from ragschema.publishing import binary_rows
from ragschema.schema.ids import IdBytes, uuid7_bytes

MODEL = 2
TABLES = (
    "CREATE TABLE half (LIKE rag_chunk_embeddings_2 INCLUDING ALL EXCLUDING INDEXES, PRIMARY KEY (chunk_id))",
    "CREATE TABLE whole (LIKE half INCLUDING ALL EXCLUDING CONSTRAINTS)",
    "ALTER TABLE whole ALTER embedding TYPE vector USING embedding::vector",
    "ALTER TABLE whole ADD CHECK (vector_dims(embedding) = {dimensions}), ADD CHECK (vector_norm(embedding) > 0),"
    " ADD CHECK ((embedding IS NULL) = (embedding_error IS NOT NULL)), ADD CHECK (model_id = 2)",
)


def rows_of_half(ids: IdBytes, vectors: Vector) -> bytes:
    checked = HalfEmbedding(vectors.shape[1]).check_all(vectors)
    return binary_rows.embedding_rows(ids, MODEL, checked)


def rows_of_whole(ids: IdBytes, vectors: Vector) -> bytes:
    """Return the rows that `binary_rows.embedding_rows` would make, were the column a vector."""
    dimension = vectors.shape[1]
    checked = Embedding(dimension).check_all(vectors)
    identity = [("length", ">i4"), ("value", "u1", 16)]
    embedding = [("length", ">i4"), ("dim", ">i2"), ("unused", ">i2"), ("numbers", ">f4", (dimension,))]
    rows = np.zeros(
        len(ids),
        [
            ("columns", ">i2"),
            ("id", identity),
            ("model_id", "S6"),
            ("is_current", "S5"),
            ("embedding", embedding),
        ],
    )
    rows["columns"] = 4
    rows["id"]["length"], rows["id"]["value"] = 16, ids
    rows["model_id"], rows["is_current"] = struct.pack(">ih", 2, MODEL), struct.pack(">i?", 1, True)
    rows["embedding"]["length"], rows["embedding"]["dim"] = 4 + 4 * dimension, dimension
    rows["embedding"]["numbers"] = checked
    return rows.tobytes()


WAYS = {"whole": rows_of_whole, "half": rows_of_half}


def load(connection: psycopg.Connection, table: str, vectors: Vector) -> tuple[float, float, float]:
    """Load vectors into an empty table; return the seconds, and those of both processors."""
    connection.execute(f"TRUNCATE {table}".encode())
    pid = connection.info.backend_pid
    server_, client, start = cpu_seconds(pid), time.process_time(), time.perf_counter()
    rows = WAYS[table](uuid7_bytes(len(vectors)), vectors)
    statement = f"COPY {table} ({binary_rows.EMBEDDING_COLUMNS}) FROM STDIN (FORMAT BINARY)"
    with connection.transaction(), connection.cursor() as cursor, cursor.copy(statement.encode()) as copy:
        for part in (binary_rows.SIGNATURE, rows, binary_rows.TRAILER):
            copy.write(part)
    return time.perf_counter() - start, time.process_time() - client, cpu_seconds(pid) - server_


def measure(database: Database, dimensions: int, count: int, rounds: int) -> None:
    migrations.upgrade(database)
    add_model(database, "measured", dimensions, index_type="none")
    vectors = np.random.default_rng(0).standard_normal((count, dimensions), dtype=np.float32)
    taken: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
    sizes: dict[str, int] = {}
    with connect(database) as connection:
        for statement in TABLES:
            connection.execute(statement.format(dimensions=dimensions).encode())
        for turn in range(rounds + 1):
            for table in (*WAYS,) if turn % 2 else reversed((*WAYS,)):
                took = load(connection, table, vectors)
                if turn:  # the first warms up
                    taken[table].append(took)
        for table in WAYS:
            row = connection.execute(f"SELECT pg_total_relation_size('{table}')".encode()).fetchone()
            assert row is not None
            sizes[table] = row[0]
    medians = {
        table: [statistics.median(each) for each in zip(*rows, strict=True)] for table, rows in taken.items()
    }
    for table, name in (("whole", "vector"), ("half", "halfvec")):
        seconds, client, server_ = medians[table]
        print(
            f"| {dimensions:,}, {name} | {count / seconds:,.0f} | {1e3 * client:.0f} + {1e3 * server_:.0f}"
            f" | {count / (client + server_):,.0f} | {sizes[table] / 1e6:.0f} |",
            flush=True,
        )
    sums = {
        table: statistics.median(client + server_ for _, client, server_ in rows)
        for table, rows in taken.items()
    }
    print(
        f"| {dimensions:,}, halfvec / vector | {medians['whole'][0] / medians['half'][0]:.2f} | |"
        f" **{sums['whole'] / sums['half']:.2f}** | {sizes['half'] / sizes['whole']:.2f} |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--dimensions", default="768,1536")
    given = parser.parse_args()
    with server() as running:
        print(f"{describe(running)}.\n")
        print("| dimensions, type | rows a second | CPU ms, client + server | rows a CPU second | MB |")
        print("|---|---|---|---|---|")
        for dimensions in map(int, given.dimensions.split(",")):
            measure(fresh(running, "half"), dimensions, given.rows, given.rounds)


if __name__ == "__main__":
    main()
