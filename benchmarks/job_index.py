"""Choose the index that a claim of jobs reads, and the table's storage parameters.

    uv run python benchmarks/job_index.py [--rounds 3] [--seconds 2]

Starts an embedded server of its own in a temporary directory, with PostgreSQL's default settings but for
autovacuum_naptime = 5s and synchronous_commit = off (the disk's waits would hide what differs), and prints the
Markdown of its section of RESULTS.md. Tables stand alone, so that one thing differs at a time. The workers are
pgbench's clients, each script one claim and one completion by prepared statements, so that the server is what is
measured. Ways take turns within each round.
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from job_workers import Connection, backend_seconds, connect, wait_for_backends

from ragschema import embedded
from ragschema.database.settings import Database

WORKERS = (1, 4, 8)
BATCHES = (1, 20)
LONG = (0, 200)

TABLE = """
CREATE TABLE jobs (
    id uuid DEFAULT gen_random_uuid() PRIMARY KEY,
    job_type text NOT NULL,
    payload jsonb NOT NULL,
    status job_status NOT NULL DEFAULT 'new',
    created_at timestamptz DEFAULT CURRENT_TIMESTAMP,
    updated_at timestamptz DEFAULT CURRENT_TIMESTAMP,
    error_message text,
    attempts integer NOT NULL DEFAULT 0,
    max_attempts integer NOT NULL DEFAULT 5,
    priority integer NOT NULL DEFAULT 10,
    run_at timestamptz NOT NULL DEFAULT now(),
    lease_expires_at timestamptz,
    leased_by text,
    dedupe_key text,
    progress jsonb,
    finished_at timestamptz
)"""
DEDUPE = (
    "CREATE UNIQUE INDEX ON jobs (job_type, dedupe_key) WHERE finished_at IS NULL AND dedupe_key IS NOT NULL"
)
BASE_INDEX = "CREATE INDEX ON jobs (status, created_at)"
NEW_INDEX = "CREATE INDEX ON jobs (job_type, priority, run_at) WHERE status = 'new'"
RUNNING_INDEX = "CREATE INDEX ON jobs (job_type) WHERE status = 'processing'"
UNFINISHED_INDEX = "CREATE INDEX ON jobs (job_type, priority, run_at) WHERE finished_at IS NULL"

TAKE = """UPDATE jobs SET status = 'processing', attempts = jobs.attempts + 1, leased_by = 'w',
    lease_expires_at = now() + interval '1 minute', updated_at = now()
FROM next WHERE jobs.id = next.id RETURNING jobs.id"""
CLAIM_NAIVE = """WITH next AS (
    SELECT id FROM jobs WHERE status = 'new' ORDER BY created_at LIMIT {batch} FOR UPDATE SKIP LOCKED
), taken AS (UPDATE jobs SET status = 'processing' FROM next WHERE jobs.id = next.id RETURNING jobs.id)
SELECT array_agg(id)::text AS ids FROM taken"""
CLAIM_NEW = f"""WITH next AS (
    SELECT id FROM jobs WHERE status = 'new' AND job_type = 'embed' AND run_at <= now()
    ORDER BY priority, run_at LIMIT {{batch}} FOR UPDATE SKIP LOCKED
), taken AS ({TAKE})
SELECT array_agg(id)::text AS ids FROM taken"""
CLAIM_NEW_OR_EXPIRED = f"""WITH expired AS (
    SELECT id FROM jobs WHERE status = 'processing' AND job_type = 'embed' AND lease_expires_at < now()
    LIMIT {{batch}} FOR UPDATE SKIP LOCKED
), ready AS (
    SELECT id FROM jobs WHERE status = 'new' AND job_type = 'embed' AND run_at <= now()
    ORDER BY priority, run_at LIMIT {{batch}} FOR UPDATE SKIP LOCKED
), next AS (SELECT id FROM expired UNION ALL SELECT id FROM ready LIMIT {{batch}}), taken AS ({TAKE})
SELECT array_agg(id)::text AS ids FROM taken"""
CLAIM_UNFINISHED = f"""WITH next AS (
    SELECT id FROM jobs WHERE finished_at IS NULL AND job_type = 'embed' AND run_at <= now()
        AND (status = 'new' OR lease_expires_at < now())
    ORDER BY priority, run_at LIMIT {{batch}} FOR UPDATE SKIP LOCKED
), taken AS ({TAKE})
SELECT array_agg(id)::text AS ids FROM taken"""
COMPLETE_NAIVE = "UPDATE jobs SET status = 'completed' WHERE id = ANY (:ids::uuid[])"
COMPLETE = """UPDATE jobs SET status = 'completed', finished_at = now(), updated_at = now(), leased_by = NULL,
    lease_expires_at = NULL WHERE id = ANY (:ids::uuid[]) AND status = 'processing' AND attempts = 1"""


@dataclass(frozen=True)
class Way:
    """The indexes of a table, and the statements that claim from it and complete."""

    indexes: tuple[str, ...]
    claim: str
    complete: str = COMPLETE


WAYS = {
    "hand-written claim, base index": Way((BASE_INDEX,), CLAIM_NAIVE, COMPLETE_NAIVE),
    "A: status = 'new'": Way((NEW_INDEX, RUNNING_INDEX, DEDUPE), CLAIM_NEW),
    "A, expired leases looked for in each claim": Way(
        (NEW_INDEX, RUNNING_INDEX, DEDUPE), CLAIM_NEW_OR_EXPIRED
    ),
    "B: finished_at IS NULL": Way((UNFINISHED_INDEX, DEDUPE), CLAIM_UNFINISHED),
    "B, base index kept": Way((UNFINISHED_INDEX, DEDUPE, BASE_INDEX), CLAIM_UNFINISHED),
}
CHOSEN = "A: status = 'new'"


def make_table(connection: Connection, way: Way, storage: str = "") -> None:
    """Make an empty table."""
    connection.execute("DROP TABLE IF EXISTS jobs")
    connection.execute(f"{TABLE} {storage}".encode())
    for index in way.indexes:
        connection.execute(index.encode())


def fill(connection: Connection, waiting: int, running: int) -> None:
    """Put in jobs that run for long, claimed before the others, and jobs that wait."""
    connection.execute(
        """INSERT INTO jobs (job_type, payload, status, attempts, leased_by, lease_expires_at, run_at)
        SELECT 'embed', jsonb_build_object('document', n), 'processing', 1, 'long',
            now() + interval '1 hour', now() - interval '1 hour' FROM generate_series(1, %s) n""",
        (running,),
    )
    connection.execute(
        """INSERT INTO jobs (job_type, payload, run_at, created_at)
        SELECT 'embed', jsonb_build_object('document', n), clock_timestamp(), clock_timestamp()
        FROM generate_series(1, %s) n""",
        (waiting,),
    )
    connection.execute("VACUUM ANALYZE jobs")


def run_pgbench(database: Database, script: str, *, clients: int, seconds: float) -> float:
    """Run a script in a loop with prepared statements; return its transactions a second."""
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as file:
        file.write(script)
        file.flush()
        result = subprocess.run(
            [embedded.program("pgbench"), "-n", "-M", "prepared", "-f", file.name, "-c", str(clients), "-j", "1",
             "-T", str(seconds), database.libpq_url()],
            env=os.environ, text=True, capture_output=True, check=True,
        )  # fmt: skip
    rate = re.search(r"tps = ([\d.]+)", result.stdout)
    assert rate, result.stdout
    return float(rate[1])


@dataclass(frozen=True)
class Rate:
    """Jobs claimed and completed."""

    jobs_a_second: float
    cpu: float
    """Microseconds of the server's CPU time for each job."""


def script(way: Way, batch: int) -> str:
    return f"{way.claim.format(batch=batch)} \\gset\n{way.complete};\n"


@contextmanager
def heartbeats(database: Database, each_second: int) -> Iterator[list[int]]:
    """Extend the lease of the jobs that run for long while the block runs; count them in the list."""
    stop = threading.Event()
    beats: list[int] = []

    def beat() -> None:
        with connect(database) as connection:
            ids = connection.execute("SELECT id FROM jobs WHERE leased_by = 'long'").fetchall()
            started = time.monotonic()
            for number, (job,) in enumerate(itertools.cycle(ids)):
                if stop.is_set():
                    beats.append(number)
                    return
                connection.execute(
                    """UPDATE jobs SET lease_expires_at = now() + interval '1 hour', updated_at = now(),
                        progress = jsonb_build_object('done', %s::integer, 'cursor', id) WHERE id = %s""",
                    (number, job),
                )
                time.sleep(max(0.0, started + number / each_second - time.monotonic()))

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield beats
    finally:
        stop.set()
        thread.join()


def measure_rates(database: Database, rounds: int, seconds: float) -> Mapping[tuple[object, ...], list[Rate]]:
    """Return the rates by way, batch size, jobs that run for long, and workers."""
    rates: dict[tuple[object, ...], list[Rate]] = defaultdict(list)
    with connect(database) as connection:
        for number in range(rounds):
            ways = list(WAYS.items())
            for cell in itertools.product(BATCHES, LONG, WORKERS):
                batch, running, workers = cell
                for name, way in ways[:: -1 if number % 2 else 1]:
                    make_table(connection, way)
                    fill(connection, round((25_000 if batch == 1 else 120_000) * seconds), running)
                    wait_for_backends(connection)
                    before = backend_seconds(connection)
                    rate = run_pgbench(database, script(way, batch), clients=workers, seconds=seconds)
                    wait_for_backends(connection)
                    used = backend_seconds(connection) - before
                    row = connection.execute(
                        "SELECT count(*) FILTER (WHERE status = 'completed'), bool_or(status = 'new') FROM jobs"
                    ).fetchone()
                    assert row is not None
                    assert row[1], "ran out of jobs"
                    rates[name, *cell].append(Rate(rate * batch, used / row[0] * 1e6))
            print(f"round {number + 1} of {rounds}", file=sys.stderr)
    return rates


EAGER = (
    "autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000,"
    " autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 20000"
)
STORAGE = {
    f"fillfactor {fillfactor}{', vacuum at 2,000 dead rows' if eager else ''}": (
        f"WITH (fillfactor = {fillfactor}{', ' if eager else ''}{eager})"
    )
    for eager in ("", EAGER)
    for fillfactor in (100, 75, 50)
}


@dataclass(frozen=True)
class Churn:
    """What a while of work leaves of a table."""

    rate: float
    hot: float
    """Share of the heartbeats."""
    dead: int
    megabytes: float
    index_megabytes: float


def measure_churn(database: Database, storage: str, seconds: float, beats_a_second: int) -> Churn:
    """Claim, complete and enqueue with 4 workers while 200 jobs run and prolong their leases.

    No claim and no completion is HOT, because the index's predicate is the status: what is HOT is a heartbeat.
    """
    way = WAYS[CHOSEN]
    with connect(database) as connection:
        make_table(connection, way, storage)
        fill(connection, 5_000, 0)
        connection.execute(
            """UPDATE jobs SET status = 'processing', attempts = 1, leased_by = 'long', lease_expires_at =
            now() + interval '1 hour' WHERE id IN (SELECT id FROM jobs ORDER BY run_at LIMIT 200)"""
        )
        enqueue = "INSERT INTO jobs (job_type, payload) VALUES ('embed', '{\"document\": 1}');\n"
        with heartbeats(database, beats_a_second) as beats:
            rate = run_pgbench(database, enqueue + script(way, 1), clients=4, seconds=seconds)
        wait_for_backends(connection)
        row = connection.execute(
            """SELECT n_tup_hot_upd, n_dead_tup, pg_table_size(relid) / 1e6, pg_indexes_size(relid) / 1e6
            FROM pg_stat_user_tables WHERE relname = 'jobs'"""
        ).fetchone()
        assert row is not None
    return Churn(rate, row[0] / beats[0], row[1], float(row[2]), float(row[3]))


def report_rates(rates: Mapping[tuple[object, ...], list[Rate]], what: str, field: str) -> str:
    """Return medians as a Markdown table, a line for each way."""
    cells = list(itertools.product(BATCHES, LONG, WORKERS))
    lines = [
        f"| {what} | " + " | ".join(f"batch {b}, {r} long, {w} w" for b, r, w in cells) + " |",
        "|---" * (len(cells) + 1) + "|",
    ]
    for name in WAYS:
        medians = (statistics.median(getattr(rate, field) for rate in rates[name, *cell]) for cell in cells)
        lines.append(f"| {name} | " + " | ".join(f"{median:,.0f}" for median in medians) + " |")
    return "\n".join(lines)


def report_churn(churns: Mapping[str, list[Churn]]) -> str:
    """Return medians as a Markdown table, a line for each storage."""
    lines = [
        "| storage | jobs/s | heartbeats HOT | dead tuples | table MB | indexes MB |",
        "|---|---|---|---|---|---|",
    ]
    for name, each in churns.items():
        rate, hot, dead, table, index = (
            statistics.median(getattr(churn, field) for churn in each)
            for field in ("rate", "hot", "dead", "megabytes", "index_megabytes")
        )
        lines.append(f"| {name} | {rate:,.0f} | {hot:.2%} | {dead:,.0f} | {table:.1f} | {index:.1f} |")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--seconds", type=int, default=2, help="of each measurement of a rate; jobs are made for as many"
    )
    parser.add_argument("--churn-seconds", type=int, default=10, help="of each storage; 0: leave it out")
    parser.add_argument("--churn-only", action="store_true", help="leave the rates out")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="ragschema-") as directory,
        embedded.running(Path(directory) / "postgres") as parameters,
    ):
        database = Database(parameters, "the benchmark")
        with connect(database) as connection:
            connection.execute("CREATE TYPE job_status AS ENUM ('new', 'processing', 'completed', 'failed')")
            connection.execute("ALTER SYSTEM SET autovacuum_naptime = '5s'")
            connection.execute("ALTER SYSTEM SET synchronous_commit = off")
            connection.execute("SELECT pg_reload_conf()")
        if options.churn_seconds:
            churns: dict[str, list[Churn]] = defaultdict(list)
            for _ in range(options.rounds):
                for name, storage in STORAGE.items():
                    churns[name].append(measure_churn(database, storage, options.churn_seconds, 200))
            print(report_churn(churns), flush=True)
        if options.churn_only:
            return
        rates = measure_rates(database, options.rounds, options.seconds)
        print(report_rates(rates, "jobs a second", "jobs_a_second"))
        print()
        print(report_rates(rates, "µs of server CPU a job", "cpu"))


if __name__ == "__main__":
    main()
