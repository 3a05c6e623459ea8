"""procrastinate's part of benchmarks/jobs.py, run by the Python of an environment that has it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import procrastinate
from procrastinate.jobs import Status
from protocol import Answer, Clock, payload, serve, wait_for_go

Request = dict[str, Any]


def make_app(request: Request, on_start: Callable[[float], None]) -> tuple[procrastinate.App, Any]:
    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=request["dsn"]))

    @app.task(queue="default", name="embed")
    async def embed(document: int, sent: float) -> None:
        on_start(sent)

    return app, embed


async def install(request: Request) -> Answer:
    app, _ = make_app(request, lambda sent: None)
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
    return {}


async def claim(request: Request) -> Answer:
    """Fetch and finish jobs by the calls that the worker makes, one at a time."""
    app, _ = make_app(request, lambda sent: None)
    async with app.open_async():
        manager = app.job_manager
        worker = await manager.register_worker()
        wait_for_go()
        clock = Clock(request)
        while clock.is_running:
            job = await manager.fetch_job(queues=None, worker_id=worker)
            if job is None:
                clock.count(0)
                await asyncio.sleep(0.001)
                continue
            await manager.finish_job(job=job, status=Status.SUCCEEDED, delete_job=False)
            clock.count(1)
        await manager.unregister_worker(worker)
        return clock.answer()


async def work(request: Request) -> Answer:
    """Run the worker with its defaults."""
    clock: Clock
    app, _ = make_app(request, lambda sent: clock.count(1))
    async with app.open_async():
        wait_for_go()
        clock = Clock(request)
        worker = asyncio.create_task(app.run_worker_async(install_signal_handlers=False))
        await asyncio.sleep(clock.end - time.monotonic())
        answer = clock.answer()
        await stop(worker)
        return answer | {"jobs": clock.total}


async def stop(worker: asyncio.Task[None]) -> None:
    worker.cancel()
    await asyncio.gather(worker, return_exceptions=True)


async def enqueue(request: Request) -> Answer:
    app, embed = make_app(request, lambda sent: None)
    async with app.open_async():
        wait_for_go()
        clock = Clock(request)
        while clock.is_running:
            if request["size"] == 1:
                await embed.defer_async(**payload(1))
            else:
                await embed.batch_defer_async(*(payload(number) for number in range(request["size"])))
            clock.count(request["size"])
        return clock.answer()


async def trickle(request: Request) -> Answer:
    """Enqueue a job from time to time."""
    app, embed = make_app(request, lambda sent: None)
    async with app.open_async():
        wait_for_go()
        for number in range(request["count"]):
            await embed.defer_async(**payload(number))
            await asyncio.sleep(request["interval"])
    return {}


async def listen(request: Request) -> Answer:
    """Run the worker until it has started so many jobs; return the seconds each waited."""
    waits: list[float] = []
    done = asyncio.Event()

    def on_start(sent: float) -> None:
        waits.append(time.time() - sent)
        if len(waits) == request["count"]:
            done.set()

    app, _ = make_app(request, on_start)
    async with app.open_async():
        worker = asyncio.create_task(app.run_worker_async(install_signal_handlers=False))
        await asyncio.sleep(0.5)  # until it listens
        wait_for_go()
        await asyncio.wait_for(done.wait(), 60)
        await stop(worker)
    return {"waits": waits}


def run(command: Callable[[Request], Awaitable[Answer]]) -> Callable[[Request], Answer]:
    return lambda request: asyncio.run(command(request))  # type: ignore[arg-type]


if __name__ == "__main__":
    logging.getLogger("procrastinate").setLevel(logging.ERROR)  # it warns of an app made in the main module
    serve({each.__name__: run(each) for each in (install, claim, work, enqueue, trickle, listen)})
