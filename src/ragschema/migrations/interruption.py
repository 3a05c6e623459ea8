"""Interruption of a migration by Ctrl-C or SIGTERM: the running statement is cancelled at once."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from ragschema.embedded.termination import TERMINATED, is_replaceable

log = logging.getLogger(__name__)


class Terminated(KeyboardInterrupt):
    """SIGTERM came: psycopg cancels the running statement for it as for Ctrl-C."""


def find_interruption(exc: BaseException) -> KeyboardInterrupt | None:
    """Return the interruption that an error came of: a rollback fails while a statement is on its way."""
    seen: BaseException | None = exc
    while seen is not None and not isinstance(seen, KeyboardInterrupt):
        seen = seen.__cause__ or seen.__context__
    return seen


@contextmanager
def interrupted_by_sigterm() -> Iterator[bool]:
    """Let SIGTERM raise `Terminated` in the block; yield whether it does, and is not heard by the program itself."""
    is_ours, before = is_replaceable(), signal.getsignal(signal.SIGTERM)

    def terminate(_number: int, _frame: object) -> None:
        raise Terminated

    if is_ours:
        signal.signal(signal.SIGTERM, terminate)
    try:
        yield is_ours
    finally:
        if is_ours:
            signal.signal(signal.SIGTERM, before)


@contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGTERM cancel the running statement at once, as Ctrl-C does; exit with 143 or 130.

    What the block adds to the interruption as notes is said of it: what is committed, and what is not.
    """
    with interrupted_by_sigterm() as is_ours:
        try:
            yield
        except KeyboardInterrupt as exc:
            notes = getattr(exc, "__notes__", ["committed in this run: nothing; not committed: nothing"])
            log.warning(
                "Interrupted: the running statement was cancelled; %s. Run the same command again to go on;"
                " `rag migrate status` names an index that a concurrent build has left INVALID.",
                "; ".join(notes),
            )
            if not is_ours:
                raise
            sys.exit(TERMINATED if isinstance(exc, Terminated) else 130)
