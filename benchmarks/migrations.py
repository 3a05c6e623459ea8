"""Time `rag migrate` as a whole process: at head, and from an empty database to head; and tenants made in a process.

    uv run python benchmarks/migrations.py [--rounds 15]

Starts an embedded server of its own in a temporary directory, with PostgreSQL's default settings, and prints
the Markdown of its section of RESULTS.md. The ways are timed in turn within each round, by the clock and by the
processor's time of the client and of the server together.
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
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil
import psycopg

from ragschema import embedded, migrations, tenants
from ragschema.database.settings import Database

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
_REAPED_AFTER = 0.1  # seconds


@dataclass(frozen=True)
class Timed:
    """What something took, in seconds."""

    wall: float
    processor: float


class Clock:
    """Times what runs: by the wall, and by the processor's time of our children and of the server's.

    A backend's time is counted when it has ended, which takes a moment after its client.
    """

    def __init__(self, server: psutil.Process) -> None:
        self._server = server

    def run(self, work: Callable[[], object]) -> Timed:
        """Run something, which ends its connections."""
        before, start = self._used(), time.perf_counter()
        work()
        wall = time.perf_counter() - start
        time.sleep(_REAPED_AFTER)
        return Timed(wall, self._used() - before)

    def _used(self) -> float:
        ours, theirs = psutil.Process().cpu_times(), self._server.cpu_times()
        return sum(
            (
                *(ours.user, ours.system, ours.children_user, ours.children_system),
                *(theirs.children_user, theirs.children_system),
            )
        )


def process(command: list[str], database: Database, *, stdin: Path | None = None) -> Callable[[], object]:
    """Return what runs a command against a database."""
    environment = os.environ | {"DATABASE_URL": database.libpq_url()}

    def work() -> None:
        with (stdin or Path(os.devnull)).open() as source:
            subprocess.run(command, cwd=ROOT, env=environment, stdin=source, capture_output=True, check=True)

    return work


def fresh(server: Database, name: str) -> Database:
    """Make an empty database."""
    with psycopg.connect(server.libpq_url(), autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name}".encode())
        connection.execute(f"CREATE DATABASE {name}".encode())
    return Database({**server.parameters, "dbname": name}, "the benchmark")


def measure(server: Database, clock: Clock, rounds: int) -> dict[str, list[Timed]]:
    """Time every way once a round."""
    rag, alembic = str(BIN / "rag"), str(BIN / "alembic")
    psql = str(embedded.program("psql"))
    head = fresh(server, "at_head")
    migrations.upgrade(head)
    times: dict[str, list[Timed]] = defaultdict(list)
    for number in range(rounds + 1):

        def time_way(way: str, work: Callable[[], object]) -> None:
            times[way].append(clock.run(work))

        time_way("no-op: `rag migrate`", process([rag, "migrate"], head))
        time_way("no-op: `rag migrate status`", process([rag, "migrate", "status"], head))
        time_way("no-op: `alembic upgrade head`", process([alembic, "upgrade", "head"], head))
        time_way("`psql -c 'select 1'`", process([psql, head.libpq_url(), "-c", "select 1"], head))
        for way, command in (
            ("`rag migrate`", [rag, "migrate"]),
            ("`rag migrate --replay`", [rag, "migrate", "--replay"]),
            ("`alembic upgrade head`", [alembic, "upgrade", "head"]),
        ):
            time_way(f"empty to head: {way}", process(command, fresh(server, "by_process")))
        by_psql = fresh(server, "by_psql")
        command = [psql, "-X", "-q", "-v", "ON_ERROR_STOP=1", by_psql.libpq_url()]
        time_way("empty to head: `psql < schema.sql`", process(command, by_psql, stdin=ROOT / "schema.sql"))
        time_way("a tenant: `create_tenant`", partial(tenants.create_tenant, f"made_{number}", head))
        time_way(
            "a tenant: `upgrade(replay=True)`",
            partial(migrations.upgrade, head, schema=f"walked_{number}", replay=True),
        )
    return {way: each[1:] for way, each in times.items()}  # the first round warms up


def report(times: dict[str, list[Timed]]) -> str:
    """Return the results as Markdown: medians, and each way against the one of its kind that walks."""
    lines = [
        "| way | median s | min | max | against walking | processor s | against walking |",
        "|---|---|---|---|---|---|---|",
    ]
    walls = {way: statistics.median(timed.wall for timed in each) for way, each in times.items()}
    used = {way: statistics.fmean(timed.processor for timed in each) for way, each in times.items()}
    for way, each in times.items():
        kind = way.partition(":")[0]
        walking = {
            "empty to head": "empty to head: `alembic upgrade head`",
            "a tenant": "a tenant: `upgrade(replay=True)`",
        }.get(kind, "no-op: `alembic upgrade head`")
        fastest, slowest = min(timed.wall for timed in each), max(timed.wall for timed in each)
        lines.append(
            f"| {way} | {walls[way]:.3f} | {fastest:.3f} | {slowest:.3f} | {walls[way] / walls[walking]:.2f}"
            f" | {used[way]:.3f} | {used[way] / used[walking]:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        data = Path(directory) / "postgres"
        with embedded.running(data) as parameters:
            pid = int((data / "postmaster.pid").read_text().split()[0])
            clock = Clock(psutil.Process(pid))
            times = measure(Database(parameters, "the benchmark"), clock, arguments.rounds)
        print(f"{arguments.rounds} rounds\n\n{report(times)}")


if __name__ == "__main__":
    main()
