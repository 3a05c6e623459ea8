"""The temporary server, and what it is asked about a system's database: WAL, CPU, rows, bytes."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import psycopg

from ragschema import embedded
from ragschema.database.settings import Database

REPORTED = 1.1  # seconds after which a backend's next transaction reports the rows that it wrote

Connection = psycopg.Connection[psycopg.rows.TupleRow]

# Alike for all: no checkpoint and no autovacuum in the middle of one system's turn, and memory for parallel
# builds of an HNSW index over 120,000 rows. Durability and the planner are as PostgreSQL has them.
SETTINGS = {
    "autovacuum": "off",
    "checkpoint_timeout": "1h",
    "max_wal_size": "16GB",
    "maintenance_work_mem": "1GB",
    "shared_buffers": "1GB",
}


@contextmanager
def server(**settings: str) -> Iterator[Database]:
    """Run a server in a temporary directory, with `SETTINGS` and others."""
    with tempfile.TemporaryDirectory(prefix="ragschema-") as directory:
        data = Path(directory) / "postgres"
        with (
            embedded.running(data) as parameters,
            connect(Database(parameters, "the benchmark")) as connection,
        ):
            for name, value in (SETTINGS | settings).items():
                connection.execute(f"ALTER SYSTEM SET {name} = '{value}'".encode())
        with embedded.running(data) as parameters:
            yield Database(parameters, "the benchmark")


def connect(database: Database) -> Connection:
    """Connect with psycopg, each statement a transaction of its own."""
    return psycopg.connect(database.libpq_url(), autocommit=True)


def fresh(server: Database, name: str) -> Database:
    """Make an empty database with pgvector, and what reads the WAL."""
    with connect(server) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())
        connection.execute(f"CREATE DATABASE {name}".encode())
    database = Database({**server.parameters, "dbname": name}, "the benchmark")
    with connect(database) as connection:
        connection.execute("CREATE EXTENSION vector")
        connection.execute("CREATE EXTENSION pg_walinspect")
    return database


def drop(database: Database) -> None:
    """Drop a database, whoever is connected to it."""
    with connect(Database({**database.parameters, "dbname": "postgres"}, "the benchmark")) as connection:
        connection.execute(f"DROP DATABASE {database.parameters['dbname']} WITH (FORCE)".encode())


def settle(database: Database, command: str = "ANALYZE") -> float:
    """Run ANALYZE or VACUUM as autovacuum would; return the seconds it took."""
    with connect(database) as connection:
        start = time.perf_counter()
        connection.execute(command.encode())
        return time.perf_counter() - start


def server_seconds(database: Database) -> float:
    """Return the seconds of the processor that the server's processes have taken, those that have ended too."""
    with connect(database) as connection:
        row = connection.execute("SELECT current_setting('data_directory')").fetchone()
    assert row is not None
    pid = int((Path(row[0]) / "postmaster.pid").read_text().split()[0])
    postmaster = psutil.Process(pid)
    ended = postmaster.cpu_times()
    alive = [each.cpu_times() for each in postmaster.children()]
    return sum(each.user + each.system for each in alive) + ended.children_user + ended.children_system


def vacuum_if_due(database: Database, table: str) -> float:
    """Vacuum a table where autovacuum would by default, at 20 % dead rows; return the seconds it took."""
    with connect(database) as connection:
        connection.execute("SELECT pg_stat_force_next_flush()")
        row = connection.execute(
            "SELECT n_dead_tup > 50 + 0.2 * n_live_tup FROM pg_stat_user_tables WHERE relname = %s", (table,)
        ).fetchone()
    return settle(database, f"VACUUM ANALYZE {table}") if row == (True,) else 0.0


def table_bytes(database: Database) -> int:
    """Return the size of all tables with their indexes and TOAST."""
    with connect(database) as connection:
        row = connection.execute(
            "SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c"
            " WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace"
        ).fetchone()
    assert row is not None
    return int(row[0])


class Meter:
    """Reads what a database's backends have used. Those that end meanwhile are not counted: keep them open."""

    def __init__(self, database: Database) -> None:
        self._connection = connect(database)

    def close(self) -> None:
        self._connection.close()

    def wal(self) -> str:
        """Return the place in the WAL up to which all is written."""
        row = self._connection.execute("SELECT pg_current_wal_flush_lsn()").fetchone()
        assert row is not None
        return str(row[0])

    def wal_bytes(self, start: str) -> tuple[int, int]:
        """Return the bytes written since then: records, and images of pages touched since the checkpoint."""
        row = self._connection.execute(
            "SELECT sum(record_size), sum(fpi_size) FROM pg_get_wal_stats(%s, pg_current_wal_flush_lsn())",
            (start,),
        ).fetchone()
        assert row is not None
        return int(row[0]), int(row[1])

    def cpu(self) -> float:
        """Return CPU seconds of all client backends of the database but this one's."""
        pids = self._connection.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
            " AND backend_type IN ('client backend', 'parallel worker') AND pid <> pg_backend_pid()"
        ).fetchall()
        return sum(cpu_seconds(pid) for (pid,) in pids)

    def rows(self) -> int:
        """Return the rows written by transactions that have reported: a second after they ended."""
        return int(
            self._value(
                "SELECT tup_inserted + tup_updated + tup_deleted FROM pg_stat_database"
                " WHERE datname = current_database()"
            )
        )

    def _value(self, query: str) -> int:
        row = self._connection.execute(query.encode()).fetchone()
        assert row is not None
        return int(row[0])


def cpu_seconds(pid: int) -> float:
    """Return a process's CPU time: in nanoseconds where Linux says so, else in ticks of 10 ms."""
    schedule = Path(f"/proc/{pid}/schedstat")
    if schedule.exists():
        return int(schedule.read_text().split()[0]) / 1e9
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def describe(server: Database) -> str:
    """Return the server's and the machine's description for the report."""
    with connect(server) as connection:
        version = connection.execute("SHOW server_version").fetchone()
        pgvector = connection.execute(
            "SELECT default_version FROM pg_available_extensions WHERE name = 'vector'"
        ).fetchone()
        names = ", ".join(SETTINGS)
        settings = connection.execute(
            "SELECT string_agg(name || ' = ' || current_setting(name), ', ' ORDER BY place)"
            " FROM unnest(string_to_array(%s, ', ')) WITH ORDINALITY AS s (name, place)",
            (names,),
        ).fetchone()
    assert version is not None
    assert pgvector is not None
    assert settings is not None
    return f"PostgreSQL {version[0]} with {settings[0]}; pgvector {pgvector[0]}; {os.cpu_count()} cores"
