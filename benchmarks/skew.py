"""Statements on skewed corpora against even ones of the same size: plans for the values, and generic ones.

    uv run python benchmarks/skew.py [--chunks 20000] [--crowd 60000] [--versions 1000] [--rounds 3]

Starts an embedded server of its own in a temporary directory and prints the Markdown of its section of RESULTS.md. The
corpora and the pieces of work are those of tests/test_skewed_plans.py, which counts rows where this takes times: of
the server's CPU, for the connection's process, which what runs beside it changes little. A piece of work is undone
after each round, or done in a copy of the database; only itself counts.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import psycopg
import sqlalchemy as sa
from sqlalchemy.orm import Session

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from ragschema import create_engine, embedded, migrations
from ragschema.database.settings import Database
from skewed_data import Corpus, Work, corpora, fill, works

MODES = ("force_custom_plan", "force_generic_plan")
CUT_OFF = 60  # seconds of one statement
TRIALS = 6  # after five plans for the values PostgreSQL compares their costs with that of a generic plan


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    for name, value in (("chunks", 20_000), ("crowd", 60_000), ("versions", 1000), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=value)
    given = parser.parse_args()
    found = corpora(chunks=given.chunks, crowd=given.crowd, versions=given.versions)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        with embedded.running(directory / "postgres", makes=True) as parameters:
            for target, named in found.items():
                report(target, measure(parameters, target, named, given.rounds))


def measure(
    parameters: Mapping[str, str], target: str, named: Mapping[str, Corpus], rounds: int
) -> dict[str, dict[str, float]]:
    """Return the median seconds of each piece of work, by corpus; the slower of the two kinds of plan."""
    server = Database({**parameters, "dbname": "postgres"}, "the benchmark").libpq_url()
    databases = {}
    for number, (name, corpus) in enumerate(named.items()):
        database = Database({**parameters, "dbname": f"corpus_{number}"}, "the benchmark")
        copy(server, "template1", database.parameters["dbname"])
        migrations.upgrade(database)
        with psycopg.connect(database.libpq_url(), autocommit=True) as connection:
            fill(connection, corpus)
        databases[name] = database
    medians: dict[str, dict[str, float]] = {}
    for title, work in works(target).items():
        taken: dict[tuple[str, str], list[float]] = {(name, mode): [] for name in named for mode in MODES}
        for _ in range(rounds):
            for name, mode in taken:
                database = databases[name]
                if work.is_committing:
                    copy(server, database.parameters["dbname"], "copied")
                    database = Database({**parameters, "dbname": "copied"}, "the benchmark")
                taken[name, mode].append(seconds_of(database, work, mode))
        medians[title] = {name: max(statistics.median(taken[name, mode]) for mode in MODES) for name in named}
    return medians


def copy(server: str, name: str, to: str) -> None:
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {to}".encode())
        connection.execute(f"CREATE DATABASE {to} TEMPLATE {name}".encode())


def seconds_of(database: Database, work: Work, mode: str) -> float:
    """Do a piece of work and undo it; return the CPU time that the server's process took for it."""
    options = f"-c plan_cache_mode={mode} -c statement_timeout={CUT_OFF}s"
    engine = create_engine(
        database.libpq_url(), connect_args={"prepare_threshold": 0, "options": options}, poolclass=sa.NullPool
    )
    with engine.connect() as connection, Session(connection) as session:
        prepared = work.prepare(session)
        pid = session.scalar(sa.text("SELECT pg_backend_pid()"))
        if work.is_filtered:
            session.execute(sa.text("SET plan_cache_mode = auto"))
            for _ in range(TRIALS):
                work.do(session, prepared)
        if work.is_committing:
            session.commit()
        started = cpu_seconds(pid)
        work.do(session, prepared)
        taken = cpu_seconds(pid) - started
        session.rollback()
    return taken


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process so far, from Linux's count of nanoseconds."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def report(target: str, medians: Mapping[str, Mapping[str, float]]) -> None:
    """Print a table: milliseconds, and how many times those of the even corpus."""
    names = list(next(iter(medians.values())))
    print(f"\n| a target of {target} | {' | '.join(names)} |")
    print(f"|---|{'---|' * len(names)}")
    for title, by_name in medians.items():
        cells = [
            f"{seconds * 1000:.1f} ms" + (f" ({seconds / by_name['even']:.1f})" if name != "even" else "")
            for name, seconds in by_name.items()
        ]
        print(f"| {title} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
