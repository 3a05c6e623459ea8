"""Jobs of a source, such as those that are to embed what it has no embeddings of."""

from __future__ import annotations

import sqlalchemy as sa

from ragschema.importing.sources import Source, answered
from ragschema.jobs.queue import enqueue_many
from ragschema.jobs.records import NewJob


def read_jobs(source: Source) -> list[NewJob]:
    """Return the jobs of a source, each with a key that is its own for ever."""
    if source.jobs is None:
        return []
    with answered(source.name):
        rows = source.connection.execute(source.jobs).fetchall()
    return [
        NewJob(job_type=job_type, payload=payload, dedupe_key=f"{source.name} {key}")
        for key, job_type, payload in rows
    ]


def enqueue(connection: sa.Connection, source: Source) -> int:
    """Enqueue the jobs of a source that no run has enqueued before; return how many."""
    jobs = read_jobs(source)
    if not jobs:
        return 0
    with connection.begin():
        known = {
            *connection.scalars(
                sa.text("SELECT dedupe_key FROM rag_jobs WHERE dedupe_key = ANY(CAST(:keys AS text[]))"),
                {"keys": [job.dedupe_key for job in jobs]},
            )
        }
        new = [job for job in jobs if job.dedupe_key not in known]
        enqueue_many(connection, new)
    return len(new)
