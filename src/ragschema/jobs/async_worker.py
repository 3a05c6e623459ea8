"""A worker in one event loop: claims jobs, does them in tasks, and keeps their leases meanwhile."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import psycopg
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine
from tenacity import AsyncRetrying, RetryCallState

from ragschema.jobs.handlers import AsyncHandler, check_result, not_awaitable
from ragschema.jobs.queue import LEASE, claim, give_back, heartbeat
from ragschema.jobs.records import ClaimedJob
from ragschema.jobs.worker_parts import (
    CHANNEL,
    SECONDS_TO_NOTICE,
    SECONDS_TO_SAY_SO,
    UNREACHABLE,
    Options,
    calling_at_sigterm,
    log,
    own_engine,
    read_options,
    retries,
    say_end,
    say_lost,
)

T = TypeVar("T")


async def work_async(
    engine: AsyncEngine,
    handlers: Mapping[str, AsyncHandler],
    *,
    worker: str = "",
    lease: timedelta = LEASE,
    poll: timedelta = timedelta(seconds=10),
    concurrency: int = 1,
    stopping: asyncio.Event | None = None,
) -> None:
    """Claim jobs and do them, until SIGTERM; then end those that run, and return: `work` for asyncio.

    A handler is a task. One whose job is cancelled, or another worker's, is cancelled at the next heartbeat. When
    this coroutine is itself cancelled, so are the handlers, and their jobs wait again at once, without the attempt
    being counted. So it may run beside a service: as a task that is cancelled when the service ends.

    A handler that blocks the event loop stops the heartbeats of all: such work belongs in `asyncio.to_thread`, or
    in `work`.

    Args:
        engine: For the database; the worker keeps a few connections beside its pool's own.
        handlers: What does the jobs of each type: coroutine functions.
        worker: As in `work`.
        lease: As in `work`.
        poll: As in `work`.
        concurrency: Jobs to do at a time, each in a task.
        stopping: Set by the caller to stop; by default SIGTERM does it, and is handed on to who heard it before.

    Raises:
        HandlerError: A handler cannot be run here: it is a generator, or takes something else than a job.
        JobError: An option cannot be used.
    """
    options = read_options(
        handlers, worker=worker, lease=lease, poll=poll, concurrency=concurrency, is_async=True
    )
    own, ears = (AsyncEngine(own_engine(engine.sync_engine)) for _ in range(2))
    state = _Worker(own, ears, handlers, options, stopping or asyncio.Event())
    try:
        if stopping is not None:
            await state.run()
            return
        with calling_at_sigterm(state.stop_soon(), is_required=False):
            await state.run()
    finally:
        await own.dispose()
        await ears.dispose()


@dataclass
class _Worker:
    engine: AsyncEngine
    ears: AsyncEngine  # of the connection that listens: a pool of one leaves another for the rest
    handlers: Mapping[str, AsyncHandler]
    options: Options
    stopping: asyncio.Event
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    running: set[asyncio.Task[None]] = field(default_factory=set)
    is_cancelled: bool = False

    def stop_soon(self) -> Callable[[], object]:
        """Return what a signal handler calls to stop this worker."""
        loop = asyncio.get_running_loop()
        return lambda: loop.call_soon_threadsafe(self.stopping.set)

    async def run(self) -> None:
        async with self.engine.begin() as connection:  # errors of the first look are the caller's
            channel = (await connection.execute(CHANNEL)).scalar_one()
            claimed = await connection.run_sync(self.claim)
        self.start(claimed)
        helpers = [asyncio.create_task(self.listen(channel)), asyncio.create_task(self.wake_to_stop())]
        taking: asyncio.Task[bool] | None = None
        try:
            has_claimed = bool(claimed)
            while not self.stopping.is_set():
                if not has_claimed or len(self.running) >= self.options.concurrency:
                    await self.wait()
                # not cancelled half way: what it has claimed by then would have nobody at it
                taking = asyncio.create_task(self.take())
                has_claimed = await asyncio.shield(taking)
            while self.running:
                await asyncio.wait(self.running)
        finally:
            self.is_cancelled = True
            for helper in helpers:
                helper.cancel()
            if taking is not None:
                await _wait_for([taking], SECONDS_TO_SAY_SO)
            for task in self.running:
                task.cancel()
            await _wait_for([*helpers, *self.running], None)

    def claim(self, connection: sa.Connection) -> list[ClaimedJob]:
        free = self.options.concurrency - len(self.running)
        return claim(
            connection, self.options.worker, self.options.job_types, limit=free, lease=self.options.lease
        )

    def start(self, claimed: list[ClaimedJob]) -> None:
        for job in claimed:
            task = asyncio.create_task(self.do(job))
            self.running.add(task)
            task.add_done_callback(self.end_task)

    def end_task(self, task: asyncio.Task[None]) -> None:
        self.running.discard(task)
        self.wake.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("The end of a job was not stored, so its lease hands it on: %s", error, exc_info=error)

    async def take(self) -> bool:
        """Claim as many jobs as may run, however long that takes, and start them; none when it is to stop."""
        if self.is_stopping() or len(self.running) >= self.options.concurrency:
            return False
        calls = AsyncRetrying(**retries(), stop=self.is_stopping, sleep=self.sleep)
        with suppress(*UNREACHABLE):
            claimed: list[ClaimedJob] = await calls(self.in_transaction, self.claim)
            self.start(claimed)
            return bool(claimed)
        return False

    def is_stopping(self, _: RetryCallState | None = None) -> bool:
        return self.is_cancelled or self.stopping.is_set()

    async def sleep(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self.stopping.wait(), seconds)

    async def in_transaction(self, call: Callable[[sa.Connection], T]) -> T:
        async with self.engine.begin() as connection:
            return await connection.run_sync(call)

    async def wait(self) -> None:
        """Wait until a job may be claimed: one is announced, a task has ended, or it is time to look."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self.options.poll.total_seconds()):
                while not self.stopping.is_set():
                    await self.wake.wait()
                    self.wake.clear()
                    if len(self.running) < self.options.concurrency:
                        return

    async def wake_to_stop(self) -> None:
        await self.stopping.wait()
        self.wake.set()

    async def do(self, job: ClaimedJob) -> None:
        """Do a job, and say how it ended; cancelled, it gives the job back."""
        handling = asyncio.create_task(self.handle(job))
        try:
            await self.keep_lease(job, handling)
            error = _error_of(handling)
            if error is not None:
                log.warning("Attempt %s of job %s failed", job.attempt, job.id, exc_info=error)
            if not await self.end(job, error):
                say_lost(job.id)
        except asyncio.CancelledError:
            handling.cancel()
            await _wait_for([handling], None)
            error = _error_of(handling) if handling.done() else asyncio.CancelledError()
            with suppress(*UNREACHABLE, TimeoutError):
                async with asyncio.timeout(SECONDS_TO_SAY_SO):
                    if isinstance(error, asyncio.CancelledError):
                        await self.in_transaction(lambda connection: give_back(connection, job))
                    else:
                        await self.in_transaction(lambda connection: say_end(connection, job, error))
            raise

    async def handle(self, job: ClaimedJob) -> None:
        awaitable = self.handlers[job.job_type](job)
        if not inspect.isawaitable(awaitable):
            check_result(job.job_type, awaitable)
            raise not_awaitable(job.job_type, awaitable)
        check_result(job.job_type, await awaitable)

    async def keep_lease(self, job: ClaimedJob, handling: asyncio.Task[None]) -> None:
        """Send heartbeats until a handler has ended; cancel it when one is told no."""
        pause = self.options.beat
        while not (await asyncio.wait([handling], timeout=pause))[0]:
            pause = self.options.beat
            try:
                is_ours = await self.in_transaction(lambda connection: heartbeat(connection, job))
            except UNREACHABLE as exc:
                log.warning("A heartbeat of job %s did not reach its queue: %s", job.id, type(exc).__name__)
                pause = min(1.0, self.options.beat / 4)  # the lease allows for a miss
                continue
            if not is_ours and not handling.done():
                job.cancelled.set()
                handling.cancel()
                await asyncio.wait([handling])
                return

    async def end(self, job: ClaimedJob, error: BaseException | None) -> bool:
        """Complete a job or fail its attempt; False: it was not ours any more."""
        loop = asyncio.get_running_loop()
        stopped_at: list[float] = []

        def is_too_late(_: RetryCallState) -> bool:
            if self.is_stopping():
                stopped_at.append(loop.time())
            return bool(stopped_at) and loop.time() - stopped_at[0] > SECONDS_TO_SAY_SO

        calls = AsyncRetrying(**retries(), stop=is_too_late)
        is_ours: bool = await calls(self.in_transaction, lambda connection: say_end(connection, job, error))
        # an answer that was lost may have been yes
        return is_ours or calls.statistics.get("attempt_number", 1) > 1

    async def listen(self, channel: str) -> None:
        """Wake the worker when a job is announced; connects again when it is cut off."""
        while True:
            await AsyncRetrying(**retries())(self.listen_once, channel)

    async def listen_once(self, channel: str) -> None:
        async with self.ears.connect() as connection:
            driver: Any = (await connection.get_raw_connection()).driver_connection
            if not isinstance(driver, psycopg.AsyncConnection):
                log.warning("Only psycopg hears of new jobs: this worker finds them by its poll")
                await asyncio.Event().wait()
            try:
                await driver.rollback()
                await driver.set_autocommit(True)  # a LISTEN counts from its commit on
                await driver.execute(f"LISTEN {channel}".encode())
                self.wake.set()  # what was announced while nobody listened
                with suppress(psycopg.Error):
                    async for _ in driver.notifies():
                        self.wake.set()
            finally:
                await connection.invalidate()  # not back into the pool, listening
        await asyncio.sleep(SECONDS_TO_NOTICE)  # the connection was cut: not at once again


def _error_of(handling: asyncio.Task[None]) -> BaseException | None:
    """Return what a handler that has ended raised; being cancelled is an error like any other."""
    try:
        return handling.exception()
    except asyncio.CancelledError as exc:
        return exc


async def _wait_for(tasks: list[asyncio.Task[Any]], seconds: float | None) -> None:
    """Wait until tasks have ended, whatever became of them, and though this task is cancelled again."""
    pending = {task for task in tasks if not task.done()}
    if pending:
        with suppress(asyncio.CancelledError):
            await asyncio.wait(pending, timeout=seconds)
