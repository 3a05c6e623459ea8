"""The watch of a migration from a second connection: who blocks it, and how far an index build is.

It only looks. It never cancels or ends another session.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import psycopg

from ragschema.database.connecting import apply_settings, connect
from ragschema.database.connections import Opened
from ragschema.database.options import Options
from ragschema.database.secrets import without_secrets
from ragschema.database.server import Connection
from ragschema.errors import RagSchemaError

log = logging.getLogger(__name__)

_SAMPLE_EVERY = 0.5  # seconds; oftener where lock_timeout is short
_SAMPLE_AT_MOST_EVERY = 0.05
_REPEAT_BLOCKER_AFTER = 10.0  # seconds
_REPORT_BUILD_EVERY = 30.0  # seconds, where no terminal shows a bar
_LEAVES_AFTER = (
    2.0  # seconds; a pooler of one connection answers the watch when the migration has closed its own
)
_QUERY_LENGTH = 80

_BLOCKERS = """
SELECT blocker, coalesce(a.application_name, ''),
       CASE WHEN blocker = 0 THEN 'a prepared transaction: see pg_prepared_xacts'
            ELSE coalesce(a.state, a.backend_type, 'its state is hidden from this role') END,
       extract(epoch FROM clock_timestamp() - a.xact_start)::float8, coalesce(a.query, '')
FROM (SELECT DISTINCT unnest(pg_blocking_pids(%s)) AS blocker) b
LEFT JOIN pg_stat_activity a ON a.pid = blocker
"""
_BUILD = """
SELECT c.relname::text, p.phase,
       CASE WHEN p.tuples_total > 0 THEN p.tuples_done::float8 / p.tuples_total
            WHEN p.blocks_total > 0 THEN p.blocks_done::float8 / p.blocks_total END
FROM pg_stat_progress_create_index p LEFT JOIN pg_class c ON c.oid = p.index_relid
WHERE p.pid = %s
"""


@dataclass(frozen=True)
class Blocker:
    """A session that a migration waits for.

    Attributes:
        pid: Its backend.
        application_name: What it calls itself.
        state: Such as ``idle in transaction``.
        seconds: The age of its transaction, or None where it is not known.
        query: Its last query.
    """

    pid: int
    application_name: str
    state: str
    seconds: float | None
    query: str

    def __str__(self) -> str:
        query = without_secrets(" ".join(self.query.split()))
        short = query if len(query) <= _QUERY_LENGTH else query[: _QUERY_LENGTH - 3] + "..."
        if self.pid == 0:
            return self.state
        age = f", in a transaction for {self.seconds:.0f} s" if self.seconds is not None else ""
        return (
            f"pid {self.pid} ({self.application_name or 'no application_name'}), {self.state}{age}: {short}"
        )


@dataclass(frozen=True)
class Build:
    """How far an index build is.

    Attributes:
        index: Its name.
        phase: PostgreSQL's name of the phase.
        fraction: Of this phase, 0 to 1; None where the server does not say.
        remaining: Estimated seconds to the end of this phase, or None.
    """

    index: str
    phase: str
    fraction: float | None
    remaining: float | None

    def __str__(self) -> str:
        percent = f", {self.fraction:.0%}" if self.fraction is not None else ""
        remaining = f", about {self.remaining:.0f} s left" if self.remaining is not None else ""
        return f"Building {self.index}: {self.phase}{percent}{remaining}"


class Watch:
    """What the second connection has seen.

    Attributes:
        blockers: Those of the last wait that was seen, kept for the error message.
    """

    def __init__(self, show_build: Callable[[Build | None], None] | None) -> None:
        self.blockers: list[Blocker] = []
        self._show_build = show_build
        self._reported: tuple[frozenset[int], float] = (frozenset(), 0.0)
        self._phase: tuple[str, float, float] = ("", 0.0, 0.0)  # name, when first seen, fraction then
        self._next_line = 0.0

    def sample(self, connection: Connection, pid: int) -> None:
        """Look once at a backend."""
        blockers = [Blocker(*row) for row in connection.execute(_BLOCKERS, (pid,)).fetchall()]
        if blockers:
            self.blockers = blockers
            self._report(blockers)
        row = connection.execute(_BUILD, (pid,)).fetchone()
        if row is not None:
            self._progress(row[0] or "an index", row[1], row[2])
        elif self._phase[0]:
            self._phase = ("", 0.0, 0.0)
            if self._show_build is not None:
                self._show_build(None)

    def _report(self, blockers: list[Blocker]) -> None:
        pids, now = frozenset(blocker.pid for blocker in blockers), time.monotonic()
        if pids != self._reported[0] or now - self._reported[1] >= _REPEAT_BLOCKER_AFTER:
            self._reported = (pids, now)
            for blocker in blockers:
                log.info("Waiting for %s", blocker)

    def _progress(self, index: str, phase: str, fraction: float | None) -> None:
        now = time.monotonic()
        if phase != self._phase[0] or (fraction or 0.0) < self._phase[2]:  # a phase starts with stale numbers
            self._phase = (phase, now, fraction or 0.0)
            if phase.startswith("building"):  # it has waited for others so far
                self._next_line = now
        gained, spent = (fraction or 0.0) - self._phase[2], now - self._phase[1]
        remaining = (1 - (fraction or 0.0)) * spent / gained if gained > 0.01 else None
        build = Build(index, phase, fraction, remaining)
        if self._show_build is not None:
            self._show_build(build)
        elif now >= self._next_line:
            self._next_line = now + _REPORT_BUILD_EVERY
            log.info("%s", build)


def watch_connection(at: Opened) -> Connection:
    """Return a second connection to a database, to watch the first from."""
    options = Options(at.options.database, application_name="ragschema watch")
    connection = connect(options, at.database)
    apply_settings(connection, options)
    return connection


@contextlib.contextmanager
def watching(
    connect: Callable[[], Connection],
    pid: int,
    *,
    every: float = _SAMPLE_EVERY,
    show_build: Callable[[Build | None], None] | None = None,
) -> Iterator[Watch]:
    """Watch a backend from a connection of its own while the block runs.

    Args:
        connect: Makes that connection, in autocommit mode.
        pid: The backend that migrates.
        every: Seconds between two looks, within reason.
        show_build: Shows the progress of an index build, and None at its end; lines are logged by default.
    """
    watch, stopped = Watch(show_build), threading.Event()
    pause = min(_SAMPLE_EVERY, max(_SAMPLE_AT_MOST_EVERY, every))

    def look() -> None:
        try:
            if stopped.wait(pause):  # what takes no time needs no watch, and no second connection
                return
            with connect() as connection:
                watch.sample(connection, pid)
                while not stopped.wait(pause):
                    watch.sample(connection, pid)
        except (psycopg.Error, OSError, RagSchemaError) as exc:
            if not stopped.is_set():
                log.info("The migration goes on unwatched: %s", exc)

    thread = threading.Thread(target=look, name="ragschema watch", daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        stopped.set()
        thread.join(_LEAVES_AFTER)
