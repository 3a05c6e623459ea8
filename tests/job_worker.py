"""A worker process for tests: claims batches, completes most jobs, fails some, and may hang to be killed.

``python job_worker.py URL NAME BATCH LEASE HANG_AFTER``: after that many batches (0: never) it does half of the
next one, prints "hanging", and sleeps. Each claim and each end that was still its own is written to a table, in the
same transaction. A payload's ``n`` divisible by 20 fails for good, one by 10 at its first attempt.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import psycopg

CLAIM = """
WITH claimed AS (SELECT id, attempts, payload FROM rag_jobs_claim(%s, '{embed}', %s, %s)),
logged AS (INSERT INTO claims SELECT id, attempts, %s FROM claimed)
SELECT * FROM claimed
"""
COMPLETE = "INSERT INTO ends SELECT id, 'completed' FROM rag_jobs_complete_many(%s, %s) AS id"
FAIL = """
INSERT INTO ends SELECT %s, status FROM rag_jobs_fail(%s, %s, 'boom', '0', %s) AS status WHERE status = 'failed'
"""


def main(url: str, name: str, batch: int, lease: str, hang_after: int) -> None:
    """Work until no job is unfinished."""
    with psycopg.connect(url, autocommit=True) as connection:
        batches = 0
        while True:
            jobs = connection.execute(CLAIM, (name, batch, lease, name)).fetchall()
            batches += bool(jobs)
            if hang_after and batches > hang_after:
                finish(connection, jobs[: batch // 2])
                sys.stdout.write("hanging\n")
                sys.stdout.flush()
                time.sleep(600)
            if jobs:
                finish(connection, jobs)
            elif is_done(connection):
                return
            else:
                time.sleep(0.1)


def finish(connection: psycopg.Connection[Any], jobs: list[Any]) -> None:
    """Fail what is to fail, and complete the rest at once."""
    good = []
    for job_id, attempt, payload in jobs:
        if payload["n"] % 20 == 0 or (payload["n"] % 10 == 0 and attempt == 1):
            connection.execute(FAIL, (job_id, job_id, attempt, payload["n"] % 20 == 0))
        else:
            good.append((job_id, attempt))
    if good:
        connection.execute(COMPLETE, ([job_id for job_id, _ in good], [attempt for _, attempt in good]))


def is_done(connection: psycopg.Connection[Any]) -> bool:
    """Whether no job is unfinished."""
    row = connection.execute("SELECT NOT EXISTS (SELECT FROM rag_jobs WHERE finished_at IS NULL)").fetchone()
    return bool(row and row[0])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4], int(sys.argv[5]))
