"""Citus beside plain PostgreSQL: searches, publishes and jobs of one tenant, in the same run, taken in turn.

    uv run python benchmarks/citus.py PLAIN_URL COORDINATOR_URL NODE_URL --schema NAME [--documents 100 1000 10000]

Each URL reaches a schema of that name at head: on plain PostgreSQL, through the coordinator, and on the tenant's own
node. The rows of the tenant are the same for the last two. Documents of ten chunks are loaded until there are so many,
and searches measured at each number; writes and jobs at the last. A search ends with a commit, so that psycopg keeps
its statement prepared. Prints the p50 of each in ms, and ratios to the first.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median
from uuid import uuid4

import numpy as np
import sqlalchemy as sa
from sqlalchemy.orm import Session

from ragschema import (
    BulkDocument,
    Document,
    create_engine,
    jobs,
    nearest_chunks,
    plan_version,
    publish,
    publish_many,
)

CHUNKS, ROUNDS, BATCH = 10, 100, 500
_random = np.random.default_rng()


def vectors(
    count: int, random: np.random.Generator = _random
) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Return random embeddings of shape ``(count, 768)``."""
    return random.standard_normal((count, 768), dtype=np.float32)


def load(engine: sa.Engine, documents: int) -> None:
    """Fill a schema until it has so many documents; the same ones, whichever schema it is and whenever it is filled."""
    with engine.connect() as connection:
        there = connection.scalar(sa.select(sa.func.count()).select_from(Document)) or 0
        connection.rollback()
        for first in range(there, documents, BATCH):
            batch = [
                BulkDocument(
                    f"{uuid4()}",
                    [f"text {n} of {d}" for n in range(CHUNKS)],
                    vectors(CHUNKS, np.random.default_rng(d)),
                    "h",
                    "c",
                    "e",
                )
                for d in range(first, min(first + BATCH, documents))
            ]
            publish_many(connection, batch)
    with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(sa.text("ANALYZE"))


def search(session: Session) -> None:
    session.execute(nearest_chunks(vectors(1)[0], limit=10)).all()
    session.commit()


def write(session: Session) -> None:
    """Publish a document of ten chunks, then a version of it with two new ones."""
    article, texts = f"{uuid4()}", [f"{uuid4()}" for _ in range(CHUNKS)]
    for turn in range(2):
        texts = [*texts[:-2], f"{uuid4()}", f"{uuid4()}"]
        plan = plan_version(
            session, article, texts, source_hash=f"{turn}", chunker_version="c", embedder_version="e"
        )
        session.rollback()
        publish(session, plan, vectors(len(plan.texts_to_embed)))
        session.commit()


def work(session: Session) -> None:
    """Enqueue, claim and complete a job, each in a transaction of its own."""
    jobs.enqueue(session, "bench", {"a": 1})
    session.commit()
    (job,) = jobs.claim(session, "w", ["bench"])
    session.commit()
    assert jobs.complete(session, job)
    session.commit()


def work_keyed(session: Session) -> None:
    jobs.enqueue(session, "keyed", {"a": 1}, dedupe_key="k")
    session.commit()
    (job,) = jobs.claim(session, "w", ["keyed"])
    session.commit()
    assert jobs.complete(session, job)
    session.commit()


def measure(sessions: dict[str, Session], what: Callable[[Session], None], rounds: int) -> dict[str, float]:
    """Return the median of each in ms, their turns taken one after the other."""
    took: dict[str, list[float]] = {name: [] for name in sessions}
    for turn in range(rounds + 10):
        for name, session in sessions.items():
            began = time.perf_counter()
            what(session)
            if turn >= 10:
                took[name].append(1000 * (time.perf_counter() - began))
    return {name: median(times) for name, times in took.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("urls", nargs=3, metavar="URL")
    parser.add_argument("--schema", required=True)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--documents", type=int, nargs="+", default=[100])
    given = parser.parse_args()
    engines = {
        name: create_engine(url, schema=given.schema)
        for name, url in zip(("plain", "coordinator", "node"), given.urls, strict=True)
    }
    sessions = {name: Session(engine) for name, engine in engines.items()}

    def show(title: str, what: Callable[[Session], None]) -> None:
        found = measure(sessions, what, given.rounds)
        ratios = ", ".join(f"{name} {ms:.2f} ms ({ms / found['plain']:.2f})" for name, ms in found.items())
        print(f"{title}: {ratios}", flush=True)

    for documents in sorted(given.documents):
        load(engines["plain"], documents)
        load(engines["coordinator"], documents)
        show(f"search among {documents * CHUNKS:,} chunks", search)
    for what in (write, work, work_keyed):
        show(what.__name__, what)


if __name__ == "__main__":
    main()
