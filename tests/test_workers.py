"""Workers in a service: threads and asyncio do the same, whatever becomes of their connections."""

from __future__ import annotations

import asyncio
import gc
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import timedelta
from functools import partial
from itertools import starmap
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session

import ragschema
from checkouts import rows, wait_until
from conftest import ROOT, clean_environment, connect
from ragschema import JobStatus, jobs, work, work_async
from ragschema.database.settings import Database
from ragschema.jobs import ClaimedJob, HandlerError, JobError
from ragschema.jobs.async_parts import end
from ragschema.jobs.handlers import check_result

SHORT = timedelta(milliseconds=600)
QUICK = timedelta(milliseconds=100)
CUT = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)

CONNECTED = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
)

Run = Callable[..., Any]


class Kind:
    """A worker of one of the two kinds, run in a thread; handlers are written once, as plain functions."""

    def __init__(self, name: str, database: Database) -> None:
        self.is_async = name == "asyncio"
        self.database = database
        self.engine_options: dict[str, Any] = {}

    @contextmanager
    def working(self, handlers: dict[str, Callable[[ClaimedJob], Any]], **options: Any) -> Iterator[None]:
        """Work while the block runs, then stop as SIGTERM would."""
        with ThreadPoolExecutor(1) as pool:
            stop: Future[Callable[[], object]] = Future()
            done = pool.submit(self._work_async if self.is_async else self._work, handlers, options, stop)
            try:
                yield
            finally:
                stop.result(60)()
                done.result(60)  # raises what ended it

    def _work(self, handlers: dict[str, Any], options: dict[str, Any], stop: Future[Any]) -> None:
        stopping = threading.Event()
        stop.set_result(stopping.set)
        engine = sa.create_engine(self.database.url(), **self.engine_options)
        try:
            work(engine, handlers, **options, stopping=stopping)
        finally:
            engine.dispose()

    def _work_async(self, handlers: dict[str, Any], options: dict[str, Any], stop: Future[Any]) -> None:
        async def run() -> None:
            stopping = asyncio.Event()
            loop = asyncio.get_running_loop()
            stop.set_result(lambda: loop.call_soon_threadsafe(stopping.set))
            engine = create_async_engine(self.database.url(), **self.engine_options)
            awaited = {name: partial(in_thread, handler) for name, handler in handlers.items()}
            try:
                await work_async(engine, awaited, **options, stopping=stopping)
            finally:
                await engine.dispose()

        asyncio.run(run())


async def in_thread(handler: Callable[[ClaimedJob], Any], job: ClaimedJob) -> None:
    try:
        await asyncio.to_thread(handler, job)
    except asyncio.CancelledError:
        job.cancelled.set()
        raise


@pytest.fixture(params=["threads", "asyncio"])
def kind(request: pytest.FixtureRequest, database: Database) -> Kind:
    return Kind(request.param, database)


def put(database: Database, count: int = 1, job_type: str = "a") -> list[Any]:
    with connect(database) as connection:
        return [rows(connection, "SELECT rag_jobs_enqueue(%s)", job_type)[0] for _ in range(count)]


def states(database: Database) -> list[Any]:
    with connect(database) as connection:
        return rows(connection, "SELECT status::text FROM rag_jobs ORDER BY created_at")


def test_as_many_jobs_run_at_a_time_as_it_is_told(kind: Kind, database: Database) -> None:
    put(database, 9)
    together = threading.Barrier(3)  # nobody passes until three are there
    with kind.working({"a": lambda job: together.wait(60)}, concurrency=3):
        wait_until(lambda: states(database) == ["completed"] * 9, "the ends of all")


def test_a_cancelled_job_ends_within_a_heartbeat(kind: Kind, database: Database) -> None:
    (job_id,) = put(database)
    told = threading.Event()

    def handle(job: ClaimedJob) -> None:
        if job.cancelled.wait(60):
            told.set()
            raise RuntimeError("stopped")

    with kind.working({"a": handle}, lease=SHORT), connect(database) as connection:
        wait_until(lambda: states(database) == ["processing"], "the claim")
        assert rows(connection, "SELECT rag_jobs_cancel(%s)", job_id) == [True]
        assert told.wait(60)
        put(database, job_type="a")
        wait_until(lambda: states(database) == ["failed", "processing"], "the next, by the same thread")
        rows(connection, "SELECT rag_jobs_cancel(id) FROM rag_jobs WHERE status = 'processing'")
    assert states(database) == ["failed", "failed"]


def test_it_goes_on_when_every_connection_is_cut_again_and_again(kind: Kind, database: Database) -> None:
    """The pool's, the one that listens, those in the middle of a claim, a heartbeat or an end."""
    put(database, 60)
    seen: list[UUID] = []

    def handle(job: ClaimedJob) -> None:
        time.sleep(0.02)
        seen.append(job.id)

    with kind.working({"a": handle}, lease=SHORT, poll=QUICK, concurrency=2), connect(database) as connection:
        wait_until(lambda: seen, "the first, because a worker that cannot begin says so")
        for _ in range(12):
            rows(connection, CUT)
            time.sleep(0.1)
        wait_until(lambda: states(database) == ["completed"] * 60, "the ends of all")
    assert len(set(seen)) == 60


def test_a_listener_that_was_cut_hears_again(kind: Kind, database: Database) -> None:
    listening = "SELECT pid FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND datname = current_database()"
    with (
        kind.working({"a": lambda job: None}, poll=timedelta(hours=1)),
        connect(database) as connection,
    ):
        wait_until(lambda: rows(connection, listening), "a worker that listens")
        (before,) = rows(connection, listening)
        rows(connection, CUT)
        wait_until(lambda: rows(connection, listening) not in ([], [before]), "one that listens again")
        put(database)
        wait_until(lambda: states(database) == ["completed"], "the end of what was announced")


def test_handlers_that_exhaust_the_pool_keep_no_heartbeat_waiting(kind: Kind, database: Database) -> None:
    kind.engine_options = {"pool_size": 1, "max_overflow": 0, "pool_timeout": 60}
    engine = sa.create_engine(database.url(), pool_size=1, max_overflow=0)
    until = threading.Event()
    put(database)

    def handle(job: ClaimedJob) -> None:
        with engine.connect():
            until.wait(60)

    held = "SELECT lease_expires_at > started_at + interval '1.8 s' FROM rag_jobs"
    with kind.working({"a": handle}, lease=SHORT), connect(database) as connection:
        wait_until(lambda: rows(connection, held) == [True], "heartbeats over three leases")
        until.set()
        wait_until(lambda: states(database) == ["completed"], "its end")
    engine.dispose()


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
def test_workers_outlive_a_stricter_default_isolation(kind: Kind, database: Database, isolation: str) -> None:
    put(database, 200)
    with connect(database) as connection:
        name = database.parameters["dbname"]
        connection.execute(
            f"ALTER DATABASE {name} SET default_transaction_isolation = '{isolation}'".encode()
        )
    handlers: dict[str, Callable[[ClaimedJob], Any]] = {"a": lambda job: None}
    with (
        kind.working(handlers, concurrency=4, poll=QUICK),
        kind.working(handlers, concurrency=4, poll=QUICK),
    ):
        wait_until(lambda: states(database) == ["completed"] * 200, "the ends of all")
    with connect(database) as connection:
        assert rows(connection, "SELECT max(attempts) FROM rag_jobs") == [1]


def test_sessions_that_are_stricter_by_default_claim_side_by_side(database: Database) -> None:
    put(database, 200)
    engine = sa.create_engine(
        database.url(), connect_args={"options": "-c default_transaction_isolation=serializable"}
    )

    def take(number: int) -> int:
        taken = 0
        while True:
            with Session(engine) as session, session.begin():
                claimed = jobs.claim(session, f"worker {number}", limit=3)
                level = session.scalar(sa.text("SELECT current_setting('transaction_isolation')"))
                assert level == "read committed"
            if not claimed:
                return taken
            taken += len(claimed)

    with ThreadPoolExecutor(4) as threads:
        assert sum(threads.map(take, range(4))) == 200
    engine.dispose()


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_an_engine_that_shares_its_pool_with_a_stricter_one_is_asked_for_each(
    database: Database, level: Any
) -> None:
    engine = sa.create_engine(database.url(), pool_size=1, max_overflow=0)
    stricter = engine.execution_options(isolation_level=level)
    for each in (engine, stricter, engine, stricter):
        for act in (jobs.enqueue_due, lambda connection: jobs.claim(connection, "worker")):
            with each.connect() as connection:
                act(connection)
                assert connection.scalar(sa.text("SHOW transaction_isolation")) == "read committed"
    engine.dispose()


async def coroutine_function(job: ClaimedJob) -> None:
    await asyncio.sleep(0)


def generator_function(job: ClaimedJob) -> Iterator[int]:
    yield 1


async def async_generator_function(job: ClaimedJob) -> AsyncIterator[int]:
    yield 1


class AsyncCalled:
    async def __call__(self, job: ClaimedJob) -> None:
        await asyncio.sleep(0)


class Made:
    """A handler of which the class was passed rather than an object."""

    def __init__(self, job: ClaimedJob) -> None:
        self.job = job

    def __call__(self) -> None: ...


class Methods:
    async def handle(self, job: ClaimedJob) -> None:
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("handler", "said", "remedy"),
    [
        (coroutine_function, "is async", "work_async"),
        (partial(partial(coroutine_function)), "is async", "work_async"),
        (AsyncCalled(), "is async", "work_async"),
        (partial(AsyncCalled()), "is async", "work_async"),
        (Methods().handle, "is async", "work_async"),
        (generator_function, "is a generator function", "return rather than yield"),
        (partial(generator_function), "is a generator function", "return rather than yield"),
        (async_generator_function, "is a generator function", "return rather than yield"),
        (Made, "is a class, whose call only makes an object", "Pass an object of it"),
        (partial(Made), "is a class, whose call only makes an object", "Pass an object of it"),
        ("embed", "is str, which cannot be called", "Pass a function"),
        (None, "is NoneType, which cannot be called", "Pass a function"),
        (lambda: None, "cannot be called with a job alone: too many positional", "one argument"),
        (lambda job, session: None, "cannot be called with a job alone: missing a required", "one argument"),
    ],
)
def test_a_handler_that_would_not_be_run_is_refused_at_the_start(
    engine: sa.Engine, handler: Any, said: str, remedy: str
) -> None:
    with pytest.raises(HandlerError) as refused:
        work(engine, {"a": handler}, stopping=threading.Event())
    assert f"The handler of 'a' {said}" in refused.value.message
    assert remedy in refused.value.remedy
    if remedy != "work_async":
        with pytest.raises(HandlerError) as refused:
            asyncio.run(work_async(create_async_engine(engine.url), {"a": handler}))
        assert f"The handler of 'a' {said}" in refused.value.message


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"lease": 300}, "lease is 300."),
        ({"lease": timedelta(0)}, "lease is datetime.timedelta(0)."),
        ({"poll": 5}, "poll is 5."),
        ({"concurrency": 0}, "concurrency is 0."),
        ({"concurrency": True}, "concurrency is True."),
        ({"worker": "a\0"}, "worker holds a NUL byte at position 1."),
    ],
)
def test_an_option_that_cannot_be_used_is_refused_at_the_start(
    engine: sa.Engine, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(JobError) as refused:
        work(engine, {"a": print}, **options, stopping=threading.Event())
    assert refused.value.message == said
    with pytest.raises(HandlerError, match="handlers is empty"):
        work(engine, {}, stopping=threading.Event())


@contextmanager
def entered(job: ClaimedJob) -> Iterator[None]:
    yield


@asynccontextmanager
async def entered_async(job: ClaimedJob) -> AsyncIterator[None]:
    yield


LAZY: list[tuple[Callable[[ClaimedJob], Any], str]] = [
    (lambda job: coroutine_function(job), "returned a coroutine, whose work is not done"),
    (lambda job: generator_function(job), "returned a generator"),
    (lambda job: async_generator_function(job), "returned an async_generator"),
    (lambda job: map(print, []), "returned a map"),
    (lambda job: Future(), "returned a Future"),
    (lambda job: [coroutine_function(job)], "returned a coroutine"),
    (lambda job: {"a": generator_function(job)}, "returned a generator"),
    (lambda job: coroutine_function, "returned a function"),
    (lambda job: Methods().handle, "returned a method"),
    (lambda job: partial(print, job), "returned a partial"),
    (lambda job: zip([job], [job], strict=True), "returned a zip"),
    (lambda job: starmap(print, []), "returned a starmap"),
    (lambda job: threading.Thread(target=print), "returned a Thread"),
    (entered, "returned a _GeneratorContextManager"),
    (entered_async, "returned an _AsyncGeneratorContextManager"),
]


@pytest.mark.parametrize(("handler", "said"), LAZY)
def test_an_attempt_whose_work_is_yet_to_be_done_fails(
    engine: sa.Engine, database: Database, handler: Any, said: str
) -> None:
    put(database)
    error = "SELECT error_message FROM rag_jobs WHERE status = 'new' AND attempts = 1"
    kind = Kind("threads", database)
    with kind.working({"a": handler}), connect(database) as connection:
        wait_until(lambda: rows(connection, error), "the failure")
        assert f"The handler of 'a' {said}" in str(rows(connection, error)[0])


@pytest.mark.parametrize("handler", [lambda job: None, *(each for each, _ in LAZY[1:4])])
def test_in_asyncio_an_attempt_that_is_not_awaited_fails(database: Database, handler: Any) -> None:
    put(database)
    error = "SELECT error_message FROM rag_jobs WHERE status = 'new' AND attempts = 1"

    async def run() -> None:
        engine = create_async_engine(database.url())
        task = asyncio.create_task(work_async(engine, {"a": handler}))
        with connect(database) as connection:
            while not rows(connection, error):
                await asyncio.sleep(0.02)
            assert "The handler of 'a' returned" in str(rows(connection, error)[0])
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await engine.dispose()

    asyncio.run(run())


@pytest.mark.parametrize("result", [None, 1, "done", [1, None], {"a": {}}, {1}, iter([]), object()])
def test_a_result_is_nobody_elses_business(result: Any) -> None:
    check_result("a", result)


def test_rows_that_are_not_read_yet_are_no_work(engine: sa.Engine) -> None:
    with engine.connect() as connection:
        check_result("a", connection.execute(sa.text("SELECT 1")))


def test_an_engine_or_event_of_the_other_kind_is_refused(engine: sa.Engine, database: Database) -> None:
    """A threading.Event would block the event loop for ever."""
    async_engine = create_async_engine(engine.url)
    handlers: Any = {"a": lambda job: None}
    for wrong in (async_engine, Session(engine), None):
        with pytest.raises(JobError, match="The engine is"):
            work(wrong, handlers, stopping=threading.Event())  # type: ignore[arg-type]
    with pytest.raises(JobError, match="The engine is Engine, not AsyncEngine"):
        asyncio.run(work_async(engine, {"a": coroutine_function}))  # type: ignore[arg-type]
    for event in (asyncio.Event(), True):
        with pytest.raises(JobError, match="stopping is"):
            work(engine, handlers, stopping=event)  # type: ignore[arg-type]
    with pytest.raises(JobError, match=r"stopping is threading\.Event"):
        asyncio.run(
            work_async(async_engine, {"a": coroutine_function}, stopping=threading.Event())  # type: ignore[arg-type]
        )


def test_a_job_that_its_handler_holds_in_a_transaction_keeps_no_other_waiting(
    kind: Kind, database: Database
) -> None:
    """Longer than its lease: a heartbeat that waited for the row came for no other job, and counted from its start."""
    put(database, job_type="holds")
    put(database, job_type="other")
    engine = sa.create_engine(database.url())
    attempts: list[tuple[str, int]] = []
    held, both = threading.Event(), threading.Event()

    def hold(job: ClaimedJob) -> None:
        attempts.append(("holds", job.attempt))
        with engine.begin() as connection:
            jobs.heartbeat(connection, job, progress={"page": 1})
            held.set()
            time.sleep(3 * SHORT.total_seconds())
        time.sleep(SHORT.total_seconds())

    def other(job: ClaimedJob) -> None:
        attempts.append(("other", job.attempt))
        time.sleep(4 * SHORT.total_seconds())
        both.set()

    rival = Kind("threads", database)
    with kind.working({"holds": hold, "other": other}, lease=SHORT, poll=QUICK, concurrency=2):
        assert held.wait(60)
        with rival.working({"other": other}, lease=SHORT, poll=QUICK):
            assert both.wait(60)
            wait_until(lambda: states(database) == ["completed"] * 2, "the ends of both")
    assert ("other", 2) not in attempts
    engine.dispose()


TYPED = """
import asyncio
from collections.abc import AsyncIterator, Iterator
from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncEngine
from ragschema import ClaimedJob, work, work_async

def plain(job: ClaimedJob) -> None: ...
def counting(job: ClaimedJob) -> int: return 1
async def awaited(job: ClaimedJob) -> None: ...
def generated(job: ClaimedJob) -> Iterator[int]: yield 1
async def streamed(job: ClaimedJob) -> AsyncIterator[int]: yield 1

def use(engine: Engine) -> None:
    work(engine, {"a": plain, "b": counting, "c": lambda job: print(job)})
    work(engine, {"a": awaited})  # refused
    work(engine, {"a": generated})  # refused
    work(engine, {"a": streamed})  # refused

async def use_async(engine: AsyncEngine) -> None:
    await work_async(engine, {"a": awaited})
    await work_async(engine, {"a": plain})  # refused
    await work_async(engine, {"a": generated})  # refused
    await work_async(engine, {"a": streamed})  # refused
"""


def test_type_checkers_refuse_what_would_not_be_run(tmp_path: Path) -> None:
    script = tmp_path / "service.py"
    script.write_text(TYPED)
    result = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), str(script)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    refused = [n for n, line in enumerate(TYPED.splitlines(), 1) if line.endswith("# refused")]
    found = {int(line.split(":")[1]) for line in result.stdout.splitlines() if ": error:" in line}
    assert sorted(found) == refused, result.stdout


def test_a_claimed_job_can_be_handed_to_another_process(session: Session) -> None:
    jobs.enqueue(session, "a", {"n": 1})
    (job,) = jobs.claim(session, "worker")
    job.cancelled.set()
    copy = pickle.loads(pickle.dumps(job))
    assert (copy, copy.payload, copy.cancelled.is_set()) == (job, {"n": 1}, False)


def test_a_job_that_is_given_back_has_lost_no_attempt(session: Session) -> None:
    job_id = jobs.enqueue(session, "a", {}, max_attempts=1)
    for attempt in (1, 2, 3):
        (job,) = jobs.claim(session, "worker")
        assert (job.id, job.attempt, job.attempts_left) == (job_id, attempt, 0)
        assert jobs.give_back(session, job) is True
        assert jobs.give_back(session, job) is False
    (job,) = jobs.claim(session, "worker")
    assert jobs.fail(session, job, "no") is JobStatus.failed


def test_a_worker_that_is_cancelled_gives_its_jobs_back(database: Database) -> None:
    put(database, 3)

    async def run() -> None:
        engine = create_async_engine(database.url())
        started = asyncio.Semaphore(0)
        ended: list[str] = []

        async def handle(job: ClaimedJob) -> None:
            started.release()
            try:
                await asyncio.sleep(600)
            except asyncio.CancelledError:
                ended.append("cancelled")
                raise

        task = asyncio.create_task(work_async(engine, {"a": handle}, concurrency=2))
        await started.acquire()
        await started.acquire()
        assert sorted(states(database)) == ["new", "processing", "processing"]
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended == ["cancelled"] * 2
        assert asyncio.all_tasks() == {asyncio.current_task()}
        await engine.dispose()

    asyncio.run(run())
    with connect(database) as connection:
        assert rows(connection, "SELECT status::text FROM rag_jobs WHERE run_at <= now()") == ["new"] * 3
        assert rows(connection, "SELECT sum(attempts - attempts_before) FROM rag_jobs") == [0]


def test_a_job_whose_handler_is_slow_to_end_is_nobody_elses_meanwhile(database: Database) -> None:
    """Its worker is cancelled, and it cleans up for longer than its lease."""
    put(database)
    attempts: list[int] = []

    async def clean_up(job: ClaimedJob) -> None:
        attempts.append(job.attempt)
        for _ in range(2):
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(3 * SHORT.total_seconds())

    async def run() -> None:
        engine = create_async_engine(database.url())
        task = asyncio.create_task(work_async(engine, {"a": clean_up}, lease=SHORT))
        while not attempts:
            await asyncio.sleep(0.02)
        with rival.working({"a": lambda job: attempts.append(job.attempt)}, lease=SHORT, poll=QUICK):
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await engine.dispose()

    rival = Kind("threads", database)
    asyncio.run(run())
    assert (attempts, states(database)) == ([1], ["completed"])


@pytest.mark.parametrize("is_own", [False, True], ids=["plain engine", "our engine"])
def test_a_worker_that_is_cancelled_again_and_again_leaves_nothing_open(
    database: Database, is_own: bool
) -> None:
    """At once, while it connects, claims, and sends heartbeats: no task, no connection, no job with nobody at it."""
    put(database, 3)
    url = database.libpq_url()

    async def run(has_begun: bool, steps: int) -> None:
        begun = asyncio.Event()

        async def handle(job: ClaimedJob) -> None:
            begun.set()
            await asyncio.sleep(600)

        engine = ragschema.create_async_engine(url) if is_own else create_async_engine(database.url())
        working = work_async(
            engine, {"a": handle}, concurrency=2, lease=timedelta(milliseconds=9), poll=QUICK
        )
        task = asyncio.create_task(working)
        if has_begun:
            await asyncio.wait([task, asyncio.create_task(begun.wait())], return_when=asyncio.FIRST_COMPLETED)
        for _ in range(steps):
            await asyncio.sleep(0)
        while not task.done():
            task.cancel()
            for _ in range(7):
                await asyncio.sleep(0)
        assert task.cancelled()
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        await engine.dispose()

    gc.collect()
    gc.freeze()  # what other tests have left: to look at it again fourteen times takes seconds
    with connect(database) as connection:
        for has_begun in (False, True):
            for steps in (0, 1, 30, 100, 300, 500, 1000):
                asyncio.run(run(has_begun, steps))
                gc.collect()  # or a connection is found open in another test
                assert states(database) == ["new"] * 3, steps
        wait_until(lambda: rows(connection, CONNECTED) == [0], "the end of its connections")
        assert rows(connection, "SELECT sum(attempts - attempts_before) FROM rag_jobs") == [0]


def test_a_task_that_loses_a_cancellation_is_cancelled_again() -> None:
    """As psycopg's does in Python 3.11, where a notification comes in the same moment."""

    async def run() -> int:
        lost = 0

        async def lose() -> None:
            nonlocal lost
            while lost < 2:
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(600)
                lost += 1
            await asyncio.sleep(600)

        task = asyncio.create_task(lose())
        await asyncio.sleep(0)
        assert await end([task], 0) is False
        assert task.cancelled()
        return lost

    assert asyncio.run(run()) == 2


def test_each_engine_of_a_worker_is_closed_though_the_other_cannot_be(kind: Kind, database: Database) -> None:
    disposed: list[sa.Engine] = []

    def refuse(engine: sa.Engine) -> None:
        disposed.append(engine)
        if len(disposed) == 1:
            raise RuntimeError("not today")

    with connect(database) as connection:
        with suppress(RuntimeError), kind.working({"a": lambda job: None}):
            sa.event.listen(sa.Engine, "engine_disposed", refuse)
        sa.event.remove(sa.Engine, "engine_disposed", refuse)
        assert len(disposed) == 3, "its two, and the test's"
        wait_until(lambda: rows(connection, CONNECTED) == [0], "the end of its connections")


SERVICE = """
import asyncio
from contextlib import asynccontextmanager, suppress
from fastapi import FastAPI
from ragschema import create_async_engine, jobs, work_async

engine = create_async_engine()

async def handle(job):
    await asyncio.sleep(job.payload["seconds"])

@asynccontextmanager
async def lifespan(app):
    task = asyncio.create_task(work_async(engine, {"a": handle}, concurrency=2))
    yield
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    await engine.dispose()
    print("ended", flush=True)

app = FastAPI(lifespan=lifespan)
"""


def test_a_service_with_a_worker_ends_at_sigterm_and_leaves_no_job_behind(
    database: Database, tmp_path: Path
) -> None:
    (tmp_path / "service.py").write_text(SERVICE)
    enqueue = "SELECT rag_jobs_enqueue('a', jsonb_build_object('seconds', %s::int))"
    with (
        connect(database) as connection,
        subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "service:app", "--port", "0", "--log-level", "warning"],
            cwd=tmp_path,
            env=clean_environment() | {"DATABASE_URL": database.libpq_url()},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        try:
            rows(connection, enqueue, 0)
            wait_until(lambda: states(database) == ["completed"], "the end of a short one")
            rows(connection, CUT)
            rows(connection, enqueue, 600)
            wait_until(lambda: states(database) == ["completed", "processing"], "a long one")
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert out == "ended\n", err
    assert "Traceback" not in err
    assert states(database) == ["completed", "new"]
