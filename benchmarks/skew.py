"""Statements on skewed corpora against even ones of the same size: plans for the values, and generic ones.

    uv run python benchmarks/skew.py [--chunks 20000] [--crowd 60000] [--versions 1000] [--rounds 3]

Starts an embedded server of its own in a temporary directory and prints the Markdown of its section of RESULTS.md. The
corpora and the pieces of work are those of tests/test_skewed_plans.py, which counts rows where this takes times. A
piece of work is undone after each round; only the time of its statements counts.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import psycopg
import sqlalchemy as sa
from sqlalchemy.orm import Session

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from ragschema import create_engine, embedded, migrations
from ragschema.database.settings import Database
from skewed_data import WORKS, Corpus, Work, corpora, fill

MODES = ("force_custom_plan", "force_generic_plan")
CUT_OFF = 60  # seconds of one statement


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
                report(target, measure(parameters, named, given.rounds))


def measure(
    parameters: Mapping[str, str], named: Mapping[str, Corpus], rounds: int
) -> dict[str, dict[str, float]]:
    """Return the median seconds of each piece of work, by corpus; the slower of the two kinds of plan."""
    engines = {}
    for number, (name, corpus) in enumerate(named.items()):
        database = Database({**parameters, "dbname": f"corpus_{number}"}, "the benchmark")
        with psycopg.connect(
            Database({**parameters, "dbname": "postgres"}, "the benchmark").libpq_url(), autocommit=True
        ) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS corpus_{number}".encode())
            connection.execute(f"CREATE DATABASE corpus_{number}".encode())
        migrations.upgrade(database)
        with psycopg.connect(database.libpq_url(), autocommit=True) as connection:
            fill(connection, corpus)
        for mode in MODES:
            options = f"-c plan_cache_mode={mode} -c statement_timeout={CUT_OFF}s"
            engines[name, mode] = create_engine(
                database.libpq_url(), connect_args={"prepare_threshold": 0, "options": options}
            )
    medians: dict[str, dict[str, float]] = {}
    for title, work in WORKS.items():
        taken: dict[tuple[str, str], list[float]] = {key: [] for key in engines}
        for _ in range(rounds):
            for key, engine in engines.items():
                taken[key].append(seconds_of(engine, work))
        medians[title] = {name: max(statistics.median(taken[name, mode]) for mode in MODES) for name in named}
    for engine in engines.values():
        engine.dispose()
    return medians


def seconds_of(engine: sa.Engine, work: Work) -> float:
    """Do a piece of work and undo it; return how long its statements took."""
    spent = 0.0
    started = 0.0

    def begin(*_: object) -> None:
        nonlocal started
        started = time.perf_counter()

    def end(*_: object) -> None:
        nonlocal spent
        spent += time.perf_counter() - started

    with Session(engine) as session:
        prepared = work.prepare(session)
        if work.is_committing:
            session.commit()
        sa.event.listen(engine, "before_cursor_execute", begin)
        sa.event.listen(engine, "after_cursor_execute", end)
        try:
            work.do(session, prepared)
        finally:
            sa.event.remove(engine, "before_cursor_execute", begin)
            sa.event.remove(engine, "after_cursor_execute", end)
            session.rollback()
    return spent


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
