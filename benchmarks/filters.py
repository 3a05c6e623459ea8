"""Filtered searches, this source beside another checkout's, on one database: shares of documents, random and clustered.

    git worktree add /tmp/before COMMIT
    uv run python benchmarks/filters.py /tmp/before [--documents 2000] [--chunks 10] [--rounds 3] [--queries 20]
        [--real-text]

Starts an embedded server of its own in a temporary directory and prints Markdown; 100,000 chunks are
``--documents 10000``. The other checkout has to know collections.
Each source has a process of its own; each round runs a case in both, either first in turn. A
time is the CPU of the server's process and of the client's, which what runs beside them changes little. Recall is
against the server's own exact search. Conditions are on the metadata of the current version: by a range PostgreSQL
expects a third of all documents to pass, by containment what its statistics say. Embeddings gather around a hundred
centres that are nearly orthogonal; with ``--real-text`` they are of real text by TF-IDF and SVD, 256 dimensions that
are not zero, and a cluster is a hundredth of the documents, from neighbouring files.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import psycopg
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import churn_corpora

import query_data
import ragschema
from ragschema import nearest_chunks

DIMENSIONS = 768
CLUSTERS = 100
NOISE = 0.17  # of a query, as a share of the length of the embedding that it is near
DESCRIBED = """
UPDATE rag_document_versions SET metadata = jsonb_build_object('permille', permille, 'cluster', number % 100,
  's1', permille < 1, 's10', permille < 10, 's100', permille < 100, 's500', permille < 500)
FROM (SELECT id, substr(url, 21)::int AS number, abs(hashtext(url)) % 1000 AS permille FROM rag_document_versions) v
WHERE v.id = rag_document_versions.id
"""
COLLECTED = """
WITH made AS (
  INSERT INTO rag_collections (id, name, description)
  SELECT ('00000000-0000-7000-8000-' || lpad(below::text, 12, '0'))::uuid, below::text, below || ' of a thousand'
  FROM unnest(ARRAY[1, 10, 200]) AS below RETURNING id, name
)
INSERT INTO rag_collection_documents (collection_id, document_id)
SELECT made.id, d.id FROM made, rag_documents d WHERE abs(hashtext(d.article_id)) % 1000 < made.name::int
"""
REPLACED = """
UPDATE rag_chunks c SET embedding = t.embedding FROM rag_document_versions v
JOIN rag_documents d ON d.id = v.document_id JOIN vectors t ON t.number = substr(d.article_id, 9)::int
WHERE v.id = c.version_id AND t.place = greatest(c.ordinal, 1)
"""
EXACT = """
SELECT c.id::text FROM rag_documents d JOIN rag_document_versions v ON v.id = d.current_version_id
JOIN rag_chunk_events e ON e.version_id = v.id AND e.event_type <> 'deleted' JOIN rag_chunks c ON c.id = e.chunk_id
WHERE {} ORDER BY (c.embedding <=> %s::vector) + 0 LIMIT 10
"""


def ranged(name: str, below: int) -> tuple[str, Callable[[], dict[str, Any]]]:
    metadata = sa.type_coerce(sa.column("metadata", _selectable=ragschema.DocumentVersion.__table__), JSONB)
    return f"(v.metadata->>'{name}')::int < {below}", lambda: {"where": below > metadata[name].as_integer()}


def contained(name: str) -> tuple[str, Callable[[], dict[str, Any]]]:
    metadata = sa.type_coerce(sa.column("metadata", _selectable=ragschema.DocumentVersion.__table__), JSONB)
    return f"(v.metadata->>'{name}')::bool", lambda: {"where": metadata.contains({name: True})}


def collected(below: int) -> tuple[str, Callable[[], dict[str, Any]]]:
    id_ = UUID(f"00000000-0000-7000-8000-{below:012}")
    of_it = f"SELECT document_id FROM rag_collection_documents WHERE collection_id = '{id_}'"
    return f"d.id IN ({of_it})", lambda: {"collection_ids": [id_]}


SHARES = {"0.1": 1, "1": 10, "10": 100, "50": 500}
CASES = {
    "no filter": ("true", dict),
    "a condition that is always met": (
        "true",
        lambda: {"where": ragschema.DocumentVersion.version_number == 2},
    ),
    **{f"{share} %, by a range": ranged("permille", below) for share, below in SHARES.items()},
    **{f"{share} %, by containment": contained(f"s{below}") for share, below in SHARES.items()},
    **{f"{share} %, a collection": collected(below) for share, below in (("0.1", 1), ("1", 10), ("20", 200))},
    "10 %, clustered, queries inside": ranged("cluster", 10),
    "50 %, clustered, queries inside": ranged("cluster", 50),
}


def cpu_seconds(pid: int) -> float:
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def serve(url: str) -> None:
    """Run the searches that are asked for, a line each, and answer with their CPU seconds and what they found."""
    engine = ragschema.create_engine(url)
    with engine.connect() as connection:
        pid = connection.scalar(sa.text("SELECT pg_backend_pid()"))
        print("ready", flush=True)
        for line in sys.stdin:
            asked = json.loads(line)
            _, filters = CASES[asked["case"]]
            found, seconds = [], []
            for query in np.array(asked["queries"], np.float32):
                server, client = cpu_seconds(pid), time.process_time()
                rows = connection.execute(nearest_chunks(query, **filters())).all()
                seconds.append((cpu_seconds(pid) - server, time.process_time() - client))
                found.append([str(row.chunk_id) for row in rows])
            connection.rollback()
            print(json.dumps([seconds, found]), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("before", type=Path, help="a checkout")
    for name, value in (("documents", 2000), ("chunks", 10), ("rounds", 3), ("queries", 20)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--real-text", action="store_true")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
        return
    from ragschema import (  # not in the process of the other source, where they may be elsewhere
        embedded,
        migrations,
    )
    from ragschema.database.settings import Database

    with tempfile.TemporaryDirectory(prefix="rag-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        directory.chmod(0o711)
        with embedded.running(directory / "postgres", makes=True) as parameters:
            database = Database(parameters, "it")
            migrations.upgrade(database)
            with psycopg.connect(database.libpq_url(), autocommit=True) as connection:
                query_data.fill(connection, documents=options.documents, chunks=options.chunks)
                connection.execute("SET session_replication_role = replica")
                if options.real_text:
                    replace_embeddings(connection, options.documents, options.chunks)
                connection.execute(DESCRIBED.encode())
                connection.execute(COLLECTED.encode())
                connection.execute("VACUUM (ANALYZE)")
                compare(connection, database.libpq_url(), options)


def replace_embeddings(connection: psycopg.Connection[Any], documents: int, chunks: int) -> None:
    """Put embeddings of real text in the place of those that are there, and build their index again."""
    corpus = churn_corpora.RealText(documents)
    vectors = np.resize(
        corpus.vectors, (documents * chunks, DIMENSIONS)
    )  # some documents have fewer than ten
    index = "rag_chunks_current_embedding_idx"
    row = connection.execute("SELECT pg_get_indexdef(%s::regclass)", (index,)).fetchone()
    assert row is not None
    connection.execute(f"DROP INDEX {index}".encode())
    connection.execute("CREATE TEMPORARY TABLE vectors (number int, place int, embedding vector)")
    with connection.cursor().copy("COPY vectors FROM STDIN") as copy:
        for place, vector in enumerate(vectors):
            document = place // chunks
            cluster, within = divmod(document, documents // CLUSTERS)
            values = ",".join(f"{value:.6g}" for value in vector)
            copy.write_row((within * CLUSTERS + cluster, place % chunks + 1, f"[{values}]"))
    connection.execute(REPLACED.encode())
    connection.execute("VACUUM (FULL) rag_chunks")
    connection.execute("SET maintenance_work_mem = '1GB'")
    connection.execute(row[0].encode())


def compare(connection: psycopg.Connection[Any], url: str, options: argparse.Namespace) -> None:
    sources = {"before": options.before.resolve(), "now": Path(__file__).resolve().parents[1]}
    processes = {
        name: subprocess.Popen(
            [sys.executable, __file__, str(options.before), "--serve", url],
            env=os.environ | {"PYTHONPATH": str(path / "src")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name, path in sources.items()
    }
    for process in processes.values():
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "ready"
    print("| filter | rows, recall: before | now | ms, server + client: before | now | now / before |")
    print("|---|---|---|---|---|---|")
    for case, (condition, _) in CASES.items():
        queries, exact = questions(connection, condition, inside="inside" in case, count=options.queries)
        seconds: dict[str, list[Any]] = {name: [] for name in sources}
        found: dict[str, Any] = {}
        for turn in range(options.rounds + 1):
            for name in (*sources,) if turn % 2 else reversed((*sources,)):
                process = processes[name]
                assert process.stdin is not None
                assert process.stdout is not None
                process.stdin.write(json.dumps({"case": case, "queries": queries}) + "\n")
                process.stdin.flush()
                taken, found[name] = json.loads(process.stdout.readline())
                if turn:  # the first makes ready what is kept
                    seconds[name] += taken
        cells = []
        for name in sources:
            shares = [
                len({*rows} & {*near}) / len(near) if near else 1.0
                for rows, near in zip(found[name], exact, strict=True)
            ]
            cells.append(f"{statistics.mean(map(len, found[name])):.1f}, {statistics.mean(shares):.3f}")
        medians = {
            name: [statistics.median(each) * 1e3 for each in zip(*taken, strict=True)]
            for name, taken in seconds.items()
        }
        sums = {name: statistics.median(map(sum, taken)) for name, taken in seconds.items()}
        cells += [f"{server:.2f} + {client:.2f}" for server, client in medians.values()]
        print(f"| {case} | {' | '.join(cells)} | **{sums['now'] / sums['before']:.2f}** |", flush=True)
    for process in processes.values():
        process.communicate()


def questions(
    connection: psycopg.Connection[Any], condition: str, *, inside: bool, count: int
) -> tuple[list[list[float]], list[list[str]]]:
    """Return embeddings near some of the chunks, of those that pass or of any, and what is nearest to each."""
    random = np.random.default_rng(1)
    rows = connection.execute(
        "SELECT c.embedding::real[] FROM rag_chunks c JOIN rag_document_versions v ON v.id = c.version_id"
        f" WHERE is_current AND {condition if inside else 'true'} ORDER BY hashtext(c.id::text) LIMIT {count}".encode()
    ).fetchall()
    queries = []
    for row in rows:
        embedding = np.array(row[0])
        scale = NOISE * np.linalg.norm(embedding) / np.sqrt(DIMENSIONS)
        queries.append([float(x) for x in embedding + random.normal(0, scale, DIMENSIONS)])
    return queries, [
        [row[0] for row in connection.execute(EXACT.format(condition).encode(), (str(query),)).fetchall()]
        for query in queries
    ]


if __name__ == "__main__":
    main()
