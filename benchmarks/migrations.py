"""Time `rag migrate` as a whole process: at head, and from an empty database to head.

    uv run python benchmarks/migrations.py [--rounds 15]

Starts an embedded server of its own in a temporary directory, with PostgreSQL's default settings, and prints
the Markdown of its section of RESULTS.md. The ways are timed in turn within each round.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import psycopg

from ragschema import embedded, migrations
from ragschema.database.settings import Database

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent


def seconds(command: list[str], database: Database, *, stdin: Path | None = None) -> float:
    """Run a command against a database; return its wall-clock time."""
    environment = os.environ | {"DATABASE_URL": database.libpq_url()}
    with (stdin or Path(os.devnull)).open() as source:
        start = time.perf_counter()
        subprocess.run(command, cwd=ROOT, env=environment, stdin=source, capture_output=True, check=True)
        return time.perf_counter() - start


def fresh(server: Database, name: str) -> Database:
    """Make an empty database."""
    with psycopg.connect(server.libpq_url(), autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name}".encode())
        connection.execute(f"CREATE DATABASE {name}".encode())
    return Database({**server.parameters, "dbname": name}, "the benchmark")


def measure(server: Database, rounds: int) -> dict[str, list[float]]:
    """Time every way once a round."""
    psql = str(embedded.program("psql"))
    head = fresh(server, "at_head")
    migrations.upgrade(head)
    times: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds + 1):
        times["no-op: `rag migrate`"].append(seconds([str(BIN / "rag"), "migrate"], head))
        times["no-op: `rag migrate status`"].append(seconds([str(BIN / "rag"), "migrate", "status"], head))
        times["no-op: `alembic upgrade head`"].append(
            seconds([str(BIN / "alembic"), "upgrade", "head"], head)
        )
        times["`psql -c 'select 1'`"].append(seconds([psql, head.libpq_url(), "-c", "select 1"], head))
        times["empty to head: `rag migrate`"].append(
            seconds([str(BIN / "rag"), "migrate"], fresh(server, "by_rag"))
        )
        times["empty to head: `alembic upgrade head`"].append(
            seconds([str(BIN / "alembic"), "upgrade", "head"], fresh(server, "by_alembic"))
        )
        by_psql = fresh(server, "by_psql")
        command = [psql, "-X", "-q", "-v", "ON_ERROR_STOP=1", by_psql.libpq_url()]
        times["empty to head: `psql < schema.sql`"].append(
            seconds(command, by_psql, stdin=ROOT / "schema.sql")
        )
    return {way: each[1:] for way, each in times.items()}  # the first round warms up


def report(times: dict[str, list[float]]) -> str:
    """Return the results as Markdown: medians, and each way against `alembic upgrade head` of its kind."""
    lines = ["| process | median s | min | max | against `alembic upgrade head` |", "|---|---|---|---|---|"]
    medians = {way: statistics.median(each) for way, each in times.items()}
    for way, each in times.items():
        kind = "empty to head" if way.startswith("empty") else "no-op"
        ratio = medians[way] / medians[f"{kind}: `alembic upgrade head`"]
        lines.append(f"| {way} | {medians[way]:.3f} | {min(each):.3f} | {max(each):.3f} | {ratio:.2f} |")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        with embedded.running(Path(directory) / "postgres") as parameters:
            times = measure(Database(parameters, "the benchmark"), arguments.rounds)
        print(f"{arguments.rounds} rounds\n\n{report(times)}")


if __name__ == "__main__":
    main()
