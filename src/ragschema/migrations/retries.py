"""Retries of what met a lock or a deadlock: after a pause with jitter, as often as the options say."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from ragschema.database.options import Options
from ragschema.database.sqlstates import is_lock_conflict

if TYPE_CHECKING:
    from tenacity import RetryCallState, Retrying

log = logging.getLogger(__name__)


def retrying(options: Options, is_conflict: Callable[[BaseException], bool] = is_lock_conflict) -> Retrying:
    """Return tenacity's loop of attempts; the last one's error is raised as it was.

    Args:
        options: How often.
        is_conflict: Whether an error may be gone at the next attempt.
    """
    from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

    def report(state: RetryCallState) -> None:
        log.info(
            "Gave way to the sessions in the way; trying again in %.1f s (%d of %d)",
            state.upcoming_sleep,
            state.attempt_number,
            options.retries,
        )

    return Retrying(
        retry=retry_if_exception(is_conflict),
        wait=wait_random_exponential(multiplier=0.5, max=15),
        stop=stop_after_attempt(options.retries + 1),
        before_sleep=report,
        reraise=True,
    )
