"""A worker in one event loop: claims jobs, does them in tasks, and keeps their leases meanwhile."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine
from tenacity import AsyncRetrying, RetryCallState

from ragschema.jobs.agenda import Agenda
from ragschema.jobs.async_parts import Transactions, end, listen, settle
from ragschema.jobs.handlers import AsyncHandler, check_result, not_awaitable
from ragschema.jobs.queue import LEASE, claim, give_back
from ragschema.jobs.records import ClaimedJob
from ragschema.jobs.worker_parts import (
    CHANNEL,
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
    check_engine(engine, stopping, is_async=True)
    options = read_options(
        handlers, worker=worker, lease=lease, poll=poll, concurrency=concurrency, is_async=True
    )
    own, ears = (AsyncEngine(own_engine(engine.sync_engine)) for _ in range(2))
    state = _Worker(
        Transactions(own), ears, handlers, options, Agenda(poll.total_seconds()), stopping or asyncio.Event()
    )
    try:
        if stopping is not None:
            await state.run()
            return
        with calling_at_sigterm(state.stop_soon(), is_required=False):
            await state.run()
    finally:
        closing = [asyncio.create_task(each.dispose()) for each in (own, ears)]
        if await settle(closing):
            raise asyncio.CancelledError
        for each in closing:
            each.result()


@dataclass
class _Worker:
    transactions: Transactions
    ears: AsyncEngine  # of the connection that listens: a pool of one leaves another for the rest
    handlers: Mapping[str, AsyncHandler]
    options: Options
    agenda: Agenda
    stopping: asyncio.Event
    has_ended: asyncio.Event = field(default_factory=asyncio.Event)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    running: set[asyncio.Task[None]] = field(default_factory=set)

    def stop_soon(self) -> Callable[[], object]:
        """Return what a signal handler calls to stop this worker."""
        loop = asyncio.get_running_loop()
        return lambda: loop.call_soon_threadsafe(self.stopping.set)

    async def run(self) -> None:
        helpers: list[asyncio.Task[None]] = []
        waking = asyncio.create_task(self.wake_to_stop())
        # tasks that are not cancelled half way: what they have claimed by then would have nobody at it
        beginning = asyncio.create_task(self.begin())
        taking: asyncio.Task[bool] | None = None
        was_cancelled = False
        try:
            channel, has_claimed = await asyncio.shield(beginning)
            helpers.append(asyncio.create_task(listen(self.ears, channel, self.hear, self.has_ended)))
            while not self.stopping.is_set():
                if not has_claimed or self.is_full():
                    await self.wait()
                taking = asyncio.create_task(self.take())
                has_claimed = await asyncio.shield(taking)
            while self.running:
                await asyncio.wait(self.running)
        finally:
            self.has_ended.set()
            waking.cancel()
            last: asyncio.Task[Any] = taking or beginning
            was_cancelled |= await end([last], SECONDS_TO_SAY_SO)
            if not last.cancelled():
                last.exception()  # read, where nobody waits for it any more
            was_cancelled |= await settle(
                [asyncio.create_task(asyncio.sleep(0))]
            )  # those it started have begun
            for task in self.running:
                task.cancel()
            was_cancelled |= await settle([waking, *self.running])
            was_cancelled |= await end([*helpers, *self.transactions.running], SECONDS_TO_SAY_SO)
            if was_cancelled:
                raise asyncio.CancelledError

    async def begin(self) -> tuple[str, bool]:
        """Return the channel, and whether jobs were claimed and started; errors of it are the caller's."""

        def look(connection: sa.Connection) -> tuple[str, list[ClaimedJob]]:
            return connection.execute(CHANNEL).scalar_one(), self.claim(connection)

        channel, claimed = await self.transactions.run(look)
        self.start(claimed)
        return channel, bool(claimed)

    def is_full(self) -> bool:
        return len(self.running) >= self.options.concurrency

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
        """Look at the schedules when it is time; claim as many jobs as may run, however long it takes, and start them.

        Returns:
            Whether there were any.
        """
        if self.agenda.seconds_left <= 0 and not self.is_stopping():
            await self.look()
        if self.is_stopping() or self.is_full():
            return False
        calls = AsyncRetrying(**retries(), stop=self.is_stopping, sleep=self.sleep)
        with suppress(*UNREACHABLE):
            claimed: list[ClaimedJob] = await calls(self.transactions.run, self.claim)
            self.start(claimed)
            return bool(claimed)
        return False

    async def look(self) -> None:
        self.agenda.begin()
        try:
            (await self.transactions.run(self.agenda.look))()
        except Exception as exc:
            self.agenda.fail(exc)

    def is_stopping(self, _: RetryCallState | None = None) -> bool:
        return self.has_ended.is_set() or self.stopping.is_set()

    async def sleep(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self.stopping.wait(), seconds)

    async def wait(self) -> None:
        """Wait until a job may be claimed: one is announced, a task has ended, or it is time to look."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.options.poll.total_seconds()
        with suppress(TimeoutError):
            while not self.stopping.is_set():
                left = min(deadline - loop.time(), self.agenda.seconds_left)
                if left <= 0:
                    return
                async with asyncio.timeout(left):
                    await self.wake.wait()
                self.wake.clear()
                if not self.is_full():
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
            # however long it takes to end: its job is nobody else's meanwhile
            keeping = asyncio.create_task(self.keep_lease(job, handling))
            await settle([handling, keeping])
            if not keeping.cancelled() and keeping.exception() is not None:
                log.error("The lease of job %s could not be kept", job.id, exc_info=keeping.exception())
            await end([asyncio.create_task(self.let_go(job, _error_of(handling)))], SECONDS_TO_SAY_SO)
            raise

    async def let_go(self, job: ClaimedJob, error: BaseException | None) -> None:
        """Give a job back whose handler was cancelled, or say how it has ended; once, for this worker ends."""

        def say(connection: sa.Connection) -> bool:
            if isinstance(error, asyncio.CancelledError):
                return give_back(connection, job)
            return say_end(connection, job, error)

        try:
            await self.transactions.run(say)
        except UNREACHABLE as exc:
            log.error("The end of job %s was not stored, so its lease hands it on: %s", job.id, exc)

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
                is_ours = await self.transactions.run(lambda connection: beat(connection, job))
            except UNREACHABLE as exc:
                log.warning("A heartbeat of job %s did not reach its queue: %s", job.id, type(exc).__name__)
                is_ours = None
            if is_ours is None:
                pause = self.options.soon
            elif not is_ours and not handling.done():
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
        is_ours: bool = await calls(self.transactions.run, lambda connection: say_end(connection, job, error))
        # an answer that was lost may have been yes
        return is_ours or calls.statistics.get("attempt_number", 1) > 1

    def hear(self, payload: str) -> None:
        self.agenda.hear(payload)
        self.wake.set()


def _error_of(handling: asyncio.Task[None]) -> BaseException | None:
    """Return what a handler that has ended raised; being cancelled is an error like any other."""
    try:
        return handling.exception()
    except asyncio.CancelledError as exc:
        return exc
