"""Workers: processes that work on one tenant after the other, each on a connection of its own.

Processes, because Alembic's environment lives in globals that threads would share. They are forked, so that what is
loaded before is loaded once.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection as Channel
from multiprocessing.process import BaseProcess
from typing import Any, NoReturn

from ragschema.database.options import Options
from ragschema.migrations.interruption import Terminated
from ragschema.tenants.lending import Lender
from ragschema.tenants.tasks import INTERRUPTED, NOT_BEGUN, Task, Unconnected

Work = Callable[[Lender, Task], Any]
"""What is done with a tenant: takes who lends its connection, and the task, returns what came of it; never raises."""

_FORK = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class Line:
    """A line that a worker logs of a tenant."""

    schema: str
    level: int
    text: str


@dataclass
class Worker:
    """A worker as its parent sees it.

    Attributes:
        process: The process.
        channel: Takes a `Task` and gives `Line` and, of each task in its turn, an outcome.
        tasks: What it has been given and has not answered.
        is_refused: Whether it got no connection; then it is given nothing more.
    """

    process: BaseProcess
    channel: Channel
    tasks: list[Task] = field(default_factory=list)
    is_refused: bool = False

    @property
    def is_alive(self) -> bool:
        """Whether it can be given a tenant."""
        return not self.channel.closed and self.process.is_alive()

    def give(self, task: Task) -> None:
        """Give it a tenant; that it has died meanwhile is heard from its channel."""
        self.tasks.append(task)
        with suppress(OSError):
            self.channel.send(task)

    def signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.process.is_alive() and self.process.pid is not None:
            os.kill(self.process.pid, number)


def start_worker(databases: Sequence[Options], work: Work, others: Sequence[Worker]) -> Worker:
    """Fork a worker.

    Args:
        databases: The options of each database, by the place that tasks name.
        work: What to do with a tenant.
        others: The workers that are there already: their channels are their parent's alone.
    """
    ours, theirs = _FORK.Pipe()
    process = _FORK.Process(
        target=_run,
        args=(databases, work, theirs, [ours, *(each.channel for each in others)]),
        name="ragschema worker",
        daemon=True,
    )
    process.start()
    theirs.close()
    return Worker(process, ours)


def _run(databases: Sequence[Options], work: Work, channel: Channel, parents: Sequence[Channel]) -> NoReturn:
    os.setpgid(0, 0)  # the terminal's Ctrl-C goes to the parent, which passes it on once
    for each in parents:  # else nobody would miss a parent that was killed
        each.close()
    with suppress(EOFError, OSError):  # the parent has no more to do, or is gone
        _Loop(databases, work, channel).run()
    os._exit(0)


class _Loop:
    """What a worker does until its parent closes the channel."""

    def __init__(self, databases: Sequence[Options], work: Work, channel: Channel) -> None:
        self._databases = databases
        self._work = work
        self._channel = channel
        self._sending = threading.Lock()  # a watch logs from its own thread
        self._lender: tuple[int, Lender] | None = None
        self._schema = ""
        self._is_working = self._is_stopping = False

    def run(self) -> NoReturn:
        """Work on tenants until the parent closes the channel.

        Raises:
            EOFError: It has.
        """
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._interrupt)
        logger = logging.getLogger("ragschema")
        logger.handlers = [_Lines(self._log)]
        logger.propagate = False
        while True:
            task: Task = self._channel.recv()
            self._send(self._answer(task))

    def _answer(self, task: Task) -> Any:
        outcomes: list[Any] = []
        self._schema = task.schema
        if self._is_stopping:
            return NOT_BEGUN
        try:
            self._is_working = True
            lender = self._lender_of(task.database)
            outcome = self._work(lender, task)
            outcomes.append(Unconnected(outcome) if lender.is_refused else outcome)
            self._is_working = False
        except (KeyboardInterrupt, SystemExit):
            self._is_working = False
        return outcomes[0] if outcomes else INTERRUPTED

    def _lender_of(self, database: int) -> Lender:
        if self._lender is None or self._lender[0] != database:
            if self._lender is not None:
                self._lender[1].close()
            self._lender = database, Lender(self._databases[database])
        return self._lender[1]

    def _interrupt(self, number: int, _frame: object) -> None:
        self._is_stopping = True
        if self._is_working:
            raise Terminated if number == signal.SIGTERM else KeyboardInterrupt

    def _log(self, record: logging.LogRecord) -> None:
        self._send(Line(self._schema, record.levelno, record.getMessage()))

    def _send(self, message: Any) -> None:
        with self._sending:
            self._channel.send(message)


class _Lines(logging.Handler):
    """Hands on what is logged."""

    def __init__(self, take: Callable[[logging.LogRecord], None]) -> None:
        super().__init__()
        self._take = take

    def emit(self, record: logging.LogRecord) -> None:
        self._take(record)
