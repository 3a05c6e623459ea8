"""pgqueuer's part of benchmarks/jobs.py, run by the Python of an environment that has it and asyncpg."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import uvloop
from pgqueuer import PgQueuer
from pgqueuer.models import Job
from pgqueuer.ports.repository import EntrypointExecutionParameter
from pgqueuer.queries import Queries
from protocol import JOB_TYPE, Answer, Clock, payload, serve, wait_for_go

Request = dict[str, Any]


def connect(request: Request) -> Awaitable[asyncpg.Connection]:
    return asyncpg.connect(**request["keywords"])


def packed(number: int) -> bytes:
    return json.dumps(payload(number)).encode()


async def install(request: Request) -> Answer:
    queries = Queries.from_asyncpg_connection(await connect(request))
    await queries.install()
    await queries.optimize_autovacuum()
    await queries.driver.execute("SELECT 1")
    return {}


async def claim(request: Request) -> Answer:
    """Dequeue and complete jobs by the calls that the queue manager makes, a batch at a time."""
    connection = await connect(request)
    queries = Queries.from_asyncpg_connection(connection)
    entrypoints: Any = {JOB_TYPE: EntrypointExecutionParameter(concurrency_limit=0)}
    manager: Any = uuid4()
    wait_for_go()
    clock = Clock(request)
    while clock.is_running:
        jobs = await queries.dequeue(
            batch_size=request["batch"],
            entrypoints=entrypoints,
            queue_manager_id=manager,
            global_concurrency_limit=None,
            heartbeat_timeout=timedelta(seconds=30),
        )
        if not jobs:
            clock.count(0)
            await asyncio.sleep(0.001)
            continue
        await queries.log_jobs([(job, "successful", None) for job in jobs])
        clock.count(len(jobs))
    answer = clock.answer()
    await connection.close()
    return answer


def make_app(connection: asyncpg.Connection, on_start: Callable[[Job], None]) -> PgQueuer:
    app = PgQueuer.from_asyncpg_connection(connection)

    @app.entrypoint(JOB_TYPE)
    async def embed(job: Job) -> None:
        on_start(job)

    return app


async def stop(app: PgQueuer, worker: asyncio.Task[None]) -> None:
    app.shutdown.set()
    await worker


async def work(request: Request) -> Answer:
    """Run the worker with its default batch of ten."""
    clock: Clock
    connection = await connect(request)
    app = make_app(connection, lambda job: clock.count(1))
    wait_for_go()
    clock = Clock(request)
    worker = asyncio.create_task(app.run(batch_size=request["batch"]))
    await asyncio.sleep(clock.end - time.monotonic())
    answer = clock.answer()
    await stop(app, worker)
    await connection.close()
    return answer | {"jobs": clock.total}


async def enqueue(request: Request) -> Answer:
    connection = await connect(request)
    queries = Queries.from_asyncpg_connection(connection)
    size = request["size"]
    wait_for_go()
    clock = Clock(request)
    while clock.is_running:
        if size == 1:
            await queries.enqueue(JOB_TYPE, packed(1))
        else:
            await queries.enqueue([JOB_TYPE] * size, [packed(number) for number in range(size)], [0] * size)
        clock.count(size)
    answer = clock.answer()
    await connection.close()
    return answer


async def trickle(request: Request) -> Answer:
    """Enqueue a job from time to time."""
    connection = await connect(request)
    queries = Queries.from_asyncpg_connection(connection)
    wait_for_go()
    for number in range(request["count"]):
        await queries.enqueue(JOB_TYPE, packed(number))
        await asyncio.sleep(request["interval"])
    await connection.close()
    return {}


async def listen(request: Request) -> Answer:
    """Run the worker until it has started so many jobs; return the seconds each waited."""
    waits: list[float] = []
    done = asyncio.Event()

    def on_start(job: Job) -> None:
        waits.append(time.time() - json.loads(job.payload or b"")["sent"])
        if len(waits) == request["count"]:
            done.set()

    connection = await connect(request)
    app = make_app(connection, on_start)
    worker = asyncio.create_task(app.run())
    await asyncio.sleep(0.5)  # until it listens
    wait_for_go()
    await asyncio.wait_for(done.wait(), 60)
    await stop(app, worker)
    await connection.close()
    return {"waits": waits}


def run(command: Callable[[Request], Awaitable[Answer]]) -> Callable[[Request], Answer]:
    return lambda request: uvloop.run(command(request))  # type: ignore[arg-type]  # as its own command line does


if __name__ == "__main__":
    serve({each.__name__: run(each) for each in (install, claim, work, enqueue, trickle, listen)})
