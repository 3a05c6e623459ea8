"""Dispatching of tenants to workers: servers in parallel, canaries first, and an end by Ctrl-C."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from typing import Any

from ragschema.database.environment import reason
from ragschema.database.options import Options
from ragschema.errors import ConfigurationError, UsageError
from ragschema.tenants.databases import server_of
from ragschema.tenants.outcomes import Interruption
from ragschema.tenants.tasks import Task, Unconnected
from ragschema.tenants.workers import Line, Work, Worker, start_worker
from ragschema.words import counted

log = logging.getLogger(__name__)

_LOOK_EVERY = 0.25  # seconds
AHEAD = 2  # tasks of a worker: it begins the next while the parent reads of the last

Heard = Callable[[Task, Any], None]
"""Told of each tenant: what became of it, ``INTERRUPTED``, ``NOT_BEGUN``, or None where its worker has died."""


@dataclass
class Dispatch:
    """One command over many tenants, at work.

    Attributes:
        databases: The options of each database, by the place that tasks name.
        work: What to do with a tenant.
        heard: Told of each tenant.
        workers: Processes for each server.
        signal: The signal that has come, if one has.
    """

    databases: Sequence[Options]
    work: Work
    heard: Heard
    workers: int
    signal: int | None = field(default=None, init=False)
    _by_server: dict[str, list[Worker]] = field(default_factory=dict, init=False)

    @contextmanager
    def started(self, tasks: Sequence[Task]) -> Iterator[None]:
        """Start the workers that some tasks need, before any thread is started, and end them with the block.

        Raises:
            UsageError: This process may have none, as `multiprocessing` has it of a daemon.
            ConfigurationError: This machine has no room for so many.
        """
        if tasks and multiprocessing.current_process().daemon:
            raise UsageError(
                "This process is a daemon of multiprocessing, which may start no workers.",
                "Call it in the main process, or in one of concurrent.futures.ProcessPoolExecutor.",
            )
        wanted: dict[str, int] = {}
        for task in tasks:
            server = self._server_of(task)
            wanted[server] = min(self.workers, wanted.get(server, 0) + 1)
        try:
            for server, count in wanted.items():
                for _ in range(count):
                    worker = self._start_worker(sum(wanted.values()))
                    self._by_server.setdefault(server, []).append(worker)
            with self._passing_signals_on():
                yield
        finally:
            for worker in self._all():
                worker.channel.close()
            for worker in self._all():
                worker.process.join()

    def run(self, tasks: Sequence[Task], goes_on: Callable[[], bool], *, ahead: int = AHEAD) -> list[Task]:
        """Have tasks done, each server's in their order; return those that nobody has begun.

        A worker that has died is replaced: what it had not begun is another's.

        Args:
            tasks: The tenants.
            goes_on: Asked before each whether another is to begin.
            ahead: How many a worker is given at a time; 1 where each outcome decides whether there is a next.
        """
        waiting: dict[str, deque[Task]] = {server: deque() for server in self._by_server}
        for task in tasks:
            waiting.setdefault(self._server_of(task), deque()).append(task)
        while True:
            if self.signal is None and goes_on():
                for server, queue in waiting.items():
                    self._give(server, queue, ahead)
            busy = {worker.channel: worker for worker in self._all() if worker.tasks}
            if not busy:
                return [task for queue in waiting.values() for task in queue]
            for channel in wait([*busy], timeout=_LOOK_EVERY):
                for task in reversed(self._hear(busy[channel])):  # type: ignore[index]  # what was given
                    waiting[self._server_of(task)].appendleft(task)

    def _give(self, server: str, queue: deque[Task], ahead: int) -> None:
        workers = self._by_server.get(server, [])
        for place, worker in enumerate(workers):
            if queue and not worker.tasks and not worker.is_alive:
                with suppress(OSError):  # there is no room for it now: the others do its part
                    workers[place] = start_worker(self.databases, self.work, self._all())
        for depth in range(ahead):
            for worker in workers:
                if queue and len(worker.tasks) == depth and not (worker.channel.closed or worker.is_refused):
                    worker.give(queue.popleft())

    def _hear(self, worker: Worker) -> list[Task]:
        """Read what a worker says; return what is another's: what it had not begun, if it has died or is refused."""
        try:
            message = worker.channel.recv()
        except (EOFError, OSError):  # it has died
            (begun, *others), worker.tasks = worker.tasks, []
            worker.channel.close()
            self.heard(begun, None)
            return others
        if isinstance(message, Line):
            log.log(message.level, "%s: %s", message.schema, message.text)
            return []
        task = worker.tasks.pop(0)
        worker.is_refused = isinstance(message, Unconnected) and self._has_another(worker, task)
        if worker.is_refused:
            return [task]
        self.heard(task, message.outcome if isinstance(message, Unconnected) else message)
        return []

    def _has_another(self, worker: Worker, task: Task) -> bool:
        """Whether another worker of a tenant's server may have a connection."""
        others = self._by_server[self._server_of(task)]
        return any(each.is_alive and not each.is_refused for each in others if each is not worker)

    @property
    def interrupted_by(self) -> Interruption | None:
        """The signal that has come, by its name."""
        if self.signal is None:
            return None
        return "SIGTERM" if self.signal == signal.SIGTERM else "SIGINT"

    def _start_worker(self, wanted: int) -> Worker:
        try:
            return start_worker(self.databases, self.work, self._all())
        except OSError as exc:
            raise ConfigurationError(
                f"This machine has no room for {counted(wanted, 'worker')}: {reason(exc)}.",
                "Nothing was changed. Ask for fewer by --workers, or by fewer URLs at a time, or raise the limits of"
                " `ulimit -n` and `ulimit -u`.",
            ) from exc

    def _all(self) -> list[Worker]:
        return [worker for workers in self._by_server.values() for worker in workers]

    def _server_of(self, task: Task) -> str:
        return server_of(self.databases[task.database].database)

    @contextmanager
    def _passing_signals_on(self) -> Iterator[None]:
        """Let Ctrl-C and SIGTERM end what the workers do, and begin nothing more; the block goes on to its end."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def pass_on(number: int, _frame: object) -> None:
            self.signal = number
            for worker in self._all():
                with suppress(ProcessLookupError):
                    worker.signal(number)

        before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def default_workers() -> int:
    """Return how many workers a server gets by default: one for each core here, and no less than two."""
    return max(2, os.cpu_count() or 1)
