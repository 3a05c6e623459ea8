"""Backfills of embedding models: batches of chunks as jobs."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from uuid import UUID

from psycopg import sql

from ragschema.database.connections import beside_parameters
from ragschema.database.drivers import engine_on
from ragschema.database.server import Connection
from ragschema.embedding_models.backfill_status import JOB_TYPE
from ragschema.embedding_models.indexes import retired
from ragschema.embedding_models.registry import looking, require_model
from ragschema.embedding_models.statuses import ModelStatus, read_status
from ragschema.errors import UsageError
from ragschema.jobs.queue import enqueue_many
from ragschema.jobs.records import NewJob
from ragschema.migrations.deployer_lock import deployer_lock_key
from ragschema.migrations.request import DatabaseArgument
from ragschema.state.partitions import RegisteredModel

log = logging.getLogger(__name__)

BATCH = 1_000  # chunks of a job
_JOBS_A_STATEMENT = 5_000

# What unfinished jobs will do is left out: of (after, until] each end is a point beside the chunks in the order of ids,
# and a chunk is free where as many ranges have ended before it as have begun. No range of ours holds one of theirs.
_RANGES = """
WITH covered AS (
    SELECT (payload ->> 'after')::uuid AS after, (payload ->> 'until')::uuid AS until FROM {jobs}
    WHERE job_type = %(type)s AND status IN ('new', 'processing') AND payload ->> 'model' = %(key)s
), points AS (
    SELECT c.id, 0 AS step FROM {chunks} c WHERE {waits}
    UNION ALL SELECT coalesce(after, '00000000-0000-0000-0000-000000000000'), 1 FROM covered
    UNION ALL SELECT until, -1 FROM covered WHERE until IS NOT NULL
), walked AS (
    SELECT id, step, sum(step) OVER w AS open, count(*) FILTER (WHERE step <> 0) OVER w AS gap FROM points
    WINDOW w AS (ORDER BY id, step = 0 DESC ROWS UNBOUNDED PRECEDING)
), placed AS (
    SELECT id, gap, (row_number() OVER (PARTITION BY gap ORDER BY id) - 1) / %(batch)s AS place
    FROM walked WHERE step = 0 AND open = 0
)
SELECT min(id::text COLLATE "C")::uuid, max(id::text COLLATE "C")::uuid, count(*)
FROM placed GROUP BY gap, place ORDER BY 1
"""
_WAITS_COLUMN = "c.is_current AND c.embedding IS NULL AND c.embedding_error IS NULL"
_WAITS_PARTITION = "c.is_current AND NOT EXISTS (SELECT FROM {table} e WHERE e.chunk_id = c.id)"


@dataclass(frozen=True)
class EnqueuedBackfill:
    """What a call of `enqueue_backfill` has enqueued.

    Attributes:
        key: The model.
        jobs: How many jobs were enqueued now.
        chunks: How many chunks they are to embed.
    """

    key: str
    jobs: int
    chunks: int


def enqueue_backfill(
    database: DatabaseArgument,
    key: str,
    *,
    batch: int = BATCH,
    priority: int = 0,
    schema: str | None = None,
) -> EnqueuedBackfill:
    """Enqueue jobs for the current chunks that wait for an embedding of a model; those of unfinished jobs are left out.

    A worker of the service does them with `backfill_batch` or `backfill_batch_async` as the handler of `JOB_TYPE`. Run
    again it enqueues what has come since, and what jobs that were given up have left.

    Args:
        database: A database, its URL, an engine, a connection or `Options`; the settings decide where it is None.
        key: The model.
        batch: Chunks of a job at most.
        priority: Of the jobs; the lowest number runs first.
        schema: The schema of the tables; the first of the search_path by default.

    Raises:
        UnknownModel: There is none of this key.
        ModelRefused: It is retired.
    """
    if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
        raise UsageError(f"batch is {batch!r}.", "Pass a number of chunks, 1 or more.")
    with looking(database, schema) as at:
        model = require_model(at.connection, at.schemas.target, key)
        if not model.is_live:
            raise retired(key)
        at.connection.autocommit = False
        try:
            with engine_on(at.connection).begin() as connection:
                ranges = _find_ranges(at.connection, at.schemas.target, model, batch)
                jobs = [_job(key, first, last, count, priority) for first, last, count in ranges]
                for start in range(0, len(jobs), _JOBS_A_STATEMENT):
                    enqueue_many(connection, jobs[start : start + _JOBS_A_STATEMENT])
        finally:
            if not at.connection.closed:
                at.connection.rollback()
                at.connection.autocommit = True
        return EnqueuedBackfill(key, len(jobs), sum(count for _, _, count in ranges))


def backfill_status(database: DatabaseArgument, key: str, *, schema: str | None = None) -> ModelStatus:
    """Return how far a model's embeddings are, and the jobs that fill it; reads only.

    Raises:
        UnknownModel: There is none of this key.
    """
    with looking(database, schema) as at:
        model = require_model(at.connection, at.schemas.target, key)
        return read_status(at.connection, at.schemas.target, model)


def _find_ranges(
    connection: Connection, schema: str, model: RegisteredModel, batch: int
) -> list[tuple[UUID, UUID, int]]:
    """Return the first id, the last and the number of the waiting chunks of each job to be; one caller at a time."""
    lock = (deployer_lock_key(f"{schema} backfill {model.id}"),)
    connection.execute("SELECT pg_advisory_xact_lock(%s)", lock)
    waits = sql.SQL(_WAITS_COLUMN if model.is_column else _WAITS_PARTITION)
    statement = sql.SQL(_RANGES).format(
        jobs=beside_parameters(schema, "rag_jobs"),
        chunks=beside_parameters(schema, "rag_chunks"),
        waits=waits.format(table=beside_parameters(schema, model.table)),
    )
    parameters = {"type": JOB_TYPE, "key": model.key, "batch": batch}
    return connection.execute(statement, parameters).fetchall()


def _job(key: str, first: UUID, last: UUID, count: int, priority: int) -> NewJob:
    after = str(UUID(int=first.int - 1)) if first.int else None
    return NewJob(
        job_type=JOB_TYPE,
        payload={"model": key, "after": after, "until": str(last), "chunks": count},
        priority=priority,
        dedupe_key=f"{key} {after} {last}",
    )
