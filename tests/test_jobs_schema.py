"""Jobs in SQL: each function, also where all triggers are off; services that write status only; what is refused."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from conftest import DatabaseAt, connect
from ragschema import migrations
from ragschema.database.settings import Database
from ragschema.errors import RevisionRefused

Row = dict[str, Any]
STATES = ("new", "processing", "completed", "failed")
CLAIM_BY_HAND = """
WITH next AS (
  SELECT id FROM rag_jobs WHERE status = 'new' ORDER BY created_at LIMIT 1 FOR UPDATE SKIP LOCKED
)
UPDATE rag_jobs SET status = 'processing', updated_at = now() FROM next
WHERE rag_jobs.id = next.id RETURNING rag_jobs.id
"""


class Queue:
    """The functions of the queue over one connection, each statement a transaction of its own."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.connection = connection

    def rows(self, statement: str, **parameters: object) -> list[Row]:
        with self.connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(statement, parameters).fetchall()

    def run(self, statement: str, **parameters: object) -> None:
        self.connection.execute(statement, parameters)

    def value(self, statement: str, **parameters: object) -> Any:
        (row,) = self.rows(statement, **parameters)
        (value,) = row.values()
        return value

    def job(self, job_id: object) -> Row:
        (row,) = self.rows("SELECT * FROM rag_jobs WHERE id = %(id)s", id=job_id)
        return row

    def enqueue(self, job_type: str = "embed", payload: object = None, **arguments: object) -> UUID:
        named = "".join(f", {name} => %({name})s" for name in arguments)
        found = self.value(
            f"SELECT rag_jobs_enqueue(%(job_type)s, %(payload)s{named})",
            job_type=job_type,
            payload=Jsonb(payload or {}),
            **arguments,
        )
        assert isinstance(found, UUID)
        return found

    def claim(
        self, types: list[str] | None = None, max_jobs: int = 1, lease: str = "5 minutes", worker: str = "w"
    ) -> list[Row]:
        return self.rows(
            "SELECT * FROM rag_jobs_claim(%(worker)s, %(types)s, %(max_jobs)s, %(lease)s)",
            worker=worker,
            types=types,
            max_jobs=max_jobs,
            lease=lease,
        )

    def call(self, function: str, job: Row, arguments: str = "", **parameters: object) -> Any:
        """Call a function with a claimed job's id and attempt."""
        return self.value(
            f"SELECT rag_jobs_{function}(%(id)s, %(attempt)s{arguments})",
            id=job["id"],
            attempt=job["attempts"],
            **parameters,
        )

    def expire(self, job: Row) -> None:
        """Let a lease run out."""
        assert self.call("heartbeat", job, ", '1 microsecond'")


@pytest.fixture(params=["with triggers", "without triggers"])
def queue(database: Database, request: pytest.FixtureRequest) -> Iterator[Queue]:
    with connect(database) as connection:
        if request.param == "without triggers":
            connection.execute("ALTER TABLE rag_jobs DISABLE TRIGGER USER")
        yield Queue(connection)


@pytest.fixture
def by_hand(database: Database) -> Iterator[Queue]:
    """With triggers, for services that write status only."""
    with connect(database) as connection:
        yield Queue(connection)


# enqueue


def test_a_job_has_the_defaults_of_the_columns(queue: Queue) -> None:
    job = queue.job(queue.enqueue("embed", {"a": 1}))
    assert (job["job_type"], job["payload"], job["status"]) == ("embed", {"a": 1}, "new")
    assert (job["priority"], job["attempts"], job["max_attempts"]) == (0, 0, 10)
    assert job["run_at"] == job["created_at"] == job["updated_at"]
    by_default = queue.job(
        queue.value("INSERT INTO rag_jobs (job_type, payload) VALUES ('embed', '{\"a\": 1}') RETURNING id")
    )
    timed = {"id", "run_at", "created_at", "updated_at"}
    assert {key: job[key] for key in job.keys() - timed} == {
        key: by_default[key] for key in job.keys() - timed
    }


def test_what_is_rolled_back_was_never_enqueued(queue: Queue) -> None:
    with queue.connection.transaction(force_rollback=True):
        queue.enqueue()
        assert queue.claim()
    assert queue.value("SELECT count(*) FROM rag_jobs") == 0


def test_many_are_enqueued_at_once_in_order(queue: Queue) -> None:
    later = datetime(2100, 1, 1, tzinfo=UTC)
    found = queue.rows(
        "SELECT rag_jobs_enqueue_many(%(types)s, %(payloads)s, priorities => %(priorities)s,"
        " run_ats => %(run_ats)s, dedupe_keys => %(keys)s) AS id",
        types=["a", "b", "a", "a"],
        payloads=[Jsonb({"n": n}) for n in range(4)],
        priorities=[7, None],
        run_ats=[None, later],
        keys=[None, None, "key", "key"],
    )
    first, second, third, fourth = (queue.job(row["id"]) for row in found)
    assert (first["payload"], first["priority"]) == ({"n": 0}, 7)
    assert (second["job_type"], second["priority"], second["run_at"]) == ("b", 0, later)
    assert third == fourth
    assert third["payload"] == {"n": 3}, "the last of one key counts"
    assert queue.value("SELECT count(*) FROM rag_jobs") == 3


def test_the_same_key_while_waiting_updates_payload_and_priority_and_keeps_the_place(queue: Queue) -> None:
    first = queue.enqueue(payload={"v": 1}, dedupe_key="k", priority=5)
    place = queue.job(first)["run_at"]
    assert queue.enqueue(payload={"v": 2}, dedupe_key="k", priority=1) == first
    job = queue.job(first)
    assert (job["payload"], job["priority"], job["run_at"]) == ({"v": 2}, 1, place)
    later = place + timedelta(hours=1)
    assert queue.enqueue(payload={"v": 3}, dedupe_key="k", run_at=later) == first
    assert queue.job(first)["run_at"] == later
    assert queue.enqueue("other", dedupe_key="k") != first


def test_a_new_payload_for_a_job_in_backoff_is_due_with_all_attempts_and_no_progress(queue: Queue) -> None:
    first = queue.enqueue(dedupe_key="k", max_attempts=2)
    (job,) = queue.claim()
    assert queue.call("heartbeat", job, ", progress => '{\"page\": 7}'")
    assert queue.call("fail", job, ", 'boom', '1 hour'") == "new"
    assert queue.enqueue(payload={"v": 2}, dedupe_key="k", max_attempts=2) == first
    (job,) = queue.claim()
    assert (job["attempts"], job["attempts_before"]) == (2, 1)
    assert (job["payload"], job["progress"], job["error_message"]) == ({"v": 2}, None, None)
    assert queue.call("fail", job, ", 'boom', '0'") == "new", "the second attempt, the first of this payload"


@pytest.mark.parametrize("end", ["complete", "complete_many", "fail", "fail permanently", "expire"])
def test_enqueued_again_while_running_the_newest_payload_runs_afterwards(queue: Queue, end: str) -> None:
    first = queue.enqueue(payload={"v": 1}, dedupe_key="k", max_attempts=1)
    (job,) = queue.claim()
    queue.call("heartbeat", job, ", progress => '{\"page\": 7}'")
    for version in (2, 3):
        assert queue.enqueue(payload={"v": version}, dedupe_key="k", max_attempts=1) == first
    assert queue.claim() == []
    if end == "complete":
        assert queue.call("complete", job) is True
    elif end == "complete_many":
        many = "SELECT rag_jobs_complete_many(ARRAY[%(id)s]::uuid[], ARRAY[%(attempt)s]::integer[]) AS id"
        assert queue.rows(many, id=first, attempt=1) == [{"id": first}]
    elif end == "expire":
        queue.expire(job)
    else:
        permanent = ", permanent => true" if end == "fail permanently" else ""
        assert queue.call("fail", job, ", 'boom'" + permanent) == "new"
    (again,) = queue.claim()
    assert (again["id"], again["payload"], again["progress"]) == (first, {"v": 3}, None)
    assert again["attempts"] == 2, "the token of the claim before stays stale"
    assert queue.call("complete", job) is False
    assert queue.call("complete", again) is True
    assert queue.job(first)["status"] == "completed"
    assert queue.enqueue(dedupe_key="k") != first, "the key of a finished job is free"


def test_enqueued_again_for_later_it_is_not_run_before(queue: Queue) -> None:
    first = queue.enqueue(dedupe_key="k")
    (job,) = queue.claim()
    later = queue.value("SELECT now() + interval '1 hour'")
    queue.enqueue(dedupe_key="k", run_at=later)
    queue.expire(job)
    assert queue.claim() == []
    assert (queue.job(first)["status"], queue.job(first)["run_at"]) == ("new", later)


# claim


def test_claims_go_by_priority_then_time_and_never_early(queue: Queue) -> None:
    now = queue.value("SELECT clock_timestamp()")
    for payload, priority, minutes in (
        ("later", -5, 60),
        ("ten", 10, -60),
        ("second", 0, -1),
        ("first", 0, -2),
        ("urgent", -1, -1),
    ):
        queue.enqueue(payload={"n": payload}, priority=priority, run_at=now + timedelta(minutes=minutes))
    claimed = [job["payload"]["n"] for job in queue.claim(["embed"], 2)]
    claimed += [job["payload"]["n"] for job in queue.claim(["embed", "other"], 1)]
    claimed += [job["payload"]["n"] for job in queue.claim(None, 5)]
    assert claimed == ["urgent", "first", "second", "ten"]


@pytest.mark.parametrize("types", [["a"], ["a", "b"], None], ids=["one type", "two types", "any type"])
def test_claims_pass_over_what_is_for_later_and_miss_nothing(
    database: Database, types: list[str] | None
) -> None:
    """Priorities without due jobs, with some, with one among hundreds; below and above those that have."""
    fill = (
        "INSERT INTO rag_jobs (job_type, payload, priority, run_at)"
        " SELECT CASE WHEN random() < 0.7 THEN 'a' ELSE 'b' END, '{}', p, now() + h * interval '1 hour' FROM ("
        " SELECT -n AS p, 1 AS h FROM generate_series(1, 700) n"
        " UNION ALL SELECT n %% 25, CASE WHEN n %% 9 = 0 THEN -n ELSE 1 END FROM generate_series(1, 300) n"
        " UNION ALL SELECT 30, CASE WHEN n = 500 THEN -1 ELSE n END FROM generate_series(1, 1000) n"
        " UNION ALL SELECT 40 + n %% 7 * 100, CASE WHEN n = 5 THEN -1 ELSE 1 END FROM generate_series(1, 400) n"
        " UNION ALL VALUES (2147483647, -1), (-2147483648, 1)) AS _ (p, h) ORDER BY random()"
    )
    due = (
        "SELECT priority FROM rag_jobs WHERE status = 'new' AND run_at <= now() {} ORDER BY priority, run_at"
    )
    with connect(database) as connection:
        connection.execute("SELECT setseed(0.5)")  # or there are now and then too few of one type
        queue = Queue(connection)
        queue.run(fill)
        of_type = "" if types != ["a"] else "AND job_type = 'a'"
        expected = [row["priority"] for row in queue.rows(due.format(of_type))]
        found: list[int] = []
        while claimed := queue.claim(types, 4):
            found += sorted(job["priority"] for job in claimed)
        assert found == expected
        assert len(found) > 20


@pytest.mark.parametrize("types", [["embed"], ["embed", "other"], None], ids=["one type", "two", "any"])
@pytest.mark.parametrize(("each", "looks"), [(1, 40), (40, 1500)])
def test_a_claim_reads_little_of_what_is_for_later(
    database: Database, types: list[str] | None, each: int, looks: int
) -> None:
    """300 priorities of one job each by few looks at the index; of 40 each, by a look or so for each priority."""
    read = "SELECT idx_scan, idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'rag_jobs'"
    with connect(database) as connection:
        queue = Queue(connection)
        queue.run(
            "INSERT INTO rag_jobs (job_type, payload, priority, run_at)"
            " SELECT 'embed', '{}', n, now() + interval '1 day'"
            " FROM generate_series(1, 300) n, generate_series(1, %(each)s)",
            each=each,
        )
        queue.enqueue(priority=1000)
        queue.run("VACUUM ANALYZE rag_jobs")
        with connection.transaction():
            (job,) = queue.claim(types)
            (after,) = queue.rows(read)
        assert job["priority"] == 1000
        assert after["idx_scan"] < looks
        assert after["idx_tup_fetch"] < 400 * min(each, 8)


def test_a_claim_says_who_holds_the_job_and_until_when(queue: Queue) -> None:
    queue.enqueue()
    (job,) = queue.claim(worker="host-1", lease="2 minutes")
    assert (job["status"], job["attempts"], job["worker"]) == ("processing", 1, "host-1")
    assert job["lease_expires_at"] - job["started_at"] == timedelta(minutes=2)
    assert queue.job(job["id"]) == job


def test_a_claim_in_a_long_transaction_reads_the_clock_anew(queue: Queue) -> None:
    with queue.connection.transaction():
        started = queue.value("SELECT now()")
        queue.enqueue()
        queue.run("SELECT pg_sleep(0.05)")
        queue.enqueue()
        assert len(queue.claim(max_jobs=5)) == 2
        assert queue.value("SELECT min(lease_expires_at) FROM rag_jobs") > started + timedelta(
            minutes=5, milliseconds=40
        )


@pytest.mark.parametrize(
    "arguments",
    ["NULL, NULL, 1", "'w', NULL, 0", "'w', NULL, NULL", "'w', NULL, 1, '0'", "'w', NULL, 1, NULL"],
)
def test_a_claim_without_sense_is_refused(queue: Queue, arguments: str) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="a claim needs"):
        queue.run(f"SELECT rag_jobs_claim({arguments})")


def test_a_long_queue_of_one_type_neither_starves_nor_slows_another(queue: Queue) -> None:
    fill = (
        "INSERT INTO rag_jobs (job_type, payload, status, run_at, attempts, finished_at)"
        " SELECT %(type)s, '{}', %(status)s, now() + %(due)s * interval '1 s', 1, %(finished)s"
        " FROM generate_series(1, %(count)s)"
    )
    queue.run("SET rag_jobs.notify = off")
    queue.run(fill, type="bulk", status="new", due=-3600, finished=None, count=100_000)
    queue.run(fill, type="small", status="new", due=3600, finished=None, count=20_000)
    queue.run(fill, type="small", status="completed", due=-10, finished=datetime.now(UTC), count=20_000)
    for _ in range(20):
        queue.enqueue("small", priority=10)
    with queue.connection.transaction():  # which counts what it reads
        assert len(queue.claim(["small"], 3)) == 3
        assert queue.value("SELECT pg_stat_get_xact_tuples_fetched('rag_jobs'::regclass)") < 100
        assert queue.value("SELECT pg_stat_get_xact_numscans('rag_jobs'::regclass)") == 0
    queue.run("UPDATE rag_jobs SET priority = 0, updated_at = clock_timestamp() WHERE priority = 10")
    for types in (["bulk", "small"], None):
        counts = [job["job_type"] for job in queue.claim(types, 10)]
        assert counts.count("small") == 5, "types share alike, though the others are older"
    one_at_a_time = [queue.claim(None)[0]["job_type"] for _ in range(30)]
    assert one_at_a_time.count("small") >= 1
    assert len(queue.claim(["bulk", "small", "none"], 50)) == 50


def test_jobs_that_others_have_locked_are_passed_over(queue: Queue, database: Database) -> None:
    for _ in range(30):
        queue.enqueue("a")
    queue.enqueue("b")
    with connect(database) as other, other.transaction():
        held = Queue(other).claim(["a"], 20)
        assert len(held) == 20
        got = queue.claim(["a", "b"], 40)
        assert len(got) == 11
        assert not {job["id"] for job in got} & {job["id"] for job in held}


def test_an_expired_lease_is_taken_over_and_its_holder_is_told(queue: Queue) -> None:
    queue.enqueue()
    (first,) = queue.claim(worker="sleeper")
    assert queue.call("heartbeat", first, ", '1 microsecond', '{\"page\": 3}'") is True
    (second,) = queue.claim(worker="other")
    assert (second["id"], second["attempts"], second["worker"]) == (first["id"], 2, "other")
    assert second["progress"] == {"page": 3}, "to go on from"
    assert queue.call("heartbeat", first) is False
    assert queue.call("complete", first) is False
    assert queue.call("fail", first, ", 'late'") is None
    many = queue.rows(
        "SELECT rag_jobs_complete_many(%(ids)s, %(attempts)s) AS id",
        ids=[first["id"], first["id"]],
        attempts=[1, 2],
    )
    assert many == [{"id": first["id"]}]


def test_an_expired_lease_nobody_has_taken_over_is_still_the_holders(queue: Queue) -> None:
    queue.enqueue()
    (job,) = queue.claim()
    queue.expire(job)
    assert queue.call("complete", job) is True


def test_a_job_whose_last_lease_ran_out_is_failed(queue: Queue) -> None:
    job_id = queue.enqueue(max_attempts=2)
    for _ in range(2):
        (job,) = queue.claim(worker="crasher")
        queue.expire(job)
    assert queue.claim() == []
    job = queue.job(job_id)
    assert (job["status"], job["attempts"]) == ("failed", 2)
    assert job["error_message"] == "the lease of attempt 2, worker crasher, ran out"


def test_a_busy_queue_takes_expired_leases_over_within_a_second(queue: Queue) -> None:
    queue.enqueue(payload={"n": "lost"})
    (lost,) = queue.claim()
    queue.expire(lost)
    for _ in range(5):
        queue.enqueue()
    queue.run(
        "SELECT set_config('rag_jobs.leases_seen_at', extract(epoch FROM clock_timestamp())::text, false)"
    )
    assert queue.claim()[0]["id"] != lost["id"]
    queue.run(
        "SELECT set_config('rag_jobs.leases_seen_at', extract(epoch FROM clock_timestamp() - interval '1.1 s')::text,"
        " false)"
    )
    assert queue.claim()[0]["id"] == lost["id"]


def test_expired_leases_can_be_released_without_a_claim(queue: Queue) -> None:
    for job_type in ("a", "b"):
        queue.enqueue(job_type)
        queue.expire(queue.claim([job_type])[0])
    assert queue.value("SELECT rag_jobs_release_expired('{a}')") == 1
    assert queue.value("SELECT rag_jobs_release_expired()") == 1
    assert queue.value("SELECT count(*) FROM rag_jobs WHERE status = 'new'") == 2


def test_every_heartbeat_is_hot(queue: Queue) -> None:
    """It touches no indexed column, and the page has room for it, which the rows before it leave when pruned.

    What another session may still see is not pruned: a heartbeat meanwhile may need a new page. Held up are the
    rows since the oldest snapshot in this database and, in a page's quick look, the oldest transaction of all.
    """
    for _ in range(100):
        queue.enqueue()
    (job,) = queue.claim(max_jobs=100)[:1]
    free, last, page = 0, queue.value("SELECT txid_current()"), 0
    deadline = time.monotonic() + 60
    while free < 300:
        assert time.monotonic() < deadline, "other sessions kept what every heartbeat left"
        page += 1
        with queue.connection.transaction():
            this = queue.value("SELECT txid_current()")
            (before,) = queue.rows(COUNTED)
            is_free = this - before["oldest_age"] > last
            progress = Jsonb({"page": page, "text": "x" * 20})
            assert queue.call("heartbeat", job, ", progress => %(progress)s", progress=progress)
            (after,) = queue.rows(COUNTED)
        free, last = free + is_free, this
        updates, hot, moved = (after[name] - before[name] for name in ("updates", "hot", "moved"))
        assert (updates, hot + moved) == (1, 1)
        assert hot or not is_free


COUNTED = """
SELECT pg_stat_get_xact_tuples_updated(oid) AS updates, pg_stat_get_xact_tuples_hot_updated(oid) AS hot,
    pg_stat_get_xact_tuples_newpage_updated(oid) AS moved,
    greatest(txid_current() - txid_snapshot_xmin(txid_current_snapshot()), (
        SELECT max(age(backend_xmin)) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid())) AS oldest_age
FROM pg_class WHERE oid = 'rag_jobs'::regclass
"""


# the end of an attempt


@pytest.mark.parametrize("end", ["heartbeat", "complete", "fail"])
def test_an_end_does_not_walk_over_what_others_run(queue: Queue, end: str) -> None:
    queue.run("ANALYZE rag_jobs")  # while nothing runs, as it often is
    job = queue.rows(
        "INSERT INTO rag_jobs (job_type, payload, status, attempts, worker, lease_expires_at)"
        " SELECT 'embed', '{}', 'processing', 1, 'w', now() + interval '1 hour' FROM generate_series(1, 3000)"
        " RETURNING id, attempts"
    )[1500]
    with queue.connection.transaction():  # which counts what it reads
        assert queue.call(end, job, ", 'boom'" if end == "fail" else "")
        assert queue.value("SELECT pg_stat_get_xact_tuples_fetched('rag_jobs'::regclass)") < 10
        assert queue.value("SELECT pg_stat_get_xact_numscans('rag_jobs'::regclass)") == 0


def test_backoff_doubles_with_jitter_up_to_an_hour(queue: Queue) -> None:
    job_id = queue.enqueue(max_attempts=14)
    waits = []
    for _ in range(13):
        (job,) = queue.claim()
        assert queue.call("fail", job, ", 'boom'") == "new"
        job = queue.job(job_id)
        waits.append((job["run_at"] - job["updated_at"]).total_seconds())
        queue.value("SELECT rag_jobs_retry(%(id)s)", id=job_id)
    for n, wait in enumerate(waits):
        longest = min(10 * 2**n, 3600)
        assert longest / 2 <= wait <= longest
    assert len(set(waits)) == len(waits)
    (job,) = queue.claim()
    assert queue.call("fail", job, ", 'boom'") == "failed"
    job = queue.job(job_id)
    assert (job["error_message"], job["attempts"]) == ("boom", 14)
    assert job["finished_at"] is not None


def test_a_failure_may_say_when_to_retry_or_that_it_is_permanent(queue: Queue) -> None:
    queue.enqueue()
    (job,) = queue.claim()
    assert queue.call("fail", job, ", 'busy', '30 s'") == "new"
    waiting = queue.job(job["id"])
    assert waiting["run_at"] - waiting["updated_at"] == timedelta(seconds=30)
    assert queue.claim() == []
    assert queue.value("SELECT rag_jobs_retry(%(id)s)", id=job["id"]) is True
    (job,) = queue.claim()
    assert queue.call("fail", job, ", NULL, permanent => true") == "failed"
    assert queue.claim() == []


def test_complete_many_completes_each_once(queue: Queue) -> None:
    for _ in range(3):
        queue.enqueue()
    jobs = queue.claim(max_jobs=3)
    queue.value("SELECT rag_jobs_cancel(%(id)s)", id=jobs[1]["id"])
    arguments = {"ids": [job["id"] for job in jobs], "attempts": [1, 1, 1]}
    statement = "SELECT rag_jobs_complete_many(%(ids)s, %(attempts)s) AS id"
    assert {row["id"] for row in queue.rows(statement, **arguments)} == {jobs[0]["id"], jobs[2]["id"]}
    assert queue.rows(statement, **arguments) == []
    assert queue.call("complete", jobs[0]) is False


def test_a_failed_job_is_retried_with_all_its_attempts(queue: Queue) -> None:
    job_id = queue.enqueue(max_attempts=1)
    (job,) = queue.claim()
    queue.call("heartbeat", job, ", progress => '{\"page\": 2}'")
    assert queue.call("fail", job, ", 'boom'") == "failed"
    assert queue.value("SELECT rag_jobs_retry(%(id)s)", id=job_id) is True
    assert queue.value("SELECT rag_jobs_retry(%(id)s)", id=job_id) is False, "it is due already"
    (again,) = queue.claim()
    assert (again["attempts"], again["attempts_before"], again["progress"]) == (2, 1, {"page": 2})
    assert queue.value("SELECT rag_jobs_retry(%(id)s)", id=job_id) is False
    queue.call("complete", again)
    assert queue.value("SELECT rag_jobs_retry(%(id)s)", id=job_id) is False


def test_a_failed_job_gives_way_to_a_newer_one_of_its_key(queue: Queue) -> None:
    old = queue.enqueue(dedupe_key="k")
    queue.value("SELECT rag_jobs_cancel(%(id)s)", id=old)
    new = queue.enqueue(dedupe_key="k")
    assert queue.value("SELECT rag_jobs_retry(%(id)s)", id=old) is False
    assert [job["id"] for job in queue.claim(max_jobs=2)] == [new]


def test_a_cancelled_job_is_failed_and_its_worker_is_told(queue: Queue) -> None:
    waiting = queue.enqueue("a")
    assert queue.value("SELECT rag_jobs_cancel(%(id)s)", id=waiting) is True
    running = queue.enqueue("b", dedupe_key="k")
    (job,) = queue.claim()
    queue.enqueue("b", dedupe_key="k")
    assert queue.value("SELECT rag_jobs_cancel(%(id)s, 'not needed')", id=running) is True
    assert queue.call("heartbeat", job) is False
    assert queue.call("complete", job) is False
    assert queue.call("fail", job, ", 'boom'") is None
    assert queue.claim() == [], "what was enqueued again is cancelled too"
    assert queue.job(waiting)["error_message"] == "cancelled"
    assert queue.job(running)["error_message"] == "cancelled: not needed"
    assert {queue.job(job_id)["status"] for job_id in (waiting, running)} == {"failed"}
    assert queue.value("SELECT rag_jobs_cancel(%(id)s)", id=running) is False


def test_finished_jobs_are_pruned_in_batches_the_oldest_first(queue: Queue) -> None:
    queue.run(
        "INSERT INTO rag_jobs (job_type, payload, status, finished_at)"
        " SELECT 'embed', '{}', (CASE WHEN n %% 5 = 0 THEN 'failed' ELSE 'completed' END)::job_status,"
        " now() - n * interval '1 day' FROM generate_series(1, 30) n"
    )
    kept = queue.enqueue()
    prune = "SELECT rag_jobs_prune('10 days 1 hour', %(arguments)s)"
    count = "SELECT count(*) FROM rag_jobs"
    assert queue.value(prune.replace("%(arguments)s", "dry_run => true")) == 20
    assert queue.value(prune.replace("%(arguments)s", "status => 'failed', dry_run => true")) == 4
    assert queue.value(count) == 31
    assert queue.value(prune.replace("%(arguments)s", "batch => 15")) == 15
    oldest = queue.value("SELECT now() - min(finished_at) FROM rag_jobs")
    assert timedelta(days=14) < oldest < timedelta(days=16)
    assert queue.value(prune.replace("%(arguments)s", "status => 'failed'")) == 1
    assert queue.value(prune.replace("%(arguments)s", "batch => 15")) == 4
    assert queue.value(prune.replace("%(arguments)s", "batch => 15")) == 0
    assert queue.value(count) == 11
    assert queue.job(kept)["status"] == "new"


def test_stats_count_each_type(queue: Queue) -> None:
    later = queue.value("SELECT now() + interval '1 hour'")
    for run_at in (None, later, queue.value("SELECT now() - interval '1 hour'")):
        queue.enqueue("a", run_at=run_at)
    for _ in range(4):
        queue.enqueue("b")
    claimed = queue.claim(["b"], 3)
    queue.expire(claimed[0])
    queue.call("fail", claimed[1], ", 'boom', permanent => true")
    queue.enqueue("done")
    queue.call("complete", queue.claim(["done"])[0])
    a, b = queue.rows("SELECT * FROM rag_jobs_stats()")
    age = a.pop("oldest_age")
    assert timedelta(hours=1) <= age < timedelta(hours=1, minutes=5)
    assert a == {"job_type": "a", "waiting": 3, "due": 2, "processing": 0, "expired": 0, "failed": 0}
    assert b.pop("oldest_age") < timedelta(minutes=5)
    assert b == {"job_type": "b", "waiting": 1, "due": 1, "processing": 2, "expired": 1, "failed": 1}


# poison


def test_a_payload_of_a_megabyte_is_stored(queue: Queue) -> None:
    payload = {"text": "x" * 1_000_000}
    queue.enqueue(payload=payload)
    assert queue.claim()[0]["payload"] == payload


def test_a_nul_in_a_payload_is_a_clear_error_and_the_queue_goes_on(queue: Queue) -> None:
    with pytest.raises(psycopg.errors.UntranslatableCharacter, match=r"\\u0000 cannot be converted to text"):
        queue.enqueue(payload={"text": "a\0b"})
    queue.enqueue()
    assert len(queue.claim(max_jobs=5)) == 1


def test_a_payload_nested_too_deep_is_a_clear_error_and_one_nested_deep_is_stored(queue: Queue) -> None:
    enqueue = "SELECT rag_jobs_enqueue('embed', %(payload)s::jsonb)"
    with pytest.raises(psycopg.errors.StatementTooComplex, match="stack depth limit exceeded"):
        queue.value(enqueue, payload="[" * 100_000 + "]" * 100_000)
    deep = queue.value(enqueue, payload='{"a":' * 2_000 + "1" + "}" * 2_000)
    assert [job["id"] for job in queue.rows("SELECT id FROM rag_jobs_claim('w', NULL, 5)")] == [deep]


def test_an_error_of_megabytes_is_cut_in_the_middle_with_a_note(queue: Queue) -> None:
    queue.enqueue()
    (job,) = queue.claim()
    error = "first" + "é" * 5_000_000 + "last"
    assert queue.call("fail", job, ", %(error)s", error=error) == "new"
    stored = queue.job(job["id"])["error_message"]
    assert stored.startswith("firsté")
    assert stored.endswith("élast")
    assert len(stored) < 16_000
    cut = re.search(r"\n\[\.\.\. (\d+) characters cut \.\.\.\]\n", stored)
    assert cut is not None
    assert len(stored) - len(cut[0]) + int(cut[1]) == len(error)


def test_an_error_just_short_enough_is_kept_whole(queue: Queue) -> None:
    queue.enqueue()
    (job,) = queue.claim()
    queue.call("fail", job, ", %(error)s", error="é" * 16_000)
    assert queue.job(job["id"])["error_message"] == "é" * 16_000


def test_a_type_or_key_too_long_for_an_index_is_refused_and_the_queue_goes_on(queue: Queue) -> None:
    long = "".join(map(str, range(3000)))
    with pytest.raises(psycopg.errors.StringDataRightTruncation, match="longer than 2,000 bytes"):
        queue.enqueue(long)
    with pytest.raises(psycopg.errors.StringDataRightTruncation, match="longer than 2,000 bytes"):
        queue.enqueue(dedupe_key=long)
    queue.enqueue()
    assert len(queue.claim(max_jobs=5)) == 1


# notifications


def notified(connection: psycopg.Connection[Any], channel: str = "rag_jobs_public") -> list[tuple[str, str]]:
    """Return what a listener hears before what is sent now: notifications come in the order of their commits."""
    with psycopg.connect(connection.info.dsn, autocommit=True) as speaker:
        speaker.execute("SELECT pg_notify(%s, 'the end')", (channel,))
    heard: list[tuple[str, str]] = []
    for found in connection.notifies(timeout=60):
        if found.payload == "the end":
            return heard
        heard.append((found.channel, found.payload))
    pytest.fail(f"the end is not heard after {heard}")


@pytest.fixture
def listener(database: Database) -> Iterator[psycopg.Connection[Any]]:
    with connect(database) as connection:
        connection.execute("LISTEN rag_jobs_public")
        yield connection


def test_a_transaction_notifies_once_for_each_type(queue: Queue, listener: psycopg.Connection[Any]) -> None:
    assert queue.value("SELECT rag_jobs_channel()") == "rag_jobs_public"
    with queue.connection.transaction():
        for _ in range(3):
            queue.enqueue("a")
        queue.run("SELECT rag_jobs_enqueue_many('{a,b,b}', ARRAY['{}', '{}', '{}']::jsonb[])")
    assert sorted(notified(listener)) == [("rag_jobs_public", "a"), ("rag_jobs_public", "b")]


def test_what_becomes_due_by_a_function_is_notified(queue: Queue, listener: psycopg.Connection[Any]) -> None:
    queue.enqueue("a", dedupe_key="k", notify=False)
    for end in ("complete", "fail"):
        (job,) = queue.claim()
        queue.enqueue("a", dedupe_key="k")
        assert notified(listener) == [], "it runs"
        queue.call(end, job, ", 'boom'" if end == "fail" else "")
        assert notified(listener) == [("rag_jobs_public", "a")]
    (job,) = queue.claim()
    queue.call("fail", job, ", 'boom', '1 hour'")
    assert notified(listener) == [], "it waits"
    queue.value("SELECT rag_jobs_retry(%(id)s)", id=job["id"])
    assert notified(listener) == [("rag_jobs_public", "a")]


def test_notifications_can_be_turned_off(queue: Queue, listener: psycopg.Connection[Any]) -> None:
    queue.enqueue(notify=False)
    queue.enqueue(run_at=queue.value("SELECT now() + interval '1 hour'"))
    queue.run("SET rag_jobs.notify = off")
    queue.enqueue()
    queue.run("INSERT INTO rag_jobs (job_type, payload) VALUES ('a', '{}')")
    assert queue.value("SELECT current_setting('rag_jobs.notify')") == "off"
    assert notified(listener) == []
    queue.run("RESET rag_jobs.notify")
    queue.enqueue("heard")
    assert notified(listener) == [("rag_jobs_public", "heard")]


def test_a_failed_enqueue_leaves_the_setting_as_it_was(
    queue: Queue, listener: psycopg.Connection[Any]
) -> None:
    with queue.connection.transaction():
        with pytest.raises(psycopg.errors.CheckViolation), queue.connection.transaction():
            queue.enqueue(max_attempts=0)
        queue.enqueue("heard")
    assert notified(listener) == [("rag_jobs_public", "heard")]


def test_inserts_by_hand_are_notified_too(by_hand: Queue, listener: psycopg.Connection[Any]) -> None:
    by_hand.run(
        "INSERT INTO rag_jobs (job_type, payload) SELECT t, '{}' FROM generate_series(1, 10),"
        " unnest('{a,b}'::text[]) t"
    )
    by_hand.run(
        "INSERT INTO rag_jobs (job_type, payload, run_at) VALUES ('c', '{}', now() + interval '1 hour')"
    )
    assert sorted(notified(listener)) == [("rag_jobs_public", "a"), ("rag_jobs_public", "b")]


def test_each_schema_has_a_channel_of_its_own(empty_database: Database) -> None:
    with connect(empty_database) as connection:
        connection.execute("CREATE SCHEMA tenant_1")
        connection.execute(
            f"ALTER DATABASE {empty_database.parameters['dbname']} SET search_path = tenant_1, public"
        )
    migrations.upgrade(empty_database)
    with connect(empty_database) as connection:
        connection.execute("LISTEN rag_jobs_tenant_1")
        connection.execute("SELECT rag_jobs_enqueue('a')")
        assert notified(connection, "rag_jobs_tenant_1") == [("rag_jobs_tenant_1", "a")]


def test_no_function_depends_on_the_search_path_of_its_caller(database: Database) -> None:
    with connect(database) as connection:
        queue = Queue(connection)
        for statement in (
            "CREATE SCHEMA theirs",
            "CREATE TABLE theirs.rag_jobs (id integer)",
            "CREATE TABLE pg_temp.rag_jobs (id integer)",
            "SET search_path = theirs, pg_catalog",
        ):
            queue.run(statement)
        job_id = queue.value("SELECT public.rag_jobs_enqueue('a', max_attempts => 1)")
        assert queue.value("SELECT id FROM public.rag_jobs_claim('w')") == job_id
        assert queue.value("SELECT public.rag_jobs_heartbeat(%(id)s, 1)", id=job_id) is True
        assert queue.value("SELECT public.rag_jobs_fail(%(id)s, 1, 'boom')", id=job_id) == "failed"
        assert queue.value("SELECT public.rag_jobs_retry(%(id)s)", id=job_id) is True
        assert queue.value("SELECT id FROM public.rag_jobs_claim('w', '{a}')") == job_id
        assert queue.value("SELECT public.rag_jobs_complete(%(id)s, 2)", id=job_id) is True
        assert queue.value("SELECT public.rag_jobs_cancel(%(id)s)", id=job_id) is False
        queue.run("INSERT INTO public.rag_jobs (job_type, payload) VALUES ('b', '{}')")
        queue.run("UPDATE public.rag_jobs SET status = 'processing' WHERE job_type = 'b'")
        assert queue.value("SELECT processing FROM public.rag_jobs_stats()") == 1
        assert queue.value("SELECT public.rag_jobs_prune('0')") == 1


# services that write only the columns of the hand-written schema


def test_a_claim_by_hand_and_its_end_are_kept_book_of(by_hand: Queue) -> None:
    by_hand.run("SET application_name = 'old service'")
    job_id = by_hand.value("INSERT INTO rag_jobs (job_type, payload) VALUES ('embed', '{}') RETURNING id")
    assert by_hand.value(CLAIM_BY_HAND) == job_id
    assert by_hand.rows(CLAIM_BY_HAND) == []
    job = by_hand.job(job_id)
    assert (job["status"], job["attempts"]) == ("processing", 1)
    assert job["worker"] == f"old service {by_hand.connection.info.backend_pid}"
    assert job["lease_expires_at"] - job["started_at"] == timedelta(hours=1)
    by_hand.run("UPDATE rag_jobs SET status = 'completed' WHERE id = %(id)s", id=job_id)
    done = by_hand.job(job_id)
    assert (done["status"], done["lease_expires_at"], done["attempts"]) == ("completed", None, 1)
    assert done["finished_at"] == done["updated_at"] > job["updated_at"]


def test_a_failure_by_hand_is_final_until_it_is_put_back(by_hand: Queue) -> None:
    job_id = by_hand.value("INSERT INTO rag_jobs (job_type, payload) VALUES ('embed', '{}') RETURNING id")
    by_hand.value(CLAIM_BY_HAND)
    fail = (
        "UPDATE rag_jobs SET status = 'failed', error_message = 'boom', updated_at = now() WHERE id = %(id)s"
    )
    by_hand.run(fail, id=job_id)
    job = by_hand.job(job_id)
    assert (job["status"], job["error_message"], job["lease_expires_at"]) == ("failed", "boom", None)
    assert job["finished_at"] is not None
    assert by_hand.claim() == []
    by_hand.run("UPDATE rag_jobs SET status = 'new' WHERE id = %(id)s", id=job_id)
    job = by_hand.job(job_id)
    assert (job["finished_at"], job["attempts"], job["attempts_before"]) == (None, 1, 1)
    assert by_hand.claim()[0]["attempts"] == 2


def test_jobs_by_hand_and_by_function_are_one_queue(by_hand: Queue) -> None:
    by_hand.run("INSERT INTO rag_jobs (job_type, payload) VALUES ('embed', '{}')")
    (job,) = by_hand.claim()
    assert by_hand.call("complete", job) is True
    enqueued = by_hand.enqueue()
    assert by_hand.value(CLAIM_BY_HAND) == enqueued
    by_hand.run("UPDATE rag_jobs SET lease_expires_at = now() WHERE id = %(id)s", id=enqueued)
    (taken,) = by_hand.claim(worker="new worker")
    assert (taken["id"], taken["attempts"]) == (enqueued, 2)
    # one who knows no token cannot be told apart: the other one is told
    by_hand.run("UPDATE rag_jobs SET status = 'completed' WHERE id = %(id)s", id=enqueued)
    assert by_hand.call("complete", taken) is False


def test_the_lease_of_a_claim_by_hand_is_a_setting(by_hand: Queue) -> None:
    by_hand.run("SET rag_jobs.lease = '6 hours'")
    job = by_hand.job(by_hand.enqueue())
    by_hand.value(CLAIM_BY_HAND)
    job = by_hand.job(job["id"])
    assert job["lease_expires_at"] - job["started_at"] == timedelta(hours=6)


@pytest.mark.parametrize("status", ["completed", "failed", "new"])
def test_a_job_enqueued_again_runs_again_after_an_end_by_hand(by_hand: Queue, status: str) -> None:
    first = by_hand.enqueue(dedupe_key="k", max_attempts=1)
    by_hand.value(CLAIM_BY_HAND)
    by_hand.enqueue(payload={"v": 2}, dedupe_key="k", max_attempts=1)
    by_hand.run("UPDATE rag_jobs SET status = %(status)s WHERE id = %(id)s", status=status, id=first)
    job = by_hand.job(first)
    assert (job["status"], job["finished_at"], job["lease_expires_at"]) == ("new", None, None)
    (job,) = by_hand.claim()
    assert (job["payload"], job["attempts"], job["enqueued_again"]) == ({"v": 2}, 2, False)


def test_a_sweeper_by_hand_gives_a_job_back_until_its_attempts_are_used_up(by_hand: Queue) -> None:
    job_id = by_hand.enqueue(max_attempts=2)
    for expected in ("new", "failed"):
        by_hand.value(CLAIM_BY_HAND)
        by_hand.run("UPDATE rag_jobs SET status = 'new' WHERE status = 'processing'")
        assert by_hand.job(job_id)["status"] == expected
    assert by_hand.job(job_id)["error_message"] == "given back after attempt 2, the last"


def test_a_job_done_under_its_row_lock_is_completed_without_a_claim(by_hand: Queue) -> None:
    job_id = by_hand.enqueue()
    by_hand.run("UPDATE rag_jobs SET status = 'completed' WHERE id = %(id)s", id=job_id)
    job = by_hand.job(job_id)
    assert (job["attempts"], job["finished_at"] is None) == (1, False)


@pytest.mark.parametrize("status", STATES)
def test_a_job_is_inserted_by_hand_in_any_state(by_hand: Queue, status: str) -> None:
    job_id = by_hand.value(
        "INSERT INTO rag_jobs (id, job_type, payload, status, created_at, updated_at)"
        " VALUES (gen_random_uuid(), 'embed', '{}', %(status)s, NULL, NULL) RETURNING id",
        status=status,
    )
    job = by_hand.job(job_id)
    assert job["created_at"] is not None
    assert job["updated_at"] is not None
    assert (job["lease_expires_at"] is not None) == (status == "processing")
    assert (job["finished_at"] is not None) == (status in ("completed", "failed"))
    assert job["attempts"] == (1 if status == "processing" else 0)


def test_updated_at_follows_every_write(by_hand: Queue) -> None:
    job = by_hand.job(by_hand.enqueue())
    by_hand.run("UPDATE rag_jobs SET priority = 3 WHERE id = %(id)s", id=job["id"])
    assert by_hand.job(job["id"])["updated_at"] > job["updated_at"]
    by_hand.run(
        "UPDATE rag_jobs SET priority = 3, updated_at = '2000-01-01Z' WHERE id = %(id)s", id=job["id"]
    )
    assert by_hand.job(job["id"])["updated_at"] == datetime(2000, 1, 1, tzinfo=UTC)


def test_a_claim_by_hand_reads_an_index_of_what_waits(by_hand: Queue) -> None:
    by_hand.run(
        "INSERT INTO rag_jobs (job_type, payload, status, finished_at)"
        " SELECT 'embed', '{}', 'completed', now() FROM generate_series(1, 20000)"
    )
    by_hand.enqueue()
    by_hand.run("ANALYZE rag_jobs")
    plan = "\n".join(str(row["QUERY PLAN"]) for row in by_hand.rows("EXPLAIN " + CLAIM_BY_HAND))
    assert "Index Scan using rag_jobs_created_at_idx" in plan
    assert "Seq Scan on rag_jobs" not in plan


# transitions

ALLOWED = {
    ("new", "processing"),
    ("new", "completed"),
    ("new", "failed"),
    ("processing", "new"),
    ("processing", "completed"),
    ("processing", "failed"),
    ("failed", "new"),
}
PAIRS = [(before, after) for before in STATES for after in STATES if before != after]


def put(queue: Queue, status: str) -> UUID:
    """Bring a new job to a status by the functions."""
    job_id = queue.enqueue()
    if status != "new":
        (job,) = queue.claim()
        if status != "processing":
            end = "complete" if status == "completed" else "fail"
            queue.call(end, job, ", 'boom', permanent => true" if end == "fail" else "")
    assert queue.job(job_id)["status"] == status
    return job_id


@pytest.mark.parametrize(("before", "after"), PAIRS)
@pytest.mark.parametrize(
    "rest", ["", ", updated_at = now()", ", finished_at = now(), lease_expires_at = NULL"]
)
def test_a_transition_is_allowed_or_refused_by_name(
    by_hand: Queue, before: str, after: str, rest: str
) -> None:
    job_id = put(by_hand, before)
    statement = f"UPDATE rag_jobs SET status = %(after)s{rest} WHERE id = %(id)s"
    if (before, after) in ALLOWED:
        by_hand.run(statement, after=after, id=job_id)
        assert by_hand.job(job_id)["status"] == after
        return
    with pytest.raises(psycopg.errors.CheckViolation) as caught:
        by_hand.run(statement, after=after, id=job_id)
    assert caught.value.diag.message_primary == f"job {job_id} is {before}, so it cannot become {after}"
    assert caught.value.diag.message_hint
    assert by_hand.job(job_id)["status"] == before


def test_attempts_never_go_down(by_hand: Queue) -> None:
    job_id = put(by_hand, "processing")
    with pytest.raises(psycopg.errors.CheckViolation, match="cannot go down from 1 to 0"):
        by_hand.run("UPDATE rag_jobs SET attempts = 0 WHERE id = %(id)s", id=job_id)


def test_every_column_says_what_it_is(database: Database) -> None:
    with connect(database) as connection:
        silent = connection.execute(
            "SELECT attname FROM pg_attribute WHERE attrelid = 'rag_jobs'::regclass AND attnum > 0"
            " AND NOT attisdropped AND col_description(attrelid, attnum) IS NULL"
        ).fetchall()
    assert silent == []


@pytest.mark.parametrize(
    ("status", "half"),
    [
        ("new", "status = 'processing'"),
        ("new", "status = 'failed'"),
        ("new", "lease_expires_at = now()"),
        ("new", "finished_at = now()"),
        ("new", "enqueued_again = true"),
        ("new", "attempts = 10"),
        ("new", "attempts = -1"),
        ("new", "max_attempts = 0"),
        ("processing", "status = 'completed', finished_at = now()"),
        ("processing", "status = 'completed', lease_expires_at = NULL"),
        ("processing", "status = 'new'"),
        ("processing", "lease_expires_at = NULL"),
        ("processing", "worker = NULL"),
        ("processing", "finished_at = now()"),
        ("processing", "attempts = 11"),
        ("completed", "finished_at = NULL"),
        ("completed", "lease_expires_at = now()"),
        ("failed", "status = 'new'"),
        ("failed", "enqueued_again = true"),
    ],
)
def test_without_triggers_a_half_written_job_is_refused(by_hand: Queue, status: str, half: str) -> None:
    job_id = put(by_hand, status)
    by_hand.run("ALTER TABLE rag_jobs DISABLE TRIGGER USER")
    with pytest.raises(psycopg.errors.CheckViolation, match=r"rag_jobs_(status|attempts)_check"):
        by_hand.run(f"UPDATE rag_jobs SET {half} WHERE id = %(id)s", id=job_id)


# jobs from before


def test_jobs_from_before_are_filled_in(database_at: DatabaseAt) -> None:
    database = database_at("20261121121500")
    insert = (
        "INSERT INTO rag_jobs (job_type, payload, status, created_at, updated_at, error_message)"
        " VALUES ('embed', '{}', %(status)s, %(created)s, %(updated)s, %(error)s) RETURNING id"
    )
    created, updated = datetime(2025, 1, 1, tzinfo=UTC), datetime(2025, 1, 2, tzinfo=UTC)
    with connect(database) as connection:
        queue = Queue(connection)
        found = {
            (status, is_dated): queue.value(
                insert,
                status=status,
                created=created if is_dated else None,
                updated=updated if is_dated else None,
                error="boom" if status == "failed" else None,
            )
            for status in STATES
            for is_dated in (True, False)
        }
        migrations.upgrade(database)
        jobs = {key: queue.job(job_id) for key, job_id in found.items()}
        assert {key: job["status"] for key, job in jobs.items()} == {key: key[0] for key in found}
        for (status, is_dated), job in jobs.items():
            assert job["created_at"] is not None
            assert job["updated_at"] is not None
            if is_dated:
                assert (job["created_at"], job["updated_at"]) == (created, updated)
                assert job["finished_at"] == (updated if status in ("completed", "failed") else None)
                assert status != "new" or job["run_at"] == created
            assert job["attempts"] == (1 if status == "processing" else 0)
        running = jobs["processing", True]
        assert running["lease_expires_at"] > queue.value("SELECT now() + interval '50 minutes'")
        assert (running["worker"], running["started_at"]) == ("unknown", updated)
        assert [job["id"] for job in queue.claim()] == [found["new", True]], "the oldest first"
        queue.run("UPDATE rag_jobs SET status = 'completed' WHERE id = %(id)s", id=running["id"])
        assert queue.job(running["id"])["status"] == "completed"


def test_a_type_that_no_index_can_hold_is_shown_before_anything_is_changed(database_at: DatabaseAt) -> None:
    database = database_at("20261121100500")
    with connect(database) as connection:
        connection.execute("INSERT INTO rag_jobs (job_type, payload) VALUES (repeat('embed', 1000), '{}')")
    with pytest.raises(RevisionRefused, match="20261121130200") as caught:
        migrations.upgrade(database)
    assert "5000, embedembed" in caught.value.evidence
    assert migrations.status(database).current == "20261121100500"
