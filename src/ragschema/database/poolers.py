"""Poolers: told from a server, and those that keep sessions from those that do not.

A transaction pooler hands each transaction to any server connection: two deployers would hold the lock at
once, and session settings would leak to other clients. So a migration refuses it.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping
from typing import Any, Literal

import psycopg

from ragschema.database.server import Connection
from ragschema.errors import ConfigurationError

Access = Literal["direct", "session pooler", "transaction pooler"]

_PROBE_TIMEOUT = 3.0  # seconds; a session pooler with one server connection never answers the second probe


def find_access(connection: Connection, parameters: Mapping[str, Any]) -> Access:
    """Find whether a connection goes through a pooler, and of which mode.

    Args:
        connection: In autocommit mode.
        parameters: libpq keywords for a second connection, made only where there is a pooler.
    """
    ours = find_backend_pid(connection)
    if ours == connection.info.backend_pid:
        return "direct"
    return "transaction pooler" if _shares_backend(connection, parameters, ours) else "session pooler"


def refuse_transaction_pooler(access: Access) -> None:
    """Refuse a transaction pooler.

    Raises:
        ConfigurationError: It is one.
    """
    if access == "transaction pooler":
        raise ConfigurationError(
            "The database is behind a transaction pooler, where migrations are not safe: it gives one session's"
            " lock and settings to another.",
            "Set RAG_MIGRATION_DATABASE_URL to the server itself or a session pooler; services keep their URL.",
        )


def _shares_backend(connection: Connection, parameters: Mapping[str, Any], ours: int) -> bool:
    """Whether a second client is given our server connection, or we are given another."""
    release = threading.Event()
    held = threading.Event()
    pids: list[int] = []

    def hold_a_transaction() -> None:
        with contextlib.suppress(psycopg.Error), psycopg.connect(**parameters) as other:
            pids.append(find_backend_pid(other))
            held.set()
            release.wait(_PROBE_TIMEOUT)

    prober = threading.Thread(target=hold_a_transaction, daemon=True)
    prober.start()
    try:
        held.wait(_PROBE_TIMEOUT)
        return ours in pids or find_backend_pid(connection) != ours
    finally:
        release.set()
        if pids:
            prober.join(_PROBE_TIMEOUT)


def find_backend_pid(connection: Connection) -> int:
    """Return the pid of the server's process behind a connection; a pooler tells its clients another number."""
    row = connection.execute("SELECT pg_backend_pid()").fetchone()
    assert row is not None
    return int(row[0])
