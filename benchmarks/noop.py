"""Measure a client's own work of `migrations.upgrade` at head, beside a bare connection and Alembic's own upgrade.

    uv run python benchmarks/noop.py [--calls 200] [--profile]

Starts an embedded server of its own in a temporary directory. What is counted is the processor's time of this
process, in ms a call, not the server's: the ways take turns, so that a busy machine slows all of them. Alembic's
own is the environment that its template makes, with our revisions and our version table.
"""

from __future__ import annotations

import argparse
import cProfile
import logging
import pstats
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
from alembic import command
from alembic.config import Config

from ragschema import embedded, migrations
from ragschema.database.server import VERSION_TABLE
from ragschema.database.settings import Database
from ragschema.revisions.files import versions_directory

_ENVIRONMENT = f"""
from alembic import context
from sqlalchemy import create_engine, pool

engine = create_engine(context.config.get_main_option("sqlalchemy.url"), poolclass=pool.NullPool)
with engine.connect() as connection:
    context.configure(connection=connection, version_table="{VERSION_TABLE}")
    with context.begin_transaction():
        context.run_migrations()
"""


def alembic_upgrade(database: Database, directory: Path) -> Callable[[], object]:
    """Return a call of Alembic's own upgrade to head, with the environment that its template makes."""
    (directory / "env.py").write_text(_ENVIRONMENT)
    config = Config()
    config.set_main_option("script_location", str(directory))
    config.set_main_option("version_locations", str(versions_directory()))
    config.set_main_option("path_separator", "newline")
    url = database.url().render_as_string(hide_password=False)
    config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    return lambda: command.upgrade(config, "head")


def measure(ways: dict[str, Callable[[], object]], calls: int) -> dict[str, float]:
    """Return the median of each way's calls, in ms of this process's time on the processor."""
    times: dict[str, list[float]] = {way: [] for way in ways}
    for call in ways.values():
        call()
    for _ in range(calls):
        for way, call in ways.items():
            started = time.process_time()
            call()
            times[way].append((time.process_time() - started) * 1000)
    return {way: statistics.median(each) for way, each in times.items()}


def profile(call: Callable[[], object], calls: int) -> None:
    """Print where the time of a call goes."""
    profiler = cProfile.Profile()
    profiler.enable()
    for _ in range(calls):
        call()
    profiler.disable()
    pstats.Stats(profiler).sort_stats("tottime").print_stats(40)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    logging.getLogger("alembic").setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory() as name, embedded.running(Path(name) / "postgres") as parameters:
        database = Database(parameters, "the benchmark")
        migrations.upgrade(database)
        scripts = Path(name) / "scripts"
        scripts.mkdir()
        url = database.libpq_url()
        ways: dict[str, Callable[[], object]] = {
            "a bare psycopg.connect": lambda: psycopg.connect(url).close(),
            "`migrations.upgrade` at head": lambda: migrations.upgrade(url),
            "`alembic.command.upgrade` at head": alembic_upgrade(database, scripts),
        }
        if arguments.profile:
            profile(ways["`migrations.upgrade` at head"], arguments.calls)
        times = measure(ways, arguments.calls)
    print("| call | ms of the client's processor |\n|---|---|")
    for way, time_ in times.items():
        print(f"| {way} | {time_:.2f} |")


if __name__ == "__main__":
    main()
