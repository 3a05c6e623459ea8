"""The deployer lock: one deployer at a time in a schema.

A session-level advisory lock on the very connection that runs the DDL: a lock on another connection is free
after a kill -9 while the server still works on the last statement.
"""

from __future__ import annotations

import hashlib
import logging
import time

from tenacity import RetryError, Retrying, retry_if_result, stop_after_delay, wait_random

from ragschema.database.server import Connection
from ragschema.errors import LockNotObtained

log = logging.getLogger(__name__)

_REPORT_EVERY = 5.0  # seconds between lines that say who holds the lock


def deployer_lock_key(schema: str) -> int:
    """Return the advisory lock key of a target schema, a signed 64-bit integer."""
    return int.from_bytes(
        hashlib.sha256(f"ragschema deployer {schema}".encode()).digest()[:8], "big", signed=True
    )


def take_deployer_lock(connection: Connection, schema: str, *, wait: float, is_quiet: bool = False) -> None:
    """Take the deployer lock of a schema; it is held until the connection closes.

    Polls, each poll a transaction of its own: a waiting lock request would hold a snapshot, and a concurrent
    index build of the deployer who has the lock would wait for it.

    Args:
        connection: The connection that will run the DDL, in autocommit mode.
        schema: The target schema.
        wait: Seconds to wait for another deployer.
        is_quiet: Whether to wait without saying for whom.

    Raises:
        LockNotObtained: Another deployer still had it at the end of the wait.
    """
    key = deployer_lock_key(schema)
    next_report = 0.0

    def poll() -> bool:
        nonlocal next_report
        row = connection.execute("SELECT pg_try_advisory_lock(%s)", (key,)).fetchone()
        obtained = row == (True,)
        if not (obtained or is_quiet) and time.monotonic() >= next_report:
            log.info("Waiting for another deployer: %s", describe_holder(connection, key))
            next_report = time.monotonic() + _REPORT_EVERY
        return obtained

    polling = Retrying(
        retry=retry_if_result(lambda obtained: not obtained),
        wait=wait_random(0.05, 0.25),
        stop=stop_after_delay(wait),
    )
    try:
        polling(poll)
    except RetryError as exc:
        raise LockNotObtained(
            f"Another deployer has held the lock on schema {schema} for {wait:g} s.",
            "Nothing was changed. Wait for it to finish, then run the same command again.",
            describe_holder(connection, key),
        ) from exc


def describe_holder(connection: Connection, key: int) -> str:
    """Say who holds an advisory lock: pid, application_name, client, and since when it is connected."""
    row = connection.execute(
        "SELECT a.pid, a.application_name,"  # of another role's session not all of it is shown
        " CASE WHEN a.backend_start IS NULL THEN 'an unknown client'"
        "  ELSE coalesce(host(a.client_addr), 'the local socket') END,"
        " coalesce(date_trunc('second', a.backend_start)::text, 'an unknown time')"
        " FROM pg_locks l JOIN pg_stat_activity a USING (pid)"
        " WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1"
        " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        " AND l.classid::bigint = %s AND l.objid::bigint = %s",
        ((key >> 32) & 0xFFFFFFFF, key & 0xFFFFFFFF),
    ).fetchone()
    if row is None:
        return "it has just finished"
    pid, name, client, since = row
    return f"pid {pid} ({name or 'no application_name'}, from {client}), connected since {since}"
