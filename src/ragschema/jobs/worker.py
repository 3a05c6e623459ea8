"""A worker in one process: claims jobs, does them in threads, and keeps their leases meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from time import monotonic
from typing import Any, TypeVar
from uuid import UUID

import psycopg
import sqlalchemy as sa
from tenacity import Retrying, sleep_using_event, stop_when_event_set

from ragschema.jobs.agenda import Agenda
from ragschema.jobs.handlers import Handler, check_result
from ragschema.jobs.queue import LEASE, claim
from ragschema.jobs.records import ClaimedJob
from ragschema.jobs.worker_parts import (
    CHANNEL,
    SECONDS_TO_NOTICE,
    SECONDS_TO_SAY_SO,
    UNREACHABLE,
    Options,
    beat,
    calling_at_sigterm,
    check_engine,
    log,
    own_engine,
    read_options,
    retries,
    say_end,
    say_lost,
)

T = TypeVar("T")


def work(
    engine: sa.Engine,
    handlers: Mapping[str, Handler],
    *,
    worker: str = "",
    lease: timedelta = LEASE,
    poll: timedelta = timedelta(seconds=10),
    concurrency: int = 1,
    stopping: threading.Event | None = None,
) -> None:
    """Claim jobs and do them, until SIGTERM; then end those that run, and return.

    A handler runs in a thread while another one sends heartbeats. What it raises fails the attempt, and the job is
    tried again later; its return completes the job. A heartbeat that is told the job is cancelled, or another's,
    sets ``job.cancelled``, which a long handler looks at. Once it has begun, a database that is away, a pool that
    is exhausted or a connection that was cut ends nothing: the worker tries again, at least every 15 s.

    Args:
        engine: For the database; the worker keeps ``concurrency`` + 3 connections at most beside its pool's own.
        handlers: What does the jobs of each type: plain functions. `work_async` has coroutine functions.
        worker: Who claims, for those who look; host and process by default.
        lease: How long a worker that is dead keeps its job; heartbeats come three times as often.
        poll: How often to look for jobs that nobody announces: retries, and jobs for later.
        concurrency: Jobs to do at a time, each in a thread.
        stopping: Set by the caller to stop; by default SIGTERM does it, and this must be the main thread.

    Raises:
        HandlerError: A handler cannot be run here: it is async, a generator, or takes something else than a job.
        JobError: An option cannot be used.
    """
    check_engine(engine, stopping, is_async=False)
    options = read_options(
        handlers, worker=worker, lease=lease, poll=poll, concurrency=concurrency, is_async=False
    )
    own, ears = own_engine(engine), own_engine(engine)
    agenda = Agenda(poll.total_seconds())
    state = _Worker(own, ears, handlers, options, agenda, stopping or threading.Event())
    with ExitStack() as stack:
        stack.callback(own.dispose)
        stack.callback(ears.dispose)
        if stopping is not None:
            state.run()
            return
        with calling_at_sigterm(state.stopping.set, is_required=True):
            state.run()


@dataclass
class _Worker:
    engine: sa.Engine
    ears: sa.Engine  # of the connection that listens: a pool of one leaves another for the rest
    handlers: Mapping[str, Handler]
    options: Options
    agenda: Agenda
    stopping: threading.Event
    has_ended: threading.Event = field(default_factory=threading.Event)
    wake: threading.Event = field(default_factory=threading.Event)
    running: dict[UUID, ClaimedJob] = field(default_factory=dict)
    held: dict[UUID, ClaimedJob] = field(default_factory=dict)  # those of them that heartbeats are sent for

    def run(self) -> None:
        with self.engine.begin() as connection:  # errors of the first look are the caller's
            channel = connection.execute(CHANNEL).scalar_one()
            claimed = self.claim(connection)
        helpers = [
            threading.Thread(target=self.listen, args=(channel,), name="rag jobs listener"),
            threading.Thread(target=self.keep_leases, name="rag jobs heart"),
        ]
        try:
            with ThreadPoolExecutor(self.options.concurrency, "rag jobs") as threads:
                self.start(threads, claimed)
                for helper in helpers:
                    helper.start()
                while not self.stopping.is_set():
                    if not claimed or len(self.running) >= self.options.concurrency:
                        self.wait()
                    if self.agenda.seconds_left <= 0 and not self.stopping.is_set():
                        self.look()
                    claimed = self.claim_again()
                    self.start(threads, claimed)
        finally:
            self.has_ended.set()
            for helper in helpers:
                if helper.ident is not None:
                    helper.join()

    def claim(self, connection: sa.Connection) -> list[ClaimedJob]:
        free = self.options.concurrency - len(self.running)
        return claim(
            connection, self.options.worker, self.options.job_types, limit=free, lease=self.options.lease
        )

    def claim_again(self) -> list[ClaimedJob]:
        """Claim as many jobs as there are threads free, however long that takes; none when it is to stop."""
        if self.stopping.is_set() or len(self.running) >= self.options.concurrency:
            return []
        calls = Retrying(
            **retries(), stop=stop_when_event_set(self.stopping), sleep=sleep_using_event(self.stopping)
        )
        with suppress(*UNREACHABLE):
            return calls(self.in_transaction, self.claim)
        return []

    def look(self) -> None:
        """Look at the schedules, and enqueue what is due."""
        self.agenda.begin()
        try:
            self.in_transaction(self.agenda.look)()
        except Exception as exc:
            self.agenda.fail(exc)

    def in_transaction(self, call: Callable[[sa.Connection], T]) -> T:
        with self.engine.begin() as connection:
            return call(connection)

    def start(self, threads: ThreadPoolExecutor, claimed: list[ClaimedJob]) -> None:
        for job in claimed:
            job.cancelled.clear()  # made here, before two threads ask for it
            self.running[job.id] = self.held[job.id] = job
            threads.submit(self.do, job)

    def wait(self) -> None:
        """Wait until a job may be claimed: one is announced, a thread is free, or it is time to look."""
        deadline = monotonic() + self.options.poll.total_seconds()
        while not self.stopping.is_set():
            left = min(deadline - monotonic(), self.agenda.seconds_left)
            if left <= 0:
                return
            if self.wake.wait(min(left, SECONDS_TO_NOTICE)):
                self.wake.clear()
                if len(self.running) < self.options.concurrency:
                    return

    def do(self, job: ClaimedJob) -> None:
        """Do a job, and say how it ended; runs in a thread."""
        try:
            error: BaseException | None = None
            try:
                check_result(job.job_type, self.handlers[job.job_type](job))
            except BaseException as exc:
                error = exc
                log.warning("Attempt %s of job %s failed", job.attempt, job.id, exc_info=error)
            if not self.end(job, error):
                say_lost(job.id)
        except UNREACHABLE as exc:
            log.error("The end of job %s was not stored, so its lease hands it on: %s", job.id, exc)
        except Exception:  # nobody reads this thread's result
            log.exception("The end of job %s was not stored, so its lease hands it on", job.id)
        finally:
            self.held.pop(job.id, None)
            self.running.pop(job.id, None)
            self.wake.set()

    def end(self, job: ClaimedJob, error: BaseException | None) -> bool:
        """Complete a job or fail its attempt; False: it was not ours any more."""
        stopped_at: list[float] = []

        def is_too_late(_: object) -> bool:
            if self.stopping.is_set():
                stopped_at.append(monotonic())
            return bool(stopped_at) and monotonic() - stopped_at[0] > SECONDS_TO_SAY_SO

        calls = Retrying(**retries(), stop=is_too_late)
        is_ours: bool = calls(self.in_transaction, lambda connection: say_end(connection, job, error))
        # an answer that was lost may have been yes
        return is_ours or calls.statistics.get("attempt_number", 1) > 1

    def keep_leases(self) -> None:
        """Send heartbeats for all jobs that run; one that is told no has its job stopped. Runs in a thread."""
        pause = self.options.beat
        while not self.has_ended.wait(pause):
            pause = self.options.beat
            for job in [*self.held.values()]:
                try:
                    with self.engine.begin() as connection:
                        is_ours = beat(connection, job)
                except UNREACHABLE as exc:
                    log.warning(
                        "A heartbeat of job %s did not reach its queue: %s", job.id, type(exc).__name__
                    )
                    is_ours = None
                if is_ours is None:
                    pause = self.options.soon
                elif not is_ours and self.held.pop(job.id, None) is not None:
                    job.cancelled.set()

    def listen(self, channel: str) -> None:
        """Wake the worker when a job is announced; runs in a thread, and connects again when it is cut off."""
        calls = Retrying(
            **retries(), stop=stop_when_event_set(self.has_ended), sleep=sleep_using_event(self.has_ended)
        )
        while not self.has_ended.is_set():
            with suppress(*UNREACHABLE):
                calls(self.listen_once, channel)

    def listen_once(self, channel: str) -> None:
        with _listening(self.ears, channel) as ears, suppress(psycopg.Error):
            self.agenda.hear("")  # what was announced while nobody listened
            self.wake.set()
            while not self.has_ended.is_set():
                # in steps, because psycopg goes on waiting
                for notification in ears.notifies(timeout=SECONDS_TO_NOTICE, stop_after=1):
                    self.agenda.hear(notification.payload)
                    self.wake.set()
        self.has_ended.wait(SECONDS_TO_NOTICE)  # the connection was cut: not at once again


@contextmanager
def _listening(engine: sa.Engine, channel: str) -> Iterator[psycopg.Connection[Any]]:
    """Yield a connection that is told of new jobs, and closed afterwards."""
    with engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert isinstance(driver, psycopg.Connection)
        try:
            driver.rollback()
            driver.autocommit = True  # a LISTEN counts from its commit on
            driver.execute(f"LISTEN {channel}".encode())
            yield driver
        finally:
            connection.invalidate()  # not back into the pool, listening
