"""Progress of a backfill: what the queue says of the jobs that fill a model."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import sql

from ragschema.database.connections import beside_parameters
from ragschema.database.server import Connection

JOB_TYPE = "rag_embed_chunks"
"""The type of the jobs that fill a model; their payload is ``{"model", "after", "until", "chunks"}``."""

# Of the completed, those since the oldest job that is unfinished or has failed: an earlier backfill tells little.
_READ = """
WITH jobs AS MATERIALIZED (
    SELECT j.status::text AS status, (j.payload ->> 'chunks')::bigint AS chunks, j.created_at, j.started_at,
        j.finished_at
    FROM {jobs} j WHERE j.job_type = %(type)s AND j.payload ->> 'model' = %(key)s
), done AS (
    SELECT * FROM jobs WHERE status = 'completed'
    AND created_at >= (SELECT min(created_at) FROM jobs WHERE status <> 'completed')
)
SELECT count(*) FILTER (WHERE status = 'new'), count(*) FILTER (WHERE status = 'processing'),
    count(*) FILTER (WHERE status = 'failed'), (SELECT count(*) FROM done),
    coalesce(sum(chunks) FILTER (WHERE status IN ('new', 'processing')), 0)::bigint,
    (SELECT sum(chunks) / nullif(extract(epoch FROM max(finished_at) - min(started_at)), 0) FROM done)::float8
FROM jobs
"""


@dataclass(frozen=True)
class Backfill:
    """The jobs that fill a model.

    Attributes:
        waiting: Jobs that no worker has yet.
        processing: Jobs that a worker does.
        failed: Jobs that were given up; a new backfill enqueues what they did not do.
        completed: Jobs done since the first of these was enqueued.
        chunks: In the jobs that are not done, when they were enqueued.
        seconds: Estimated to the end, at the rate so far; None where nothing is done yet.
    """

    waiting: int
    processing: int
    failed: int
    completed: int
    chunks: int
    seconds: float | None


def read_backfill(connection: Connection, schema: str, key: str) -> Backfill | None:
    """Return how far the jobs of a model are; None where all are done, or none was enqueued."""
    statement = sql.SQL(_READ).format(jobs=beside_parameters(schema, "rag_jobs"))
    row = connection.execute(statement, {"type": JOB_TYPE, "key": key}).fetchone()
    assert row is not None
    waiting, processing, failed, completed, chunks, rate = row
    if not waiting + processing + failed:
        return None
    return Backfill(waiting, processing, failed, completed, chunks, chunks / rate if rate else None)
