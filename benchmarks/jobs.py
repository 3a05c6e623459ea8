"""Compare rag_jobs with a hand-written claim, procrastinate and pgqueuer.

    uv run python benchmarks/jobs.py [--quick] [--rounds 5] [--environments DIRECTORY]

Starts an embedded server of its own in a temporary directory, with PostgreSQL's default settings but for
autovacuum_naptime = 10s, so that a short run sees autovacuum, and max_wal_size = 16GB, so that checkpoints stay
out of it. Makes an environment for each peer with `uv`. Each worker is a process of its own. All ways of a
measurement take turns within each round, the other way round in every second one. Prints the Markdown of its
section of RESULTS.md.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import job_report
from job_results import Churn, Results
from job_ways import (
    ENQUEUE_WAYS,
    LATENCY_QUEUES,
    OURS,
    QUEUES,
    WAYS,
    Queue,
    Way,
    churn_way,
    install,
    is_measured,
)
from job_workers import Connection, Workers, connect, measure, value, workers_in

from ragschema import embedded
from ragschema.database.settings import Database

LONG = 200


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    rounds: int = 5
    seconds: float = 0.8
    workers: tuple[int, ...] = (1, 2, 4, 8)
    finished: int = 1_000_000
    churn: int = 200_000
    trickle: int = 200


QUICK = Sizes(rounds=1, seconds=0.5, workers=(1, 4), finished=100_000, churn=8_000, trickle=50)


@dataclass
class Benchmark:
    """A server with two databases for each queue, and the worker processes."""

    server: Connection
    parameters: dict[str, str]
    workers: Workers
    sizes: Sizes
    results: Results = field(default_factory=Results)

    def database(self, queue: Queue, state: str) -> Database:
        return Database({**self.parameters, "dbname": f"{queue.key}_{state}"}, "the benchmark")

    def make_databases(self) -> None:
        """Make for each queue a database where no job has finished, and one that keeps many."""
        for queue in QUEUES:
            for state in ("empty", "finished"):
                self.server.execute(f"CREATE DATABASE {queue.key}_{state}".encode())
                install(queue, self.database(queue, state), self.workers)
            with connect(self.database(queue, "finished")) as connection:
                connection.execute("SET session_replication_role = replica")  # no triggers
                connection.execute(queue.finished.encode(), {"jobs": self.sizes.finished})
            progress(f"{queue.name} has its databases")

    def stock(self, way: Way, state: str) -> None:
        """Fill the queue with jobs that wait; but for the finished ones, it is empty before."""
        database = self.database(way.queue, "finished" if state == "finished" else "empty")
        with connect(database) as connection:
            if state != "finished":
                connection.execute(f"TRUNCATE {', '.join(way.queue.tables)} CASCADE".encode())
            if state == "long":
                connection.execute(way.queue.running.encode(), {"jobs": LONG})
            there = value(connection, way.queue.count_waiting)
            connection.execute(way.queue.waiting.encode(), {"jobs": max(0, way.stock - there)})
            connection.execute(f"VACUUM ANALYZE {', '.join(way.queue.tables)}".encode())

    def measure_claims(self, way: Way, state: str, workers: int) -> None:
        self.stock(way, state)
        database = self.database(way.queue, "finished" if state == "finished" else "empty")
        request = {"do": way.do, "batch": way.batch, "seconds": self.sizes.seconds}
        rate = measure(self.workers, self.server, way.queue.environment, database, *[request] * workers)
        with connect(database) as connection:
            assert value(connection, way.queue.count_waiting), f"{way.name}: ran out of jobs"
        self.results.rates[state, workers, way.name].append(rate)

    def measure_enqueue(self, name: str, queue: Queue, request: dict[str, Any], workers: int) -> None:
        database = self.database(queue, "empty")
        with connect(database) as connection:
            connection.execute(f"TRUNCATE {', '.join(queue.tables)} CASCADE".encode())
        request = request | {"seconds": self.sizes.seconds}
        rate = measure(self.workers, self.server, queue.environment, database, *[request] * workers)
        self.results.rates[f"enqueue {request['size']}", workers, name].append(rate)

    def measure_latency(self, queue: Queue) -> None:
        """Enqueue jobs one after the other beside one worker that waits for them."""
        database = self.database(queue, "empty")
        with connect(database) as connection:
            connection.execute(f"TRUNCATE {', '.join(queue.tables)} CASCADE".encode())
        common = {"count": self.sizes.trickle, "interval": 0.01}
        answers = self.workers.ask(
            queue.environment, database, {"do": "listen"} | common, {"do": "trickle"} | common
        )
        self.results.waits[queue.name].append(answers[0]["waits"])

    def measure_round(self, number: int) -> None:
        """Measure every rate once."""
        order = -1 if number % 2 else 1
        for workers in self.sizes.workers:
            for way in WAYS[::order]:
                for state in ("empty", "finished", "long"):
                    if is_measured(way, state, workers):
                        self.measure_claims(way, state, workers)
        for workers in (1, 4):
            for name, queue, request in ENQUEUE_WAYS[::order]:
                self.measure_enqueue(name, queue, request, workers)
        for queue in LATENCY_QUEUES[::order]:
            self.measure_latency(queue)

    def measure_churn(self, queue: Queue) -> None:
        """Enqueue, claim and complete jobs with 4 workers, in ten rounds."""
        way, database = churn_way(queue), self.database(queue, "empty")
        jobs = int(self.sizes.churn * queue.churn_share)
        share = jobs // 40
        enqueue = {"do": way.enqueue, "size": min(1_000, share), "jobs": share, "seconds": 600}
        claim = {"do": way.do, "batch": way.batch, "drain": True, "seconds": 600}
        with connect(database) as connection:
            connection.execute(f"TRUNCATE {', '.join(queue.tables)} CASCADE".encode())
            self.server.execute("CHECKPOINT")
            started, lsn = time.monotonic(), value(self.server, "SELECT pg_current_wal_insert_lsn()::text")
            for _ in range(10):
                for request in (enqueue, claim):
                    self.workers.ask(queue.environment, database, *[request] * 4)
            elapsed = time.monotonic() - started
            wal = value(self.server, "SELECT pg_current_wal_insert_lsn() - %s::pg_lsn", lsn)
            time.sleep(1)  # for the statistics of the last sessions
            dead = sum(
                value(connection, "SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = %s", table)
                for table in queue.tables
            )
            before = sizes(connection, queue)
            for table in queue.tables:
                connection.execute(f"VACUUM FULL {table}".encode())
            after = sizes(connection, queue)
        self.results.churns[queue.name] = Churn(jobs, elapsed, float(wal) / jobs, dead, *before, *after)

    def measure_heartbeats(self) -> None:
        """Prolong the leases of 200 jobs, each twice a second, while 4 workers claim and complete others.

        An update that claims or completes is never HOT, because an index's predicate mentions the status: what is
        HOT is a heartbeat.
        """
        database = self.database(OURS, "empty")
        query = "SELECT n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'rag_jobs'"
        with connect(database) as connection:
            connection.execute(b"TRUNCATE rag_jobs")
            connection.execute(OURS.waiting.encode(), {"jobs": 60_000})
            connection.execute(OURS.waiting.replace("'embed'", "'long'").encode(), {"jobs": LONG})
            connection.execute(b"VACUUM ANALYZE rag_jobs")
            before = value(connection, query)
            seconds = 5 * self.sizes.seconds
            beats = {"do": "heartbeat", "count": LONG, "interval": 0.002, "seconds": seconds}
            claims = {"do": "claim", "batch": 1, "seconds": seconds}
            answers = self.workers.ask("ours", database, beats, *[claims] * 4)
            time.sleep(1)  # for the statistics of the sessions that ended
            self.results.heartbeats = (answers[0]["beats"], value(connection, query) - before)


def sizes(connection: Connection, queue: Queue) -> tuple[float, float]:
    """Return the MB of a queue's tables and of their indexes."""
    tables = [f"'{table}'::regclass" for table in queue.tables]
    return (
        float(
            value(connection, f"SELECT sum(pg_table_size(t)) / 1e6 FROM unnest(ARRAY[{','.join(tables)}]) t")
        ),
        float(
            value(
                connection, f"SELECT sum(pg_indexes_size(t)) / 1e6 FROM unnest(ARRAY[{','.join(tables)}]) t"
            )
        ),
    )


_started = time.monotonic()


def progress(text: str) -> None:
    print(f"{time.monotonic() - _started:6.1f} s  {text}", file=sys.stderr, flush=True)


def run(benchmark: Benchmark) -> None:
    """Measure everything."""
    benchmark.make_databases()
    for number in range(benchmark.sizes.rounds):
        benchmark.measure_round(number)
        progress(f"round {number + 1} of {benchmark.sizes.rounds}")
    benchmark.measure_heartbeats()
    for queue in QUEUES:
        benchmark.measure_churn(queue)
        progress(f"{queue.name}: {benchmark.results.churns[queue.name].jobs:,} jobs")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="small sizes, one round: only to see that it runs"
    )
    parser.add_argument("--rounds", type=int, help="default 5")
    parser.add_argument("--environments", type=Path, help="keep the peers' environments here")
    options = parser.parse_args()
    measured = QUICK if options.quick else Sizes()
    if options.rounds:
        measured = Sizes(**(vars(measured) | {"rounds": options.rounds}))
    with (
        tempfile.TemporaryDirectory(prefix="ragschema-") as directory,
        embedded.running(Path(directory) / "postgres") as parameters,
        connect(Database(parameters, "the benchmark")) as server,
        workers_in(options.environments or Path(directory)) as workers,
    ):
        for setting in ("autovacuum_naptime = '10s'", "max_wal_size = '16GB'", "checkpoint_timeout = '1h'"):
            server.execute(f"ALTER SYSTEM SET {setting}".encode())
        server.execute("SELECT pg_reload_conf()")
        benchmark = Benchmark(server, dict(parameters), workers, measured)
        run(benchmark)
        print(job_report.report(benchmark.results, measured.workers))


if __name__ == "__main__":
    main()
