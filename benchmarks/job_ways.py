"""The queues that benchmarks/jobs.py compares: how each is installed, stocked with jobs, and driven.

Each has two databases, one where no job has finished and one that keeps many finished jobs. Jobs that wait are
put in by SQL, by the rules of each: its triggers run. Jobs that have finished are put in as each keeps them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from job_workers import Workers

from ragschema import migrations
from ragschema.database.settings import Database

BASE_COLUMNS = "20251225170000"
"""The revision before rag_jobs has more than its seven columns."""


@dataclass(frozen=True)
class Queue:
    """One queue: a schema, the environment of its client, and the SQL that fills it."""

    name: str
    key: str
    """Part of its databases' names."""
    environment: str
    tables: tuple[str, ...]
    waiting: str
    """Puts in %(jobs)s jobs that are due."""
    running: str
    """Puts in %(jobs)s jobs that run for long."""
    finished: str
    """Puts in %(jobs)s jobs that have finished, as this queue keeps them."""
    count_waiting: str
    churn_share: float = 1.0
    """How many of the jobs of the long run this queue gets: a slow one would take most of the time."""


HAND_WRITTEN = Queue(
    "hand-written claim",
    "by_hand",
    "ours",
    ("rag_jobs",),
    waiting="""INSERT INTO rag_jobs (job_type, payload, created_at)
        SELECT 'embed', jsonb_build_object('document', n, 'sent', 0), clock_timestamp()
        FROM generate_series(1, %(jobs)s) n""",
    running="""INSERT INTO rag_jobs (job_type, payload, status, created_at)
        SELECT 'embed', '{}', 'processing', now() - interval '1 hour' FROM generate_series(1, %(jobs)s) n""",
    finished="""INSERT INTO rag_jobs (job_type, payload, status, created_at)
        SELECT 'embed', jsonb_build_object('document', n, 'sent', 0), 'completed',
            now() - interval '1 day' + n * interval '10 ms'
        FROM generate_series(1, %(jobs)s) n""",
    count_waiting="SELECT count(*) FROM rag_jobs WHERE status = 'new'",
)
OURS = Queue(
    "ragschema",
    "ragschema",
    "ours",
    ("rag_jobs",),
    waiting="""INSERT INTO rag_jobs (job_type, payload, created_at, updated_at, run_at)
        SELECT 'embed', jsonb_build_object('document', n, 'sent', 0), t, t, t
        FROM generate_series(1, %(jobs)s) n CROSS JOIN LATERAL (SELECT clock_timestamp() AS t OFFSET n * 0) c""",
    running="""INSERT INTO rag_jobs
            (job_type, payload, status, attempts, worker, started_at, lease_expires_at, run_at)
        SELECT 'embed', '{}', 'processing', 1, 'long', now(), now() + interval '1 hour', now() - interval '1 hour'
        FROM generate_series(1, %(jobs)s) n""",
    finished="""INSERT INTO rag_jobs
            (job_type, payload, status, attempts, worker, started_at, finished_at, run_at, created_at, updated_at)
        SELECT 'embed', jsonb_build_object('document', n, 'sent', 0), 'completed', 1, 'worker', t, t, t, t, t
        FROM generate_series(1, %(jobs)s) n
        CROSS JOIN LATERAL (SELECT now() - interval '1 day' + n * interval '10 ms' AS t) c""",
    count_waiting="SELECT count(*) FROM rag_jobs WHERE status = 'new'",
)
PROCRASTINATE = Queue(
    "procrastinate",
    "procrastinate",
    "procrastinate",
    ("procrastinate_jobs", "procrastinate_events"),
    waiting="""INSERT INTO procrastinate_jobs (queue_name, task_name, args)
        SELECT 'default', 'embed', jsonb_build_object('document', n, 'sent', 0)
        FROM generate_series(1, %(jobs)s) n""",
    running="""INSERT INTO procrastinate_jobs (queue_name, task_name, status)
        SELECT 'default', 'embed', 'doing' FROM generate_series(1, %(jobs)s) n""",
    finished="""WITH job AS (
            INSERT INTO procrastinate_jobs (queue_name, task_name, args, status, attempts)
            SELECT 'default', 'embed', jsonb_build_object('document', n, 'sent', 0), 'succeeded', 1
            FROM generate_series(1, %(jobs)s) n RETURNING id
        ) INSERT INTO procrastinate_events (job_id, type)
        SELECT id, type FROM job
        CROSS JOIN unnest('{deferred,started,succeeded}'::procrastinate_job_event_type[]) type""",
    count_waiting="SELECT count(*) FROM procrastinate_jobs WHERE status = 'todo'",
    churn_share=0.2,
)
PGQUEUER = Queue(
    "pgqueuer",
    "pgqueuer",
    "pgqueuer",
    ("pgqueuer", "pgqueuer_log"),
    waiting="""WITH job AS (
            INSERT INTO pgqueuer (priority, entrypoint, payload, status)
            SELECT 0, 'embed', convert_to(format('{"document": %%s, "sent": 0}', n), 'UTF8'), 'queued'
            FROM generate_series(1, %(jobs)s) n RETURNING id
        ) INSERT INTO pgqueuer_log (job_id, status, entrypoint, priority) SELECT id, 'queued', 'embed', 0 FROM job""",
    running="""INSERT INTO pgqueuer (priority, entrypoint, status, queue_manager_id, heartbeat)
        SELECT 0, 'embed', 'picked', gen_random_uuid(), now() + interval '1 hour'
        FROM generate_series(1, %(jobs)s) n""",
    finished="""INSERT INTO pgqueuer_log (job_id, status, entrypoint, priority, aggregated)
        SELECT n, status, 'embed', 0, true FROM generate_series(1, %(jobs)s) n
        CROSS JOIN unnest('{queued,picked,successful}'::pgqueuer_status[]) status""",
    count_waiting="SELECT count(*) FROM pgqueuer WHERE status = 'queued'",
)
QUEUES = (HAND_WRITTEN, OURS, PROCRASTINATE, PGQUEUER)


@dataclass(frozen=True)
class Way:
    """One way to claim and complete: a command of the queue's client, and how many jobs it takes at a time."""

    name: str
    queue: Queue
    do: str
    batch: int
    enqueue: str = "enqueue"

    @property
    def stock(self) -> int:
        """How many jobs wait at the start, so that none of the workers runs dry in a second."""
        return 12_000 if self.batch == 1 else 45_000


NAIVE_1 = Way("hand-written claim, 1 at a time", HAND_WRITTEN, "claim_by_hand", 1, "enqueue_by_hand")
NAIVE_20 = Way("hand-written claim, 20 at a time", HAND_WRITTEN, "claim_by_hand", 20, "enqueue_by_hand")
OURS_1 = Way("ragschema, 1 at a time", OURS, "claim", 1)
OURS_10 = Way("ragschema, 10 at a time", OURS, "claim", 10)
OURS_20 = Way("ragschema, 20 at a time", OURS, "claim", 20)
SESSION_1 = Way("ragschema.jobs and Session, 1 at a time", OURS, "claim_through_session", 1)
SESSION_10 = Way("ragschema.jobs and Session, 10 at a time", OURS, "claim_through_session", 10)
PROCRASTINATE_CALLS = Way("procrastinate, fetch_job and finish_job", PROCRASTINATE, "claim", 1)
PROCRASTINATE_WORKER = Way("procrastinate, its worker", PROCRASTINATE, "work", 1)
PGQUEUER_CALLS = Way("pgqueuer, dequeue and log_jobs, 10 at a time", PGQUEUER, "claim", 10)
PGQUEUER_WORKER = Way("pgqueuer, its worker, 10 at a time", PGQUEUER, "work", 10)
WAYS = (
    NAIVE_1, OURS_1, SESSION_1, PROCRASTINATE_CALLS, PROCRASTINATE_WORKER,
    OURS_10, SESSION_10, PGQUEUER_CALLS, PGQUEUER_WORKER, NAIVE_20, OURS_20,
)  # fmt: skip
FINISHED_WAYS = (NAIVE_1, NAIVE_20, OURS_1, OURS_20, PROCRASTINATE_CALLS, PGQUEUER_CALLS)
LONG_WAYS = (NAIVE_1, OURS_1, OURS_20)


def is_measured(way: Way, state: str, workers: int) -> bool:
    """Whether a run measures this: what no target asks for, with 4 workers only."""
    if state == "empty":
        return workers == 4 or way not in (SESSION_1, SESSION_10)
    if state == "finished" and way in FINISHED_WAYS:
        return workers == 4 or (workers != 2 and way.queue in (HAND_WRITTEN, OURS))
    return state == "long" and way in LONG_WAYS and workers != 2


LATENCY_QUEUES = (OURS, PROCRASTINATE, PGQUEUER)

ENQUEUE_WAYS: list[tuple[str, Queue, dict[str, Any]]] = [
    (name, queue, request | {"size": size})
    for size in (1, 1_000)
    for name, queue, request in (
        ("INSERT by hand", HAND_WRITTEN, {"do": "enqueue_by_hand"}),
        ("ragschema", OURS, {"do": "enqueue"}),
        ("ragschema, notify => false", OURS, {"do": "enqueue", "notify": False}),
        ("procrastinate", PROCRASTINATE, {"do": "enqueue"}),
        ("pgqueuer", PGQUEUER, {"do": "enqueue"}),
    )
]


def churn_way(queue: Queue) -> Way:
    """Return the fastest way that one queue has, to put many jobs through it."""
    return next(way for way in reversed(WAYS) if way.queue == queue and way.do.startswith("claim"))


def install(queue: Queue, database: Database, workers: Workers) -> None:
    """Make a queue's schema, as its documentation says."""
    if queue == OURS:
        migrations.upgrade(database)
    elif queue == HAND_WRITTEN:
        migrations.upgrade(database, BASE_COLUMNS)
    else:
        workers.ask(queue.environment, database, {"do": "install"})
