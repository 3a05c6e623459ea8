"""Jobs from a service: each function in sync and async sessions, and the worker."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from checkouts import rows, wait_until
from conftest import clean_environment, connect
from ragschema import JobStatus, NewJob, create_async_engine, jobs, work
from ragschema.database.settings import Database
from ragschema.jobs import ClaimedJob, Handler, JobError, PermanentFailure

MINUTE = timedelta(minutes=1)
WRONG: dict[str, Any] = {"int": 30, "date": datetime(2026, 1, 1).date()}
CLAIMED = ClaimedJob(UUID(int=1), "embed", 1, 1, "{}", None, MINUTE)
SHORT = timedelta(milliseconds=300)
LISTENING = "SELECT FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND datname = current_database()"


def take(session: Session, *, lease: timedelta = MINUTE) -> ClaimedJob:
    """Claim the only job that is due."""
    (job,) = jobs.claim(session, "worker", lease=lease)
    session.commit()
    return job


def look(session: Session, job_id: UUID, columns: str) -> Any:
    """Return columns of a job; one alone as its value."""
    row = session.execute(sa.text(f"SELECT {columns} FROM rag_jobs WHERE id = :id"), {"id": job_id}).one()
    session.commit()
    return row[0] if len(row) == 1 else tuple(row)


def expire(session: Session, job: ClaimedJob) -> None:
    """Let a job's lease run out."""
    assert jobs.heartbeat(session, job, lease=timedelta(microseconds=1))
    session.commit()


def listen(connection: psycopg.Connection[Any]) -> None:
    """Listen for the jobs of the connection's schema."""
    (schema,) = connection.execute("SELECT current_schema()").fetchone() or ("",)
    connection.execute(f"LISTEN rag_jobs_{schema}".encode())


def test_a_job_is_enqueued_claimed_and_completed(session: Session) -> None:
    job_id = jobs.enqueue(session, "embed", {"article_id": "noises", "pages": [1, 2]})
    session.commit()
    job = take(session)
    assert (job.id, job.job_type, job.attempt) == (job_id, "embed", 1)
    assert job.payload == {"article_id": "noises", "pages": [1, 2]}
    assert job.progress is None
    assert look(session, job_id, "status, worker") == ("processing", "worker")
    assert jobs.claim(session, "another") == []
    assert jobs.complete(session, job) is True
    assert look(session, job_id, "status, finished_at IS NOT NULL") == ("completed", True)
    assert jobs.complete(session, job) is False


def test_the_same_functions_serve_an_async_session(database: Database) -> None:
    async def serve() -> None:
        engine = create_async_engine(database.libpq_url())
        async with AsyncSession(engine) as session:
            job_id = await session.run_sync(jobs.enqueue, "embed", {"n": 1}, priority=3)
            many = await session.run_sync(jobs.enqueue_many, [NewJob(job_type="index", payload={})])
            await session.commit()
            claimed = await session.run_sync(jobs.claim, "worker", ["embed", "index"], limit=5)
            await session.commit()
            assert {job.id for job in claimed} == {job_id, *many}
            first = next(job for job in claimed if job.id == job_id)
            assert await session.run_sync(jobs.heartbeat, first, progress={"at": 7})
            assert await session.run_sync(jobs.fail, first, "no", retry_in=timedelta(0)) is JobStatus.new
            await session.commit()
        async with engine.begin() as connection:
            (again,) = await connection.run_sync(jobs.claim, "worker", limit=5)
            assert (again.id, again.attempt, again.progress) == (job_id, 2, {"at": 7})
            completed = await connection.run_sync(jobs.complete_many, [again, *claimed])
            assert set(completed) == {job_id, *many}
            assert await connection.run_sync(jobs.stats) == []
        await engine.dispose()

    asyncio.run(serve())


def test_what_is_rolled_back_was_never_enqueued_and_announces_nothing(
    session: Session, database: Database
) -> None:
    with connect(database) as ears:
        listen(ears)
        jobs.enqueue(session, "embed", {})
        session.rollback()
        assert jobs.claim(session, "worker") == []
        session.rollback()
        jobs.enqueue(session, "other", {})
        session.commit()
        assert [told.payload for told in ears.notifies(timeout=60, stop_after=1)] == ["other"]


def test_many_are_enqueued_in_order_each_with_what_it_says(session: Session) -> None:
    later = datetime.now(UTC) + timedelta(days=1)
    given = [
        NewJob(job_type="embed", payload={"n": 0}),
        NewJob(job_type="index", payload={"n": 1}, priority=5, max_attempts=2),
        NewJob(job_type="embed", payload={"n": 2}, run_at=later, dedupe_key="two"),
    ]
    ids = jobs.enqueue_many(session, given)
    found = [
        look(
            session,
            job_id,
            "job_type, CAST(payload ->> 'n' AS integer), priority, dedupe_key, run_at > clock_timestamp()",
        )
        for job_id in ids
    ]
    assert found == [
        ("embed", 0, 0, None, False),
        ("index", 1, 5, None, False),
        ("embed", 2, 0, "two", True),
    ]
    assert look(session, ids[1], "max_attempts") == 2
    assert look(
        session, ids[0], "max_attempts = (SELECT 0 + max_attempts FROM rag_jobs WHERE dedupe_key = 'two')"
    )
    assert look(session, ids[2], "run_at") == later
    assert jobs.enqueue_many(session, []) == []


def test_notifications_come_once_a_type_and_can_be_turned_off(session: Session, database: Database) -> None:
    with connect(database) as ears:
        listen(ears)
        jobs.enqueue_many(session, [NewJob(job_type="silent", payload={})], notify=False)
        session.commit()
        jobs.enqueue_many(session, [NewJob(job_type=f"loud {n % 2}", payload={}) for n in range(100)])
        session.commit()
        jobs.enqueue(session, "last", {})
        session.commit()
        told: list[str] = []
        for notification in ears.notifies(timeout=60):
            told.append(notification.payload)
            if notification.payload == "last":
                break
        assert sorted(told) == ["last", "loud 0", "loud 1"]


def test_a_heartbeat_holds_a_job_for_as_long_as_the_claim_said_or_as_told(session: Session) -> None:
    job_id = jobs.enqueue(session, "embed", {})
    job = take(session, lease=timedelta(hours=3))
    held = "lease_expires_at - updated_at"
    assert look(session, job_id, held) == timedelta(hours=3)
    assert jobs.heartbeat(session, job, progress=1)
    assert look(session, job_id, held) == timedelta(hours=3)
    assert jobs.heartbeat(session, job, lease=MINUTE)
    assert look(session, job_id, f"{held}, progress") == (MINUTE, 1)


def test_a_late_worker_is_told_so(session: Session) -> None:
    job_id = jobs.enqueue(session, "embed", {})
    late = take(session)
    expire(session, late)
    now = take(session)
    assert (now.id, now.attempt) == (late.id, late.attempt + 1)
    assert jobs.heartbeat(session, late, progress={"wrong": True}) is False
    assert jobs.complete(session, late) is False
    assert jobs.fail(session, late, "late") is None
    assert jobs.complete_many(session, [late, now]) == [job_id]
    assert look(session, job_id, "status, progress, error_message") == ("completed", None, None)


def test_a_key_waits_once_with_the_newest_payload_and_runs_again_if_it_runs(session: Session) -> None:
    first = jobs.enqueue(session, "embed", {"n": 1}, dedupe_key="a")
    assert jobs.enqueue(session, "embed", {"n": 2}, dedupe_key="a", priority=-1) == first
    assert (
        jobs.enqueue(session, "index", {"n": 1}, dedupe_key="a", run_at=datetime.now(UTC) + MINUTE) != first
    )
    session.commit()
    running = take(session)
    assert (running.id, running.payload) == (first, {"n": 2})
    assert jobs.enqueue(session, "embed", {"n": 3}, dedupe_key="a") == first
    session.commit()
    assert jobs.complete(session, running) is True
    again = take(session)
    assert (again.id, again.payload) == (first, {"n": 3})
    assert jobs.complete(session, again) is True
    assert jobs.enqueue(session, "embed", {"n": 4}, dedupe_key="a") != first


def test_a_failure_is_tried_again_later_and_later_and_at_last_not(session: Session) -> None:
    job_id = jobs.enqueue(session, "embed", {}, max_attempts=3)
    waits = []
    for left in (2, 1):
        job = take(session)
        assert job.attempts_left == left
        assert jobs.fail(session, job, f"attempt {job.attempt}") is JobStatus.new
        waits.append(look(session, job_id, "extract(epoch FROM run_at - updated_at)"))
        assert jobs.claim(session, "worker") == []
        assert jobs.retry(session, job_id) is True
    assert 5 <= waits[0] <= 10 <= waits[1] <= 20
    assert jobs.fail(session, take(session), "the last") is JobStatus.failed
    assert look(session, job_id, "status, error_message, attempts") == ("failed", "the last", 3)
    assert jobs.retry(session, job_id) is True
    assert take(session).attempts_left == 2


def test_a_failure_says_when_to_try_again_or_that_it_is_for_good(session: Session) -> None:
    job_id = jobs.enqueue(session, "embed", {})
    assert jobs.fail(session, take(session), "busy", retry_in=timedelta(hours=2)) is JobStatus.new
    assert look(session, job_id, "run_at - updated_at") == timedelta(hours=2)
    assert jobs.retry(session, job_id)
    assert jobs.fail(session, take(session), PermanentFailure("not text at all")) is JobStatus.failed
    stored = look(session, job_id, "error_message")
    assert stored.endswith(".PermanentFailure: not text at all\n")
    assert jobs.retry(session, job_id)
    assert jobs.fail(session, take(session), "gone", permanent=True) is JobStatus.failed


def test_a_cancelled_job_is_failed_and_its_worker_is_told(session: Session) -> None:
    job_id = jobs.enqueue(session, "embed", {})
    job = take(session)
    assert jobs.cancel(session, job_id, "no longer wanted") is True
    assert jobs.heartbeat(session, job) is False
    assert jobs.complete(session, job) is False
    assert look(session, job_id, "status, error_message") == ("failed", "cancelled: no longer wanted")
    assert jobs.cancel(session, job_id) is False
    assert jobs.retry(session, uuid4()) is False


def test_stats_count_what_is_not_completed(session: Session) -> None:
    later = datetime.now(UTC) + timedelta(days=1)
    jobs.enqueue_many(session, [NewJob(job_type="a", payload={}) for _ in range(3)])
    jobs.enqueue(session, "a", {}, run_at=later)
    jobs.enqueue(session, "b", {}, priority=-1)
    jobs.enqueue(session, "b", {}, priority=-2)
    jobs.enqueue(session, "b", {}, priority=-3)
    session.commit()
    assert jobs.fail(session, take(session), "no", permanent=True) is JobStatus.failed
    assert jobs.complete(session, take(session)) is True
    expire(session, take(session))
    a, b = jobs.stats(session)
    assert (a.job_type, a.waiting, a.due, a.processing, a.expired, a.failed) == ("a", 4, 3, 0, 0, 0)
    assert a.oldest_age is not None
    assert a.oldest_age > timedelta(0)
    assert (b.job_type, b.waiting, b.due, b.processing, b.expired, b.failed) == ("b", 0, 0, 1, 1, 1)
    assert b.oldest_age is None


def test_pruning_goes_by_batches_and_takes_only_what_has_finished_long_ago(session: Session) -> None:
    ids = jobs.enqueue_many(session, [NewJob(job_type="a", payload={}) for _ in range(6)])
    session.commit()
    claimed = jobs.claim(session, "worker", limit=5)
    assert len(jobs.complete_many(session, claimed[:4])) == 4
    assert jobs.fail(session, claimed[4], "no", permanent=True) is JobStatus.failed
    session.execute(
        sa.text(
            "UPDATE rag_jobs SET finished_at = now() - interval '31 days', updated_at = now() WHERE id = ANY(:ids)"
        ),
        {"ids": [job.id for job in claimed[:3]] + [claimed[4].id]},
    )
    session.commit()
    month = timedelta(days=30)
    assert jobs.prune(session, month, dry_run=True) == 4
    assert jobs.prune(session, month, dry_run=True, status=JobStatus.failed) == 1
    assert jobs.prune(session, month, status=JobStatus.completed, batch=2) == 2
    assert jobs.prune(session, month, status=JobStatus.completed, batch=2) == 1
    left = {claimed[3].id, claimed[4].id, *ids} - {job.id for job in claimed[:3]}
    assert set(session.scalars(sa.text("SELECT id FROM rag_jobs"))) == left
    assert jobs.prune(session, month) == 1


def nested() -> dict[str, Any]:
    """Return what is deeper than any recursion limit; made where it is used, because it takes half a second."""
    value: dict[str, Any] = {}
    for _ in range(200_000):
        value = {"in": value}
    return value


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        ({"text": "a\0b"}, "has a NUL character, which PostgreSQL does not store."),
        ({"a\0b": 1}, "has a NUL character"),
        ({"text": "\\\\\0"}, "has a NUL character"),
        ({"number": float("nan")}, "cannot be JSON: Out of range float values are not JSON compliant"),
        ({"when": datetime.now(UTC)}, "cannot be JSON: Object of type datetime is not JSON serializable."),
        ({"text": "\ud800"}, "cannot be JSON: 'utf-8' codec can't encode character"),
        (nested, "cannot be JSON: maximum recursion depth exceeded"),
        ({"number": -float("inf")}, "cannot be JSON: Out of range float values are not JSON compliant"),
        ({1: "a", "1": "b"}, "has the keys 1 and '1' at $, which are one in JSON."),
        ({"in": [{}, {True: 1, "true": 2}]}, "has the keys True and 'true' at $.in[1], which are one"),
        (
            {"an": ({"odd key": {None: 1, "null": 2}},)},
            """has the keys None and 'null' at $.an[0]["odd key"]""",
        ),
        ({"n": {1.5: 1, "1.5": 2}}, "has the keys 1.5 and '1.5' at $.n, which are one in JSON."),
    ],
)
def test_a_payload_that_cannot_be_stored_is_refused_before_anything_is_sent(
    session: Session, payload: dict[str, Any] | Callable[[], dict[str, Any]], said: str
) -> None:
    with pytest.raises(JobError) as refused:
        jobs.enqueue(session, "embed", payload() if callable(payload) else payload)
    assert f"The payload of a job 'embed' {said}" in refused.value.message
    assert refused.value.remedy
    assert not session.in_transaction()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda s: jobs.enqueue(s, "a\0", {}), "job_type holds a NUL byte at position 1."),
        (lambda s: jobs.enqueue(s, "a\ud800", {}), "job_type holds half a surrogate pair at position 1."),
        (lambda s: jobs.enqueue(s, "a", {}, dedupe_key="\0"), "dedupe_key holds a NUL byte at position 0."),
        (lambda s: jobs.enqueue(s, "a", {}, priority=2**31), "priority is 2147483648."),
        (lambda s: jobs.enqueue(s, "a", {}, priority=True), "priority is True."),
        (lambda s: jobs.enqueue(s, "a", {}, max_attempts=0), "max_attempts is 0."),
        (
            lambda s: jobs.enqueue(s, "a", {}, run_at=WRONG["date"]),
            "run_at is date, not datetime.",
        ),
        (lambda s: jobs.claim(s, "w\0"), "worker holds a NUL byte at position 1."),
        (lambda s: jobs.claim(s, "w", limit=0), "limit is 0."),
        (lambda s: jobs.claim(s, "w", limit=2**31), "limit is 2147483648."),
        (lambda s: jobs.claim(s, "w", lease=WRONG["int"]), "lease is 30."),
        (lambda s: jobs.fail(s, CLAIMED, "no", retry_in=WRONG["int"]), "retry_in is 30."),
        (
            lambda s: jobs.fail(s, CLAIMED, "no", retry_in=-MINUTE),
            "retry_in is datetime.timedelta(days=-1, seconds=86340).",
        ),
        (lambda s: jobs.heartbeat(s, CLAIMED, lease=timedelta(0)), "lease is datetime.timedelta(0)."),
        (lambda s: jobs.cancel(s, uuid4(), "\0"), "reason holds a NUL byte at position 0."),
        (lambda s: jobs.prune(s, WRONG["int"]), "older_than is 30."),
        (lambda s: jobs.prune(s, MINUTE, batch=0), "batch is 0."),
    ],
)
def test_an_argument_that_the_driver_or_the_server_would_refuse_is_refused_before_anything_is_sent(
    session: Session, call: Callable[[Any], object], said: str
) -> None:
    with pytest.raises(JobError) as refused:
        call(session)
    assert refused.value.message == said
    assert not session.in_transaction()


def test_what_is_no_json_is_made_so_by_default(session: Session) -> None:
    given: Any = {"id": UUID(int=1), "at": datetime(2027, 1, 1, tzinfo=UTC), "sum": Decimal("1.50"), 1: ["a"]}
    stored = {"id": str(UUID(int=1)), "at": "2027-01-01 00:00:00+00:00", "sum": "1.50", "1": ["a"]}
    jobs.enqueue(session, "embed", given, default=str)
    job = take(session)
    assert job.payload == stored
    assert jobs.heartbeat(session, job, progress=given, default=str)
    assert look(session, job.id, "progress") == stored
    (job_id,) = jobs.enqueue_many(session, [NewJob(job_type="b", payload=given)], default=str)
    assert look(session, job_id, "payload") == stored
    for value, said in (({1: 1, "1": 2}, r"the keys 1 and '1' at \$\.id"), (float("nan"), "cannot be JSON")):
        made = dict.fromkeys([UUID(int=1)], value)
        with pytest.raises(JobError, match=said):
            jobs.enqueue(session, "embed", {"id": UUID(int=1)}, default=made.get)


def test_a_claim_in_autocommit_is_committed_at_once_and_changes_no_isolation(database: Database) -> None:
    """Where the default is stricter, a SET TRANSACTION would be for a transaction that has ended: a warning."""
    options = {"options": "-c default_transaction_isolation=serializable"}
    engine = sa.create_engine(database.url(), isolation_level="AUTOCOMMIT", connect_args=options)
    sent: list[str] = []
    sa.event.listen(engine, "before_cursor_execute", lambda *event: sent.append(event[2]))
    with Session(engine) as session, connect(database) as connection:
        jobs.enqueue(session, "embed", {})
        (job,) = jobs.claim(session, "worker")
        assert rows(connection, "SELECT status::text FROM rag_jobs") == ["processing"]
        assert jobs.complete(session, job)
    engine.dispose()
    assert not [statement for statement in sent if "SET TRANSACTION" in statement]


def test_what_only_looks_like_a_nul_is_stored(session: Session) -> None:
    payload = {"text": "\\u0000 \\\\u0000 \x01 \x7f é 😀"}
    jobs.enqueue(session, "embed", payload)
    assert take(session).payload == payload


def test_a_large_payload_and_large_progress_come_back_as_they_were(session: Session) -> None:
    large = {"text": "é" * 1_000_000}
    job_id = jobs.enqueue(session, "embed", large)
    job = take(session)
    assert job.payload == large
    assert jobs.heartbeat(session, job, progress=large)
    assert jobs.fail(session, job, "no", retry_in=timedelta(0)) is JobStatus.new
    again = take(session)
    assert (again.id, again.progress) == (job_id, large)


def test_progress_that_cannot_be_stored_is_refused(session: Session) -> None:
    job_id = jobs.enqueue(session, "embed", {})
    with pytest.raises(JobError, match=f"The progress of job {job_id} has a NUL"):
        jobs.heartbeat(session, take(session), progress="\0")


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(JobError, match=r"run_at 2026-01-01 00:00:00 has no time zone\."):
        NewJob(job_type="embed", payload={}, run_at=datetime(2026, 1, 1))


def test_an_error_of_any_kind_is_stored(session: Session) -> None:
    job_id = jobs.enqueue(session, "embed", {})
    for error in ("nul \0, half a pair \ud800", "start " + "x" * 5_000_000 + " end"):
        assert jobs.fail(session, take(session), error, retry_in=timedelta(0)) is JobStatus.new
        stored = look(session, job_id, "error_message")
        assert len(stored) < 20_000
        assert stored.startswith(("nul \ufffd, half a pair ?", "start xxx"))
        assert stored.endswith(("?", " end"))


def test_a_payload_too_deep_for_python_fails_its_own_job_alone(engine: sa.Engine, session: Session) -> None:
    """Another program may have enqueued it: the claim of others goes on."""
    deep = '{"in": ' * 5_000 + "1" + "}" * 5_000
    put = sa.text("SELECT rag_jobs_enqueue('embed', CAST(:deep AS jsonb), max_attempts => 1)")
    deep_id = session.execute(put, {"deep": deep}).scalar_one()
    shallow_id = jobs.enqueue(session, "embed", {"n": 1})
    session.commit()
    limit = sys.getrecursionlimit()
    seen: list[Any] = []
    stopping = threading.Event()

    def handle(job: ClaimedJob) -> None:
        if job.id == shallow_id:
            stopping.set()
        seen.append(job.payload)

    sys.setrecursionlimit(900)
    try:
        work(engine, {"embed": handle}, stopping=stopping)
    finally:
        sys.setrecursionlimit(limit)
    assert look(session, shallow_id, "status") == "completed"
    assert seen[-1] == {"n": 1}
    if len(seen) == 1:
        assert look(session, deep_id, "status") == "failed"
        assert "RecursionError" in look(session, deep_id, "error_message")


@contextmanager
def working(engine: sa.Engine, handlers: dict[str, Handler], **options: Any) -> Iterator[None]:
    """Work in a thread while the block runs."""
    stopping = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(work, engine, handlers, **options, stopping=stopping)
        try:
            yield
        finally:
            stopping.set()
            done.result()  # raises what ended it


def test_a_worker_completes_what_returns_and_fails_what_raises(engine: sa.Engine, session: Session) -> None:
    good = jobs.enqueue(session, "good", {"n": 1})
    bad = jobs.enqueue(session, "bad", {"n": 2})
    worse = jobs.enqueue(session, "worse", {})
    left = jobs.enqueue(session, "of nobody here", {})
    session.commit()
    seen: list[Any] = []

    def divide(job: ClaimedJob) -> None:
        seen.append(1 / 0)

    def give_up(job: ClaimedJob) -> None:
        raise PermanentFailure("never")

    handlers: dict[str, Handler] = {
        "good": lambda job: seen.append(job.payload),
        "bad": divide,
        "worse": give_up,
    }
    with working(engine, handlers, worker="tested"):
        wait_until(lambda: look(session, worse, "finished_at"), "the end of the last")
        wait_until(lambda: look(session, bad, "error_message"), "the failure")
        wait_until(lambda: look(session, good, "finished_at"), "the completion")
    assert seen == [{"n": 1}]
    assert look(session, good, "status, worker") == ("completed", "tested")
    status, error, is_later = look(session, bad, "status, error_message, run_at > updated_at")
    assert (status, is_later) == ("new", True)
    assert "in divide" in error
    assert error.endswith("ZeroDivisionError: division by zero\n")
    assert look(session, worse, "status, attempts") == ("failed", 1)
    assert look(session, left, "status") == "new"


def test_a_worker_keeps_the_lease_of_a_job_that_takes_longer(engine: sa.Engine, session: Session) -> None:
    job_id = jobs.enqueue(session, "long", {})
    session.commit()
    until = threading.Event()
    with working(engine, {"long": lambda job: until.wait(60)}, lease=SHORT):
        wait_until(lambda: look(session, job_id, "started_at"), "the claim")
        started = "lease_expires_at > started_at + 4 * interval '300 ms'"
        wait_until(lambda: look(session, job_id, started), "heartbeats over four leases")
        assert jobs.claim(session, "another") == []
        until.set()
        wait_until(lambda: look(session, job_id, "finished_at"), "its end")
    assert look(session, job_id, "status, attempts") == ("completed", 1)


def test_a_worker_that_has_lost_its_job_says_so_and_goes_on(
    engine: sa.Engine, session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    lost = jobs.enqueue(session, "long", {}, priority=-1)
    after = jobs.enqueue(session, "long", {})
    session.commit()
    until = threading.Event()
    with working(engine, {"long": lambda job: until.wait(60)}):
        wait_until(lambda: look(session, lost, "started_at"), "the claim")
        assert jobs.cancel(session, lost) is True
        session.commit()
        until.set()
        wait_until(lambda: look(session, after, "finished_at"), "the end of the next")
    assert look(session, lost, "status, error_message") == ("failed", "cancelled")
    assert caplog.messages == [f"Job {lost} was cancelled, or its lease ran out"]


def test_a_worker_outlives_heartbeats_that_fail(session: Session, database: Database) -> None:
    job_id = jobs.enqueue(session, "long", {})
    session.commit()
    until = threading.Event()
    kill = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND query LIKE 'SELECT rag_jobs_heartbeat%'"
    )
    engine = sa.create_engine(database.url())
    with working(engine, {"long": lambda job: until.wait(60)}, lease=SHORT), connect(database) as connection:
        wait_until(lambda: rows(connection, kill), "a connection that sends heartbeats")
        beats = look(session, job_id, "updated_at")
        wait_until(lambda: look(session, job_id, "updated_at") > beats, "a heartbeat after it")
        until.set()
        wait_until(lambda: look(session, job_id, "finished_at"), "its end")
    engine.dispose()
    assert look(session, job_id, "status") == "completed"


def test_an_idle_worker_is_woken_by_an_enqueue_and_looks_by_itself_for_what_nobody_announces(
    engine: sa.Engine, session: Session, database: Database
) -> None:
    done = threading.Event()
    with (
        connect(database) as connection,
        working(engine, {"a": lambda job: done.set()}, poll=timedelta(hours=1)),
    ):
        wait_until(lambda: rows(connection, LISTENING), "a worker that listens")
        jobs.enqueue(session, "a", {})
        session.commit()
        assert done.wait(60)
    done.clear()
    with connect(database) as connection, working(engine, {"a": lambda job: done.set()}, poll=SHORT):
        wait_until(lambda: rows(connection, LISTENING), "a worker that listens")
        jobs.enqueue(session, "a", {}, notify=False)
        session.commit()
        assert done.wait(60)


WORKER = """
import time
from ragschema import create_engine, work
def sleep(job):
    print("started", flush=True)
    time.sleep(job.payload["seconds"])
    print("ended", flush=True)
print("ready", flush=True)
work(create_engine(), {"sleep": sleep})
print("stopped", flush=True)
"""


@contextmanager
def worker_process(database: Database, directory: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", WORKER],
        cwd=directory,
        env=clean_environment() | {"DATABASE_URL": database.libpq_url()},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_sigterm_ends_a_worker_after_the_job_that_runs(
    database: Database, session: Session, tmp_path: Path
) -> None:
    ids = jobs.enqueue_many(session, [NewJob(job_type="sleep", payload={"seconds": 1})] * 2)
    session.commit()
    with worker_process(database, tmp_path) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)] == ["ready\n", "started\n"]
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate()
    assert (process.returncode, out, err) == (0, "ended\nstopped\n", "")
    assert sorted(look(session, job_id, "status") for job_id in ids) == ["completed", "new"]


def test_sigterm_ends_a_worker_that_is_idle(database: Database, tmp_path: Path) -> None:
    with worker_process(database, tmp_path) as process, connect(database) as connection:
        wait_until(lambda: rows(connection, LISTENING), "a worker that listens")
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate()
    assert (process.returncode, out, err) == (0, "ready\nstopped\n", "")


def test_the_job_of_a_killed_worker_is_done_by_another(
    database: Database, engine: sa.Engine, session: Session, tmp_path: Path
) -> None:
    job_id = jobs.enqueue(session, "sleep", {"seconds": 600})
    session.commit()
    with worker_process(database, tmp_path) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)] == ["ready\n", "started\n"]
        process.kill()
    session.execute(sa.text("UPDATE rag_jobs SET lease_expires_at = now(), updated_at = now()"))
    session.commit()
    with working(engine, {"sleep": lambda job: None}):
        wait_until(lambda: look(session, job_id, "finished_at"), "its end")
    assert look(session, job_id, "status, attempts") == ("completed", 2)
