"""Termination by SIGTERM of what runs a server: like an exception, so that the server is stopped."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

TERMINATED = 143  # the exit code


def is_replaceable() -> bool:
    """Whether SIGTERM may be given another handler: this is the main thread, and nobody but us has set one."""
    handler = signal.getsignal(signal.SIGTERM)
    is_ours = handler is signal.SIG_DFL or isinstance(handler, _Ending)
    return is_ours and threading.current_thread() is threading.main_thread()


class _Ending:
    """A handler that ends a block by SystemExit."""

    def __init__(self) -> None:
        self.has_come = False

    def __call__(self, _number: int, _frame: object) -> NoReturn:
        self.has_come = True
        raise SystemExit(TERMINATED)


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the block like an exception, unless the program hears it itself."""
    if not is_replaceable():
        yield
        return
    ending = _Ending()
    before = signal.signal(signal.SIGTERM, ending)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
    if ending.has_come:  # while garbage was collected: Python ignores what is raised there
        raise SystemExit(TERMINATED)
