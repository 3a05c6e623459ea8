"""What a service does through psycopg in benchmarks/jobs.py: the functions of the schema, or a hand-written claim."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psycopg
from protocol import JOB_TYPE, Answer, Clock, payload, serve, wait_for_go
from psycopg.types.json import Jsonb

Request = dict[str, Any]
Connection = psycopg.Connection[psycopg.rows.TupleRow]
Step = Callable[[Connection, int], int]

NAIVE_CLAIM = """WITH next AS (
    SELECT id FROM rag_jobs WHERE status = 'new' ORDER BY created_at LIMIT %s FOR UPDATE SKIP LOCKED
) UPDATE rag_jobs SET status = 'processing', updated_at = now() FROM next WHERE rag_jobs.id = next.id
RETURNING rag_jobs.id, rag_jobs.payload"""
NAIVE_COMPLETE = "UPDATE rag_jobs SET status = 'completed', updated_at = now() WHERE id = ANY (%s)"
CLAIM = "SELECT id, attempts, payload FROM rag_jobs_claim('worker', %s, %s)"


def connect(request: Request) -> Connection:
    return psycopg.connect(request["dsn"], autocommit=True)


def step_by_hand(connection: Connection, batch: int) -> int:
    jobs = connection.execute(NAIVE_CLAIM, (batch,)).fetchall()
    if jobs:
        connection.execute(NAIVE_COMPLETE, ([job[0] for job in jobs],))
    return len(jobs)


def step_by_functions(connection: Connection, batch: int) -> int:
    jobs = connection.execute(CLAIM, ([JOB_TYPE], batch)).fetchall()
    if len(jobs) == 1:
        connection.execute("SELECT rag_jobs_complete(%s, %s)", jobs[0][:2])
    elif jobs:
        ids, attempts = [job[0] for job in jobs], [job[1] for job in jobs]
        connection.execute("SELECT rag_jobs_complete_many(%s, %s)", (ids, attempts))
    return len(jobs)


def claim(step: Step) -> Callable[[Request], Answer]:
    def run(request: Request) -> Answer:
        with connect(request) as connection:
            wait_for_go()
            clock = Clock(request)
            while clock.is_running:
                done = step(connection, request["batch"])
                clock.count(done)
                if not done:
                    time.sleep(0.001)
            return clock.answer()

    return run


def claim_through_session(request: Request) -> Answer:
    """Claim and complete through ``ragschema.jobs``, a transaction of a Session each."""
    import sqlalchemy as sa
    from sqlalchemy.orm import Session

    from ragschema import jobs

    engine = sa.create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(request["dsn"]))
    with engine.connect():
        wait_for_go()
    clock = Clock(request)
    while clock.is_running:
        with Session(engine) as session, session.begin():
            claimed = jobs.claim(session, "worker", [JOB_TYPE], limit=request["batch"])
        if claimed:
            with Session(engine) as session, session.begin():
                if len(claimed) == 1:
                    jobs.complete(session, claimed[0])
                else:
                    jobs.complete_many(session, claimed)
        clock.count(len(claimed))
    engine.dispose()
    return clock.answer()


def enqueue(request: Request) -> Answer:
    size, notify = request["size"], request.get("notify", True)
    with connect(request) as connection:
        wait_for_go()
        clock = Clock(request)
        while clock.is_running:
            if size == 1:
                connection.execute(
                    "SELECT rag_jobs_enqueue(%s, %s, notify => %s)", (JOB_TYPE, Jsonb(payload(1)), notify)
                )
            else:
                connection.execute(
                    "SELECT FROM rag_jobs_enqueue_many(%s, %s, notify => %s)",
                    ([JOB_TYPE] * size, [Jsonb(payload(number)) for number in range(size)], notify),
                )
            clock.count(size)
        return clock.answer()


def enqueue_by_hand(request: Request) -> Answer:
    size = request["size"]
    with connect(request) as connection:
        wait_for_go()
        clock = Clock(request)
        while clock.is_running:
            if size == 1:
                connection.execute(
                    "INSERT INTO rag_jobs (job_type, payload) VALUES (%s, %s)", (JOB_TYPE, Jsonb(payload(1)))
                )
            else:
                connection.execute(
                    "INSERT INTO rag_jobs (job_type, payload) SELECT * FROM unnest(%s::text[], %s::jsonb[])",
                    ([JOB_TYPE] * size, [Jsonb(payload(number)) for number in range(size)]),
                )
            clock.count(size)
        return clock.answer()


def heartbeat(request: Request) -> Answer:
    """Claim jobs that run for long, and prolong their leases, one at a time."""
    beats = 0
    with connect(request) as connection:
        jobs = connection.execute(CLAIM, (["long"], request["count"])).fetchall()
        wait_for_go()
        clock = Clock(request)
        while clock.is_running:
            for job, attempt, _ in jobs:
                progress = Jsonb({"page": beats, "cursor": str(job)})
                connection.execute(
                    "SELECT rag_jobs_heartbeat(%s, %s, progress => %s)", (job, attempt, progress)
                )
                beats += 1
                time.sleep(request["interval"])
    return clock.answer() | {"beats": beats, "held": len(jobs)}


def trickle(request: Request) -> Answer:
    """Enqueue a job from time to time."""
    with connect(request) as connection:
        wait_for_go()
        for number in range(request["count"]):
            connection.execute("SELECT rag_jobs_enqueue(%s, %s)", (JOB_TYPE, Jsonb(payload(number))))
            time.sleep(request["interval"])
    return {}


def listen(request: Request) -> Answer:
    """Claim whenever woken until so many jobs have started; return the seconds each waited."""
    waits: list[float] = []
    with connect(request) as connection:
        channel = connection.execute("SELECT rag_jobs_channel()").fetchall()[0][0]
        connection.execute(psycopg.sql.SQL("LISTEN {}").format(psycopg.sql.Identifier(channel)))
        wait_for_go()
        while len(waits) < request["count"]:
            jobs = connection.execute(CLAIM, ([JOB_TYPE], 1)).fetchall()
            if not jobs:
                list(connection.notifies(timeout=5, stop_after=1))
                continue
            waits.append(time.time() - jobs[0][2]["sent"])
            connection.execute("SELECT rag_jobs_complete(%s, %s)", jobs[0][:2])
    return {"waits": waits}


if __name__ == "__main__":
    serve(
        {
            "claim": claim(step_by_functions),
            "claim_by_hand": claim(step_by_hand),
            "claim_through_session": claim_through_session,
            "enqueue": enqueue,
            "enqueue_by_hand": enqueue_by_hand,
            "heartbeat": heartbeat,
            "trickle": trickle,
            "listen": listen,
        }
    )
