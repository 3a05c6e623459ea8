"""A worker in one process: claims jobs, does them, and keeps their leases meanwhile."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from datetime import timedelta
from time import monotonic
from typing import Any

import psycopg
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from ragschema.jobs.queue import LEASE, ClaimedJob, claim, complete, fail, heartbeat

log = logging.getLogger(__name__)

_SECONDS_TO_SIGNAL = 0.2


def work(
    engine: Engine,
    handlers: Mapping[str, Callable[[ClaimedJob], object]],
    *,
    worker: str = "",
    lease: timedelta = LEASE,
    poll: timedelta = timedelta(seconds=10),
    stopping: threading.Event | None = None,
) -> None:
    """Claim jobs one at a time and do them, until SIGTERM; then end the one that runs, and return.

    A handler runs in a thread of its own while this one sends heartbeats. What it raises fails the attempt, and
    the job is tried again later; its return completes the job. A database that is lost ends this with the
    driver's error: the service's supervisor starts it again, and the lease hands the job on.

    Args:
        engine: Two connections of it are used at a time.
        handlers: What does the jobs of each type.
        worker: Who claims, for those who look; host and process by default.
        lease: How long a worker that is dead keeps its job; heartbeats come three times as often.
        poll: How often to look for jobs that nobody announces: retries, and jobs for later.
        stopping: Set by the caller to stop; by default SIGTERM does it, and this must be the main thread.
    """
    engine = engine.execution_options(isolation_level="AUTOCOMMIT")
    worker = worker or f"{socket.gethostname()} {os.getpid()}"
    stopping = stopping or _set_on_sigterm()
    with ThreadPoolExecutor(1) as thread, _listening(engine) as ears:
        while not stopping.is_set():
            with engine.connect() as connection:
                claimed = claim(connection, worker, handlers, lease=lease)
            for job in claimed:
                done = thread.submit(handlers[job.job_type], job)
                while wait([done], timeout=lease.total_seconds() / 3).not_done:
                    with suppress(DBAPIError), engine.connect() as connection:  # the lease allows for a miss
                        heartbeat(connection, job)
                with engine.connect() as connection:
                    if (error := done.exception()) is not None:
                        log.warning("Attempt %s of job %s failed", job.attempt, job.id, exc_info=error)
                        is_ours = fail(connection, job, error) is not None
                    else:
                        is_ours = complete(connection, job)
                if not is_ours:
                    log.warning("Job %s was cancelled, or its lease ran out", job.id)
            if not claimed:
                _wait_for_notification(ears, stopping, poll.total_seconds())


def _set_on_sigterm() -> threading.Event:
    event = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: event.set())
    return event


@contextmanager
def _listening(engine: Engine) -> Iterator[psycopg.Connection[Any]]:
    """Yield a connection that is told of new jobs, and closed afterwards."""
    with engine.connect() as connection:
        connection.detach()
        channel = connection.execute(text("SELECT quote_ident(rag_jobs_channel())")).scalar_one()
        connection.exec_driver_sql(f"LISTEN {channel}")
        driver = connection.connection.dbapi_connection  # driver_connection is None once detached
        assert isinstance(driver, psycopg.Connection)
        yield driver


def _wait_for_notification(ears: psycopg.Connection[Any], stopping: threading.Event, seconds: float) -> None:
    deadline = monotonic() + seconds
    while not stopping.is_set() and (left := deadline - monotonic()) > 0:
        # in steps, because psycopg goes on waiting after a signal
        if list(ears.notifies(timeout=min(left, _SECONDS_TO_SIGNAL), stop_after=1)):
            return
