"""A worker process for the test that changes models: ``python model_worker.py URL HANG`` does jobs of backfills.

Each text that its model has embedded is written to the table ``embedded``. With HANG 1 it prints "hanging" in the
middle of its first page, and sleeps, to be killed.
"""

from __future__ import annotations

import sys
import time
from datetime import timedelta

from sqlalchemy.orm import sessionmaker

from ragschema import ClaimedJob, create_engine, work
from ragschema.embedding_models import JOB_TYPE, backfill_batch
from test_change_model import embedder


def main(url: str, *, hangs: bool) -> None:
    engine = create_engine(url)
    embed = embedder(engine, "new", 1024)

    def hang(texts: list[str]) -> None:
        sys.stdout.write("hanging\n")
        sys.stdout.flush()
        time.sleep(600)

    def handle(job: ClaimedJob) -> None:
        backfill_batch(sessionmaker(engine), job, hang if hangs else embed, page=8)  # type: ignore[arg-type]

    work(engine, {JOB_TYPE: handle}, lease=timedelta(seconds=1), poll=timedelta(seconds=0.2))


if __name__ == "__main__":
    main(sys.argv[1], hangs=sys.argv[2] == "1")
