"""Jobs among many workers: processes that are killed, leases that run out, threads that enqueue the same keys."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from threading import Event
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from conftest import clean_environment, connect
from ragschema.database.settings import Database

WORKER = Path(__file__).with_name("job_worker.py")
CLAIM = "SELECT id, attempts, payload, started_at, run_at FROM rag_jobs_claim(%s, %s, %s, %s)"


def start_worker(database: Database, name: str, *, hang_after: int = 0) -> subprocess.Popen[str]:
    arguments = (database.libpq_url(), name, "20", "2 seconds", str(hang_after))
    return subprocess.Popen(
        [sys.executable, str(WORKER), *arguments], env=clean_environment(), stdout=subprocess.PIPE, text=True
    )


def count(connection: psycopg.Connection[Any], statement: str) -> Any:
    row = connection.execute(statement).fetchone()
    assert row is not None
    return row[0] if len(row) == 1 else row


def test_every_job_ends_once_though_jobs_fail_and_workers_are_killed(database: Database) -> None:
    """8 workers, 8,000 jobs, a tenth of them failing, 3 workers killed with half a batch done."""
    with connect(database) as connection:
        connection.execute("CREATE TABLE claims (job_id uuid, attempt integer, worker text)")
        connection.execute("CREATE TABLE ends (job_id uuid, status text)")
        connection.execute(
            "SELECT rag_jobs_enqueue_many(array_agg('embed'::text), array_agg(jsonb_build_object('n', n)))"
            " FROM generate_series(1, 8000) AS n"
        )
        victims = [start_worker(database, f"victim {n}", hang_after=5 + n) for n in range(3)]
        for victim in victims:  # before the others take what is left
            assert victim.stdout is not None
            assert victim.stdout.readline() == "hanging\n"
        workers = [start_worker(database, f"worker {n}") for n in range(5)]
        for victim in victims:
            victim.kill()
            victim.communicate()
        for worker in workers:
            worker.communicate()
            assert worker.returncode == 0
        held = count(connection, "SELECT count(*) FROM claims WHERE worker LIKE 'victim%'")
        assert held == 20 * (5 + 6 + 7 + 3), "each was killed while it held a batch"
        ended: dict[str, int] = dict(
            connection.execute("SELECT status::text, count(*) FROM rag_jobs GROUP BY 1").fetchall()
        )
        assert ended == {"completed": 7_600, "failed": 400}
        assert count(connection, "SELECT count(*), count(DISTINCT job_id) FROM ends") == (8_000, 8_000)
        wrong_ends = (
            "SELECT count(*) FROM ends e JOIN rag_jobs j ON j.id = e.job_id AND j.status::text <> e.status"
        )
        assert count(connection, wrong_ends) == 0
        attempts, claims = count(
            connection, "SELECT (SELECT sum(attempts) FROM rag_jobs), (SELECT count(*) FROM claims)"
        )
        assert attempts == claims == count(connection, "SELECT count(DISTINCT (job_id, attempt)) FROM claims")
        # one for each job, one more for each retry, and one more for each of the 10 that a victim held
        assert attempts >= 8_000 + 400 + 3 * 9
        connection.execute("CREATE INDEX ON claims (job_id)")
        counted = "(SELECT count(*) FROM claims WHERE job_id = id)"
        assert count(connection, f"SELECT count(*) FROM rag_jobs WHERE attempts <> {counted}") == 0


def test_a_worker_that_sleeps_past_its_lease_is_told(database: Database) -> None:
    with connect(database) as sleeper, connect(database) as other:
        sleeper.execute("SELECT rag_jobs_enqueue('embed')")
        (job,) = sleeper.execute(CLAIM, ("sleeper", None, 1, "200 milliseconds")).fetchall()
        assert other.execute(CLAIM, ("other", None, 1, "1 minute")).fetchall() == []
        time.sleep(0.25)
        (taken,) = other.execute(CLAIM, ("other", None, 1, "1 minute")).fetchall()
        assert (taken[0], taken[1]) == (job[0], 2)
        assert count(sleeper, f"SELECT rag_jobs_heartbeat('{job[0]}', 1)") is False
        assert count(sleeper, f"SELECT rag_jobs_complete('{job[0]}', 1)") is False
        assert count(sleeper, f"SELECT rag_jobs_fail('{job[0]}', 1, 'late')") is None
        assert count(other, "SELECT status::text, worker FROM rag_jobs") == ("processing", "other")
        assert count(other, f"SELECT rag_jobs_complete('{job[0]}', 2)") is True


def test_of_many_that_want_expired_jobs_each_job_goes_to_one(database: Database) -> None:
    with connect(database) as connection:
        connection.execute(
            "SELECT rag_jobs_enqueue_many(array_fill('embed'::text, '{200}'), array_fill('{}'::jsonb, '{200}'))"
        )
        assert len(connection.execute(CLAIM, ("dead", None, 200, "1 microsecond")).fetchall()) == 200

    def take(name: int) -> list[Any]:
        taken: list[Any] = []
        with connect(database) as connection:
            while jobs := connection.execute(CLAIM, (f"worker {name}", None, 7, "1 minute")).fetchall():
                taken += jobs
        return taken

    with ThreadPoolExecutor(8) as threads:
        taken = [job for jobs in threads.map(take, range(8)) for job in jobs]
    with connect(database) as connection:
        taken += connection.execute(CLAIM, ("last", None, 200, "1 minute")).fetchall()
    assert len({job[0] for job in taken}) == len(taken) == 200
    assert {job[1] for job in taken} == {2}


def test_no_worker_claims_a_job_before_its_time(database: Database) -> None:
    with connect(database) as connection:
        connection.execute(
            "SELECT rag_jobs_enqueue_many(array_agg('embed'::text), array_agg('{}'::jsonb),"
            " run_ats => array_agg(clock_timestamp() + n * interval '10 ms')) FROM generate_series(1, 150) AS n"
        )

    def work(name: int) -> list[Any]:
        done: list[Any] = []
        with connect(database) as connection:
            while count(connection, "SELECT EXISTS (SELECT FROM rag_jobs WHERE status = 'new')"):
                done += connection.execute(CLAIM, (f"worker {name}", None, 5, "1 minute")).fetchall()
        return done

    with ThreadPoolExecutor(4) as threads:
        done = [job for jobs in threads.map(work, range(4)) for job in jobs]
    assert len(done) == 150
    assert all(started_at >= run_at for *_, started_at, run_at in done)
    assert max(started_at - run_at for *_, started_at, run_at in done) < timedelta(seconds=60)


def test_workers_of_a_small_type_go_on_beside_a_long_queue_of_another(database: Database) -> None:
    with connect(database) as connection:
        connection.execute(
            "INSERT INTO rag_jobs (job_type, payload, run_at)"
            " SELECT 'bulk', '{}', now() - interval '1 hour' FROM generate_series(1, 100000)"
        )
    stopped = Event()

    def work(name: int) -> Counter[str]:
        done: Counter[str] = Counter()
        statement = "SELECT job_type, rag_jobs_complete(id, attempts) FROM rag_jobs_claim(%s, %s)"
        with connect(database) as connection:
            while not stopped.is_set():
                done.update(
                    job_type
                    for job_type, is_done in connection.execute(
                        statement, (f"worker {name}", None)
                    ).fetchall()
                    if is_done
                )
        return done

    with ThreadPoolExecutor(4) as threads, connect(database) as connection:
        running = [threads.submit(work, n) for n in range(4)]
        try:
            for _ in range(100):
                connection.execute("SELECT rag_jobs_enqueue('small')")
            deadline = time.monotonic() + 60
            while count(
                connection, "SELECT EXISTS (SELECT FROM rag_jobs WHERE job_type = 'small' AND status = 'new')"
            ):
                assert time.monotonic() < deadline
        finally:
            stopped.set()
        done = sum((future.result() for future in running), Counter[str]())
    assert done["small"] == 100
    assert 0 < done["bulk"] < 20_000, "types share alike"


def test_of_one_key_one_job_is_unfinished_and_the_last_payload_is_run(database: Database) -> None:
    """16 threads enqueue the same 200 keys 20 times, while workers claim and complete them."""
    keys = [f"document {n}" for n in range(200)]
    is_enqueued = Event()

    def batches(some: list[str]) -> list[list[str]]:
        return [some[start : start + 20] for start in range(0, len(some), 20)]

    def enqueue(thread: int) -> None:
        shuffled = random.Random(thread)
        statement = "SELECT rag_jobs_enqueue_many(array_fill('embed'::text, '{20}'), %s, dedupe_keys => %s)"
        with connect(database) as connection:
            for n in range(20):
                for some in batches(shuffled.sample(keys, len(keys))):
                    payloads = [Jsonb({"key": key, "n": n, "thread": thread}) for key in some]
                    connection.execute(statement, (payloads, some))

    def work(name: int) -> list[tuple[Any, dict[str, Any]]]:
        runs: list[tuple[Any, dict[str, Any]]] = []
        with connect(database) as connection:
            while True:
                was_enqueued = is_enqueued.is_set()
                jobs = connection.execute(CLAIM, (f"worker {name}", None, 20, "1 minute")).fetchall()
                runs += [(started_at, payload) for _, _, payload, started_at, _ in jobs]
                completed = connection.execute(
                    "SELECT rag_jobs_complete_many(%s, %s)",
                    ([job_id for job_id, *_ in jobs], [attempt for _, attempt, *_ in jobs]),
                ).fetchall()
                assert {job_id for (job_id,) in completed} == {job_id for job_id, *_ in jobs}
                if was_enqueued and not jobs:
                    return runs

    def look() -> int:
        looks = 0
        with connect(database) as connection:
            while not is_enqueued.is_set():
                unfinished, different = count(
                    connection,
                    "SELECT count(*), count(DISTINCT dedupe_key) FROM rag_jobs WHERE status IN ('new', 'processing')",
                )
                assert unfinished == different <= len(keys)
                looks += 1
                time.sleep(0.05)
        return looks

    with ThreadPoolExecutor(20) as threads:
        working = [threads.submit(work, n) for n in range(2)]
        looking = threads.submit(look)
        try:
            list(threads.map(enqueue, range(16)))
        finally:
            is_enqueued.set()
        runs = sorted((run for future in working for run in future.result()), key=lambda run: run[0])
        assert looking.result() > 0
    last = {payload["key"]: payload["n"] for _, payload in runs}
    assert last == dict.fromkeys(keys, 19), "of each key some thread's last payload was the last of all"
    with connect(database) as connection:
        assert count(connection, "SELECT count(*) FROM rag_jobs WHERE status <> 'completed'") == 0
        assert count(connection, "SELECT sum(attempts) FROM rag_jobs") == len(runs)


HOLDING_UP = """
CREATE FUNCTION hold_up() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(1);
    RETURN NEW;
END $$;
CREATE TRIGGER hold_up BEFORE UPDATE ON rag_jobs FOR EACH ROW WHEN (NEW.worker = 'held up' AND NEW.attempts = 1)
EXECUTE FUNCTION hold_up()
"""
IS_HELD_UP = """
SELECT EXISTS (
    SELECT FROM pg_locks JOIN pg_database d ON d.oid = database
    WHERE locktype = 'advisory' AND NOT granted AND datname = current_database()
)
"""


@pytest.mark.parametrize("status", ["new", "processing"])
def test_a_claim_that_has_to_wait_lets_go_of_its_jobs(database: Database, status: str) -> None:
    """Who enqueues them meanwhile gets through, where the two would wait for each other."""
    with connect(database) as connection, connect(database) as other:
        connection.execute("SELECT rag_jobs_enqueue('embed', dedupe_key => 'a')")
        if status == "processing":
            assert connection.execute(CLAIM, ("held up", None, 1, "1 microsecond")).fetchall()
        connection.execute(HOLDING_UP.encode())
        connection.execute("SELECT pg_advisory_lock(1)")

        def claim() -> list[Any]:
            return other.execute(CLAIM, ("held up", None, 1, "1 minute")).fetchall()

        with ThreadPoolExecutor(1) as threads:
            claiming = threads.submit(claim)
            try:
                while not count(connection, IS_HELD_UP):
                    assert not claiming.done()
                connection.execute("SELECT rag_jobs_enqueue('embed', '{\"n\": 2}', dedupe_key => 'a')")
            finally:
                connection.execute("SELECT pg_advisory_unlock(1)")
            (job,) = claiming.result() or claim()  # it may have passed over the job while that was enqueued
        assert job[2] == {"n": 2}
        assert count(other, "SELECT current_setting('lock_timeout')") == "0"


def test_a_claim_waits_for_the_table_as_long_as_its_session_does(database: Database) -> None:
    with connect(database) as connection, connect(database) as other:
        connection.execute("SELECT rag_jobs_enqueue('embed')")
        other.execute("SET lock_timeout = '200ms'")
        with connection.transaction():
            connection.execute("LOCK TABLE rag_jobs IN SHARE MODE")
            with pytest.raises(psycopg.errors.LockNotAvailable):
                other.execute(CLAIM, ("late", None, 1, "1 minute"))
        assert len(other.execute(CLAIM, ("late", None, 1, "1 minute")).fetchall()) == 1
