"""Time commands over many tenants, beside a loop of the library's upgrade over some of them.

    uv run python benchmarks/tenants.py [--tenants 1000] [--loop 40]

Starts an embedded server of its own, makes the tenants, copies the checkout and adds a small revision, a nullable
column. One part of the tenants is then migrated by a loop over `ragschema.migrations.upgrade`, the rest by
`rag tenants migrate`, each in a process of its own. Prints the Markdown of a section of RESULTS.md: read it as ratios.
Their rates leave out the start of the process; CPU is of the
whole process, its start included, and of the server's, by /proc. Memory is that of the largest backend, as often as it
was looked at: its own, and with the shared buffers that it has touched.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import psutil
import psycopg

from ragschema import embedded, tenants
from ragschema.database.settings import Database

ROOT = Path(__file__).resolve().parents[1]
NUMBER = "29990101000001"
REVISION = '''"""Add a language

Locks: ACCESS EXCLUSIVE on rag_documents, catalogue only.
Data: none.
Deploy: expand (before the code that writes it).
Downgrade: drops it.
"""

import sqlalchemy as sa
from alembic import op

revision = "{number}"
down_revision = "{head}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("rag_documents", sa.Column("language_tag", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("rag_documents", "language_tag")
'''
LOOP = """
import sys, time
from ragschema import migrations
schemas = sys.argv[1:]
migrations.upgrade(schema=schemas[0])  # loads what is loaded once
began = time.perf_counter()
for schema in schemas[1:]:
    migrations.upgrade(schema=schema)
print((len(schemas) - 1) / (time.perf_counter() - began))
"""


@dataclass(frozen=True)
class Row:
    """A row of the results.

    Attributes:
        what: What was done.
        schemas: To how many schemas.
        rate: Schemas a second, by the wall clock.
        client: CPU of the process and its workers, milliseconds a schema.
        server: CPU of PostgreSQL, milliseconds a schema.
        own: Memory of the largest backend that no other process has, MB.
        resident: Memory of the largest backend with what it shares, MB.
    """

    what: str
    schemas: int
    rate: float
    client: float
    server: float
    own: float
    resident: float

    def __str__(self) -> str:
        return (
            f"| {self.what} | {self.schemas} | {self.rate:.1f} | {self.client:.1f} | {self.server:.1f}"
            f" | {self.own:.0f} | {self.resident:.0f} |"
        )


class Bench:
    """The server, and a checkout with the small revision."""

    def __init__(self, database: Database, directory: Path) -> None:
        self.database = database
        self.checkout = directory / "checkout"
        for name in ("src", "alembic"):
            shutil.copytree(ROOT / name, self.checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "alembic.ini", self.checkout)
        versions = self.checkout / "alembic" / "versions"
        head = max(file.name[:14] for file in versions.glob("*.py"))
        (versions / f"{NUMBER}_add_a_language.py").write_text(REVISION.format(number=NUMBER, head=head))
        catalogues = self.checkout / "alembic" / "fingerprints.json"  # as `rag migrate freeze` writes it
        changes = json.loads(catalogues.read_text()) | {NUMBER: {"column rag_documents.language_tag": "text"}}
        catalogues.write_text(json.dumps(changes))
        with psycopg.connect(database.libpq_url()) as connection:
            (pid,) = connection.execute(
                "SELECT split_part(pg_read_file('postmaster.pid'), chr(10), 1)::int"
            ).fetchone() or (0,)
        self._postmaster = psutil.Process(pid)

    def run(self, *command: str) -> str:
        """Run Python with the checkout's package; return what it prints."""
        environment = os.environ | {
            "PYTHONPATH": str(self.checkout / "src"),
            "DATABASE_URL": self.database.libpq_url(),
            "PYTHONPYCACHEPREFIX": str(
                self.checkout / "pycache"
            ),  # compiled once, as an installed package is
        }
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        done = subprocess.run(
            [sys.executable, *command], cwd=self.checkout, env=environment, capture_output=True, text=True
        )
        if done.returncode:
            raise SystemExit(done.stdout + done.stderr)
        return done.stdout

    def measure(self, what: str, schemas: int, work: Callable[[], str], rate: bool = False) -> Row:
        """Do something to so many schemas; ``rate``: it prints its own."""
        server, client, began = self._server_seconds(), _client_seconds(), time.perf_counter()
        with self._watched() as watched:
            said = work()
            seconds = time.perf_counter() - began
        *memory, watching = watched
        client, server = _client_seconds() - client - watching, self._server_seconds() - server
        a_second = float(said) if rate else schemas / seconds
        return Row(what, schemas, a_second, client / schemas * 1e3, server / schemas * 1e3, *memory)

    @contextmanager
    def _watched(self) -> Iterator[list[float]]:
        """Yield, to be read after the block: the largest backend's memory, its own and all, MB, and CPU s that took."""
        largest, ended = [0.0, 0.0, 0.0], threading.Event()

        def look() -> None:
            while not ended.wait(1):
                for child in self._postmaster.children():
                    with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                        if "[local]" not in " ".join(child.cmdline()):  # no backend of a client
                            continue
                        found = child.memory_full_info()
                        largest[:2] = max(largest[0], found.uss / 1e6), max(largest[1], found.rss / 1e6)
            largest[2] = time.thread_time()

        watch = threading.Thread(target=look)
        watch.start()
        try:
            yield largest
        finally:
            ended.set()
            watch.join()

    def _server_seconds(self) -> float:
        """CPU seconds of the server's processes, those that have ended too."""
        times = self._postmaster.cpu_times()
        seconds = times.user + times.system + times.children_user + times.children_system
        for child in self._postmaster.children():
            try:
                own = child.cpu_times()
            except psutil.NoSuchProcess:
                continue
            seconds += own.user + own.system
        return seconds


def _client_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def measure(bench: Bench, count: int, looped: int) -> list[Row]:
    """Measure everything once, on fresh tenants."""
    names = [f"tenant_{number:04}" for number in range(count)]

    def create() -> str:
        took = [tenants.create_tenant(name, bench.database).seconds for name in names]
        print(f"create: median of the transactions {median(took):.3f} s, longest {max(took):.3f} s\n")
        return ""

    made = bench.measure("`create_tenant`", count, create)
    command = ("-m", "ragschema", "tenants")
    rest = count - looped

    def migrate() -> str:
        return bench.run(*command, "migrate", "--json")

    loop = bench.measure("library loop", looped, lambda: bench.run("-c", LOOP, *names[:looped]), rate=True)

    def paced() -> str:
        return str(rest / json.loads(migrate())["seconds"])

    fleet = bench.measure("`rag tenants migrate`, everything on", rest, paced, rate=True)
    rows = [
        made,
        loop,
        fleet,
        bench.measure("`rag tenants migrate`, nothing to do, the whole process", count, migrate),
        bench.measure(
            "`rag tenants migrate --visit`, nothing to do",
            count,
            lambda: bench.run(*command, "migrate", "--visit", "--json"),
        ),
    ]
    shutil.rmtree(bench.checkout / "alembic")
    shutil.copytree(ROOT / "alembic", bench.checkout / "alembic")
    with psycopg.connect(bench.database.libpq_url(), autocommit=True) as connection:
        head = max(file.name[:14] for file in (ROOT / "alembic" / "versions").glob("*.py"))
        for name in names:  # back at our own head, whose catalogue is known
            connection.execute(f"ALTER TABLE {name}.rag_documents DROP COLUMN language_tag".encode())
            connection.execute(f"UPDATE {name}.rag_alembic_version SET version_num = '{head}'".encode())
    verified = bench.measure("`rag tenants verify`", count, lambda: bench.run(*command, "verify", "--json"))
    return [*rows, verified]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tenants", type=int, default=1000)
    parser.add_argument("--loop", type=int, default=40)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        directory = Path(name)
        directory.chmod(0o711)
        with embedded.running(directory / "postgres") as parameters:
            database = Database(parameters, "the benchmark")
            rows = measure(Bench(database, directory), arguments.tenants, arguments.loop)
    load = json.dumps([round(each, 1) for each in os.getloadavg()])
    print(f"{arguments.tenants} tenants, {os.cpu_count()} cores, load {load}\n")
    print(
        "| what | schemas | a second | client ms | server ms | own MB | resident MB |\n|---|---|---|---|---|---|---|"
    )
    print("\n".join(map(str, rows)))
    print(f"\n`rag tenants migrate` against the loop: {rows[2].rate / rows[1].rate:.1f} times as fast.")


if __name__ == "__main__":
    main()
