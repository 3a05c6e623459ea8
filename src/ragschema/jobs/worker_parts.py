"""Parts that the worker of threads and the worker of asyncio share."""

from __future__ import annotations

import inspect
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import psycopg
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine
from tenacity import RetryCallState, retry_if_exception_type, wait_random_exponential

from ragschema.database.sqlstates import server_message
from ragschema.jobs.handlers import HandlerError, check_handlers
from ragschema.jobs.queue import complete, fail, heartbeat
from ragschema.jobs.records import ClaimedJob, JobError, check_duration
from ragschema.values import check_text

log = logging.getLogger("ragschema.jobs")

UNREACHABLE = (sa.exc.DBAPIError, sa.exc.TimeoutError, psycopg.Error, OSError)
"""What a worker gets over: the connection is lost, the pool exhausted, the server restarts, or refuses for now."""

_IS_FREE = sa.text(
    "SELECT EXISTS (SELECT FROM rag_jobs WHERE id = :id FOR NO KEY UPDATE SKIP LOCKED)"
    " OR NOT EXISTS (SELECT FROM rag_jobs WHERE id = :id)"
)
CHANNEL = sa.text("SELECT quote_ident(rag_jobs_channel())")
SECONDS_TO_NOTICE = 0.2
"""How soon a thread that waits sees that it is to stop."""
SECONDS_TO_SAY_SO = 10.0
"""For how long a worker that stops tries to say how its jobs ended, where the database does not answer."""


@dataclass(frozen=True)
class Options:
    """What a worker was told, checked.

    Attributes:
        worker: Who claims.
        job_types: Whose handlers there are.
        lease: How long a job is held.
        poll: How often to look for jobs unasked.
        concurrency: Jobs at a time.
    """

    worker: str
    job_types: tuple[str, ...]
    lease: timedelta
    poll: timedelta
    concurrency: int

    @property
    def beat(self) -> float:
        """Seconds from a heartbeat to the next."""
        return self.lease.total_seconds() / 3

    @property
    def soon(self) -> float:
        """Seconds from a heartbeat that could not be sent to the next: the lease allows for a miss."""
        return min(1.0, self.beat / 4)


def read_options(
    handlers: Mapping[str, Any],
    *,
    worker: str,
    lease: timedelta,
    poll: timedelta,
    concurrency: int,
    is_async: bool,
) -> Options:
    """Return what a worker was told.

    Raises:
        HandlerError: A handler cannot be run.
        JobError: An option cannot be used.
    """
    check_handlers(handlers, is_async=is_async)
    check_text("worker", worker, JobError)
    check_duration("lease", lease)
    check_duration("poll", poll)
    if type(concurrency) is not int or concurrency < 1:
        raise JobError(
            f"concurrency is {concurrency!r}.", "Pass how many jobs to do at a time, one at least."
        )
    name = worker or f"{socket.gethostname()} {os.getpid()}"
    return Options(name, tuple(handlers), lease, poll, concurrency)


def check_engine(engine: object, stopping: object, *, is_async: bool) -> None:
    """Refuse an engine, or an event to stop by, that is for the other kind of worker.

    Raises:
        JobError: It is such.
    """
    wanted = AsyncEngine if is_async else sa.Engine
    if not isinstance(engine, wanted):
        raise JobError(
            f"The engine is {type(engine).__name__}, not {wanted.__name__}.",
            "Pass one of create_engine to work, one of create_async_engine to work_async.",
        )
    wait = getattr(stopping, "wait", None)
    if stopping is not None and (not callable(wait) or inspect.iscoroutinefunction(wait) != is_async):
        raise JobError(
            f"stopping is {type(stopping).__module__}.{type(stopping).__name__}.",
            f"Pass {'asyncio' if is_async else 'threading'}.Event(): another would not be heard.",
        )


def own_engine(engine: sa.Engine) -> sa.Engine:
    """Return an engine like this one with a pool of its own, so that no handler takes the worker's connections.

    Its transactions are in READ COMMITTED, whatever the default of the role or the database: the queue's
    functions look again where another worker was faster.
    """
    own = sa.Engine(
        engine.pool.recreate(), engine.dialect, engine.url, execution_options=engine.get_execution_options()
    )
    return own.execution_options(isolation_level="READ COMMITTED")


def retries() -> dict[str, Any]:
    """Return tenacity's arguments for statements that are repeated until the database answers."""
    return {
        "retry": retry_if_exception_type(UNREACHABLE),
        "wait": wait_random_exponential(multiplier=0.1, max=15),
        "before_sleep": _say_again,
        "reraise": True,
    }


def _say_again(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    said = server_message(error) if isinstance(error, sa.exc.DBAPIError) else str(error)
    seconds = state.next_action.sleep if state.next_action else 0
    log.warning("The worker cannot reach its queue, and tries again in %.1f s: %s", seconds, said)


def beat(connection: sa.Connection, job: ClaimedJob) -> bool | None:
    """Prolong a job's lease; False: it is another's, cancelled or finished. Waits for nobody.

    Returns:
        None where somebody holds the job's row just now, such as its handler, in a transaction with its work: whoever
        waited there would keep the leases of other jobs waiting, and would count from when it began to wait.
    """
    if not connection.execute(_IS_FREE, {"id": job.id}).scalar_one():
        return None
    return heartbeat(connection, job)


def say_end(connection: sa.Connection, job: ClaimedJob, error: BaseException | None) -> bool:
    """Complete a job, or fail its attempt; False: it was not this worker's any more."""
    return complete(connection, job) if error is None else fail(connection, job, error) is not None


def say_lost(job_id: object) -> None:
    log.warning("Job %s was cancelled, or its lease ran out", job_id)


@contextmanager
def calling_at_sigterm(stop: Callable[[], object], *, is_required: bool) -> Iterator[None]:
    """Call a function at SIGTERM, before whoever else heard it, while the block runs.

    Args:
        stop: Called in the main thread between two instructions.
        is_required: Whether nothing else could stop the worker.

    Raises:
        HandlerError: It is required, and this is not the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        if is_required:
            raise HandlerError(
                "work stops at SIGTERM, which only the main thread hears.",
                "Pass stopping=threading.Event(), and set it to stop.",
            )
        yield
        return
    before = signal.getsignal(signal.SIGTERM)

    def hear(number: int, frame: Any) -> None:
        stop()
        if callable(before):
            before(number, frame)

    signal.signal(signal.SIGTERM, hear)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is hear:
            signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)
