"""The server and the worker processes of benchmarks/jobs.py."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import psycopg

from ragschema.database.settings import Database

SCRIPTS = Path(__file__).parent / "peers_jobs"
PEERS = {
    "procrastinate": ("with_procrastinate.py", ["procrastinate==3.10.*"]),
    "pgqueuer": ("with_pgqueuer.py", ["pgqueuer==1.6.*", "asyncpg"]),
}

Connection = psycopg.Connection[psycopg.rows.TupleRow]


def connect(database: Database) -> Connection:
    """Connect with psycopg, each statement a transaction of its own."""
    return psycopg.connect(database.libpq_url(), autocommit=True, application_name="benchmark")


def value(connection: Connection, query: str, *parameters: object) -> Any:
    """Return the one value of a query."""
    row = connection.execute(query.encode(), parameters or None).fetchone()
    assert row is not None
    return row[0]


def backend_seconds(connection: Connection) -> float:
    """Return the CPU time, in seconds, of all of the server's processes that have ended."""
    postmaster = psutil.Process(value(connection, "SELECT pg_backend_pid()")).parent()
    assert postmaster is not None
    times = postmaster.cpu_times()
    return times.children_user + times.children_system


def wait_for_backends(connection: Connection) -> None:
    """Wait until all other sessions have ended, so that the server has counted their CPU time."""
    query = """SELECT count(*) FROM pg_stat_activity
        WHERE backend_type = 'client backend' AND application_name <> 'benchmark'"""
    while value(connection, query):
        time.sleep(0.01)
    time.sleep(0.02)


class Worker:
    """A process that answers requests."""

    def __init__(self, python: str, script: str) -> None:
        self.process = subprocess.Popen(
            [python, SCRIPTS / script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def send(self, request: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()

    def receive(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def stop(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(10)


class Workers:
    """Worker processes of every environment, started when first asked for."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.started: dict[str, list[Worker]] = {"ours": []}
        self.pythons = {"ours": (sys.executable, "with_psycopg.py")}
        for name, (script, packages) in PEERS.items():
            python = self.directory / name / "bin" / "python"
            if not python.exists():
                subprocess.run(["uv", "venv", "-q", self.directory / name], check=True)
                subprocess.run(["uv", "pip", "install", "-q", "--python", python, *packages], check=True)
            self.pythons[name] = (str(python), script)
            self.started[name] = []

    def get(self, environment: str, count: int) -> list[Worker]:
        workers = self.started[environment]
        while len(workers) < count:
            workers.append(Worker(*self.pythons[environment]))
        return workers[:count]

    def ask(self, environment: str, database: Database, *requests: dict[str, Any]) -> list[dict[str, Any]]:
        """Run one request in each of as many processes, all at once; return their answers."""
        target = {"dsn": database.libpq_url(), "keywords": keywords(database)}
        workers = self.get(environment, len(requests))
        for worker, request in zip(workers, requests, strict=True):
            worker.send(request | target)
        answers = [worker.receive() for worker in workers]
        if answers[0].get("ready"):
            for worker in workers:
                worker.send({})
            answers = [worker.receive() for worker in workers]
        return answers

    def stop(self) -> None:
        for workers in self.started.values():
            for worker in workers:
                worker.stop()


def keywords(database: Database) -> dict[str, str]:
    """Return the connection's keywords in asyncpg's and libpq's common words, but for the database's name."""
    return {("database" if name == "dbname" else name): text for name, text in database.parameters.items()}


@contextmanager
def workers_in(directory: Path) -> Iterator[Workers]:
    """Provide worker processes, their environments made in a directory where they are missing."""
    workers = Workers(directory)
    try:
        yield workers
    finally:
        workers.stop()


@dataclass(frozen=True)
class Rate:
    """What a number of workers did in a while."""

    jobs_a_second: float
    server: float
    """Microseconds of the server's CPU time for each job."""
    client: float
    """Microseconds of the workers' CPU time for each job."""
    wal: float
    """Bytes of WAL for each job."""


def measure(
    workers: Workers,
    server: Connection,
    environment: str,
    database: Database,
    *requests: dict[str, Any],
) -> Rate:
    """Run one request in each of as many processes."""
    wait_for_backends(server)
    cpu, lsn = backend_seconds(server), value(server, "SELECT pg_current_wal_insert_lsn()::text")
    answers = workers.ask(environment, database, *requests)
    wait_for_backends(server)
    jobs = max(1, sum(answer["jobs"] for answer in answers))
    wal = value(server, "SELECT pg_current_wal_insert_lsn() - %s::pg_lsn", lsn)
    return Rate(
        sum(answer["rate"] for answer in answers),
        (backend_seconds(server) - cpu) / jobs * 1e6,
        sum(answer["cpu"] for answer in answers) / jobs * 1e6,
        float(wal) / jobs,
    )
