"""This source beside another checkout's, each on its own schema: publishing, loads, searches and jobs, in turns.

    git worktree add /tmp/before COMMIT
    uv run python benchmarks/side_by_side.py /tmp/before [--chunks 6000] [--rounds 5] [--parts hybrid words]

Starts an embedded server of its own in a temporary directory and prints Markdown. Each source has a database at its
own head and a process of its own, with the libraries of this one. A time is the CPU of the server's process and of the
client's, which what runs beside them changes little; each round runs a part in both sources, either first in turn.
Chunks are paragraphs of files, vectors random around centres.
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
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import sqlalchemy as sa
from english import english

import ragschema
from ragschema import hybrid_search, jobs, nearest_chunks, plan_version, publish
from ragschema.publishing import BulkDocument, deferred_index, publish_many

CHUNKS = 10  # of a document
DIMENSIONS = 768
CALLS = 50  # of a part in a round
LOADED = 300  # documents, in one batch
LOAD = "load by COPY without the indexes of searches, a document of 10 chunks"


class Source:
    """What runs in a source's own process: its parts, by name."""

    def __init__(self, url: str, chunks: int, files: str) -> None:
        self.engine = ragschema.create_engine(url)
        self.random = np.random.default_rng(1)
        self.centres = self.random.standard_normal((200, DIMENSIONS))
        self.texts = list(english(files, chunks).values())
        self.calls = 0
        with self.engine.connect() as connection, deferred_index(self.engine, search_is_slow_meanwhile=True):
            publish_many(connection, self.documents("document", len(self.texts) // CHUNKS))
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("VACUUM (ANALYZE)")
        self.questions = [" ".join(text.split()[20:26]) for text in self.texts[:: len(self.texts) // 500]]

    def vector(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        centre = self.centres[self.random.integers(len(self.centres))]
        found = centre + 0.5 * self.random.standard_normal(DIMENSIONS)
        return (found / np.linalg.norm(found)).astype(np.float32)

    def documents(self, name: str, count: int) -> list[BulkDocument]:
        return [
            BulkDocument(
                article_id=f"{name}-{number}",
                contents=self.texts[number * CHUNKS : (number + 1) * CHUNKS],
                embeddings=np.array([self.vector() for _ in range(CHUNKS)]),
                source_hash="1",
                chunker_version="chunker",
                embedder_version="model",
            )
            for number in range(count)
        ]

    def run(self, part: str) -> tuple[float, float, float]:
        """Run a part; return seconds of the server's CPU, of the client's and of the clock, for one call."""
        self.calls += 1
        with self.engine.connect() as connection:
            pid = connection.scalar(sa.text("SELECT pg_backend_pid()"))
            connection.rollback()
            prepared = self.to_load() if part == LOAD else None
            started = cpu_seconds(pid), time.process_time(), time.perf_counter()
            PARTS[part](self, connection, prepared)
            ended = cpu_seconds(pid), time.process_time(), time.perf_counter()
        server, client, clock = (after - before for after, before in zip(ended, started, strict=True))
        calls = LOADED if part == LOAD else CALLS
        return server / calls, client / calls, clock / calls

    def to_load(self) -> list[BulkDocument]:
        """Drop the indexes that a load sets aside; return documents."""
        with self.engine.connect() as connection:
            found = connection.scalars(sa.text(_SET_ASIDE)).all()
            for name in found:
                connection.execute(sa.text(f"DROP INDEX {name}"))
            connection.commit()
        return self.documents(f"load-{self.calls}", LOADED)

    def question(self, number: int) -> str:
        return self.questions[(self.calls * CALLS + number) % len(self.questions)]


_SET_ASIDE = """
SELECT c.oid::regclass FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam
WHERE i.indrelid = 'rag_chunks'::regclass AND a.amname IN ('hnsw', 'gin')
"""


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process so far, from Linux's count of nanoseconds."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def _search(source: Source, connection: sa.Connection, _: Any) -> None:
    for _number in range(CALLS):
        connection.execute(nearest_chunks(source.vector())).all()


def _search_of_41(source: Source, connection: sa.Connection, _: Any) -> None:
    connection.exec_driver_sql("SET LOCAL hnsw.ef_search = 41")
    _search(source, connection, None)


def _hybrid(source: Source, connection: sa.Connection, _: Any) -> None:
    for number in range(CALLS):
        connection.execute(hybrid_search(source.vector(), source.question(number))).all()


def _words(source: Source, connection: sa.Connection, _: Any) -> None:
    for number in range(CALLS):
        connection.execute(hybrid_search(None, source.question(number))).all()


def _publish(source: Source, connection: sa.Connection, _: Any) -> None:
    for number in range(CALLS):
        place = (source.calls * CALLS + number) % (len(source.texts) // CHUNKS)
        contents = source.texts[place * CHUNKS : (place + 1) * CHUNKS]
        contents[source.calls % CHUNKS] += f" edited {source.calls}"
        plan = plan_version(
            connection,
            f"document-{place}",
            contents,
            source_hash=f"{source.calls}",
            chunker_version="chunker",
            embedder_version="model",
        )
        publish(connection, plan, [source.vector() for _ in plan.texts_to_embed])
        connection.commit()


def _enqueue(_source: Source, connection: sa.Connection, _: Any) -> None:
    for number in range(CALLS):
        jobs.enqueue(connection, "embed", {"number": number})
        connection.commit()


def _work(_source: Source, connection: sa.Connection, _: Any) -> None:
    for _number in range(CALLS):
        claimed = jobs.claim(connection, "worker", ["embed"])
        connection.commit()
        assert jobs.complete_many(connection, claimed)
        connection.commit()


def _load(_source: Source, connection: sa.Connection, documents: Any) -> None:
    publish_many(connection, documents)


PARTS: Mapping[str, Callable[[Source, sa.Connection, Any], None]] = {
    "search by embedding": _search,
    "search by embedding, 41 candidates in both": _search_of_41,
    "hybrid": _hybrid,
    "words": _words,
    "plan and publish, 1 of 10 chunks changed": _publish,
    "enqueue a job": _enqueue,
    "claim and complete a job": _work,
    LOAD: _load,  # the last, because the indexes are gone afterwards
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("before", type=Path, help="a checkout")
    parser.add_argument("--chunks", type=int, default=6000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=[*PARTS])
    parser.add_argument("--text", default="/usr/share/vim/vim90/doc/*.txt", help="a pattern of files")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(Source(options.serve, options.chunks, options.text))
        return
    from ragschema import embedded  # not in the process of the other source, where it is elsewhere
    from ragschema.database.settings import Database

    sources = {"before": options.before.resolve(), "now": Path(__file__).resolve().parents[1]}
    with tempfile.TemporaryDirectory(prefix="rag-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        directory.chmod(0o711)
        with embedded.running(directory / "postgres", makes=True) as parameters:
            urls = {name: Database({**parameters, "dbname": name}, "it").libpq_url() for name in sources}
            with psycopg.connect(Database(parameters, "it").libpq_url(), autocommit=True) as connection:
                for source in sources:
                    connection.execute(f"CREATE DATABASE {source}".encode())
            compare(urls, sources, options)


def serve(source: Source) -> None:
    """Run the parts that are asked for, a line each, and answer with their times."""
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(source.run(line.strip())), flush=True)


def compare(urls: Mapping[str, str], sources: Mapping[str, Path], options: argparse.Namespace) -> None:
    for name, path in sources.items():
        environment = os.environ | {"PYTHONPATH": str(path / "src"), "DATABASE_URL": urls[name]}
        migrate = [sys.executable, "-m", "ragschema", "migrate"]
        subprocess.run(migrate, env=environment, check=True, stdout=subprocess.DEVNULL)
    processes = {
        name: subprocess.Popen(
            [
                *(sys.executable, __file__, str(options.before), "--chunks", str(options.chunks)),
                *("--text", options.text, "--serve", urls[name]),
            ],
            env=os.environ | {"PYTHONPATH": str(path / "src")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name, path in sources.items()
    }
    for process in processes.values():
        assert process.stdout is not None
        while process.stdout.readline().strip() != "ready":
            assert process.poll() is None
    print("| one call, ms | before: server + client | now: server + client | now / before |")
    print("|---|---|---|---|")
    for part in options.parts:
        times: dict[str, list[list[float]]] = {name: [] for name in sources}
        for turn in range(options.rounds + 1):
            for name in (*sources,) if turn % 2 else reversed((*sources,)):
                process = processes[name]
                assert process.stdin is not None
                assert process.stdout is not None
                process.stdin.write(f"{part}\n")
                process.stdin.flush()
                answer = json.loads(process.stdout.readline())
                if turn:  # the first makes ready what is kept
                    times[name].append(answer)
        medians = {
            name: [statistics.median(each) * 1000 for each in zip(*of_it, strict=True)]
            for name, of_it in times.items()
        }
        ratios = [
            sum(now[:2]) / sum(before[:2]) for now, before in zip(times["now"], times["before"], strict=True)
        ]
        cells = [f"{server:.2f} + {client:.2f}" for server, client, _ in (medians["before"], medians["now"])]
        print(
            f"| {part} | {' | '.join(cells)} | **{statistics.median(ratios):.2f}**"
            f" ({min(ratios):.2f} to {max(ratios):.2f}) |",
            flush=True,
        )
    for process in processes.values():
        assert process.stdin is not None
        process.stdin.close()
        process.wait()


if __name__ == "__main__":
    main()
