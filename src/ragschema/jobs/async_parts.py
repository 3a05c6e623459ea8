"""Tasks of the asyncio worker that no cancellation tears: transactions, the ear, and waiting for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, TypeVar

import psycopg
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from tenacity import AsyncRetrying, RetryCallState

from ragschema.jobs.worker_parts import SECONDS_TO_NOTICE, UNREACHABLE, log, retries

T = TypeVar("T")

_SECONDS_TO_CANCEL = 1.0
"""How long a task may take to end that was cancelled, before it is cancelled again."""


class Transactions:
    """Transactions of an engine, each a task that goes on to its end when who waits for it is cancelled.

    A connection whose statement is cancelled, or which comes back to a pool that is no more, may never be closed.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self.running: set[asyncio.Task[Any]] = set()

    async def run(self, call: Callable[[sa.Connection], T]) -> T:
        """Call a function with a connection, and commit."""
        task = asyncio.create_task(self._transact(call))
        self.running.add(task)
        task.add_done_callback(self._end)
        return await asyncio.shield(task)

    async def _transact(self, call: Callable[[sa.Connection], T]) -> T:
        async with self.engine.begin() as connection:
            return await connection.run_sync(call)

    def _end(self, task: asyncio.Task[Any]) -> None:
        self.running.discard(task)
        if not task.cancelled():
            task.exception()  # read, should nobody wait for it any more


async def settle(tasks: Iterable[asyncio.Task[Any]], seconds: float | None = None) -> bool:
    """Wait until tasks have ended, however often this one is cancelled; return whether it was.

    Args:
        tasks: What to wait for, whatever becomes of it.
        seconds: How long at most; None means until the end.
    """
    given = [*tasks]
    loop = asyncio.get_running_loop()
    deadline = None if seconds is None else loop.time() + seconds
    was_cancelled = False
    while pending := {task for task in given if not task.done()}:
        left = None if deadline is None else deadline - loop.time()
        if left is not None and left <= 0:
            break
        try:
            await asyncio.wait(pending, timeout=left)
        except asyncio.CancelledError:
            was_cancelled = True
    return was_cancelled


async def end(tasks: Iterable[asyncio.Task[Any]], seconds: float) -> bool:
    """Wait for tasks as `settle` does, then cancel those that are left and wait until they have ended.

    They are cancelled again and again: where what a driver waits for comes in the same moment, a cancellation is lost
    (`asyncio.wait_for` of Python 3.11, in which psycopg waits).
    """
    given = [*tasks]
    was_cancelled = await settle(given, seconds)
    while pending := [task for task in given if not task.done()]:
        for task in pending:
            task.cancel()
        was_cancelled |= await settle(pending, _SECONDS_TO_CANCEL)
    return was_cancelled


async def listen(
    engine: AsyncEngine, channel: str, hear: Callable[[str], None], has_ended: asyncio.Event
) -> None:
    """Listen until the event is set; connect again where the connection is cut.

    Args:
        engine: Whose connection listens.
        channel: A quoted name.
        hear: Called with the payload of each notification, and with "" when it begins to listen.
        has_ended: Set to stop.
    """

    def is_done(_: RetryCallState) -> bool:
        return has_ended.is_set()

    async def sleep(seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(has_ended.wait(), seconds)

    calls = AsyncRetrying(**retries(), stop=is_done, sleep=sleep)
    while not has_ended.is_set():
        with suppress(*UNREACHABLE):
            await calls(_listen_once, engine, channel, hear, has_ended)
            await sleep(SECONDS_TO_NOTICE)  # the connection was cut: not at once again


async def _listen_once(
    engine: AsyncEngine, channel: str, hear: Callable[[str], None], has_ended: asyncio.Event
) -> None:
    async with engine.connect() as connection:
        ending = asyncio.create_task(has_ended.wait())
        try:
            hearing = asyncio.create_task(_hear(connection, channel, hear))
            try:
                await asyncio.wait([hearing, ending], return_when=asyncio.FIRST_COMPLETED)
            finally:
                await end([hearing, ending], 0)
            if not hearing.cancelled():
                hearing.result()
        finally:
            await connection.invalidate()  # not back into the pool, listening


async def _hear(connection: AsyncConnection, channel: str, hear: Callable[[str], None]) -> None:
    driver: Any = (await connection.get_raw_connection()).driver_connection
    if not isinstance(driver, psycopg.AsyncConnection):
        log.warning("Only psycopg hears of new jobs: this worker finds them by its poll")
        await asyncio.Event().wait()
    await driver.rollback()
    await driver.set_autocommit(True)  # a LISTEN counts from its commit on
    await driver.execute(f"LISTEN {channel}".encode())
    hear("")  # what was announced while nobody listened
    with suppress(psycopg.Error):
        async for notification in driver.notifies():
            hear(notification.payload)
