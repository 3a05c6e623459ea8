"""The fate of a step that did not come back: committed or not, read from the version table.

A client that loses its connection after the server got COMMIT knows nothing, and a Ctrl-C may come while the
server commits. So the database is asked, where need be on a new connection.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal

import psycopg
from psycopg import sql

from ragschema.database import connecting
from ragschema.database.connections import Opened
from ragschema.database.server import VERSION_TABLE, Connection
from ragschema.errors import RagSchemaError
from ragschema.state.owed import find_owed
from ragschema.state.status import find_invalid_indexes

log = logging.getLogger(__name__)

Fate = Literal["committed", "not committed", "unknown"]
"""What became of a step that did not come back."""

IsDone = Callable[[Collection[str], Collection[str]], bool]

_SETTLES_WITHIN = 10.0  # seconds for the server to come back, and to end what the lost connection did
_LOOK_EVERY = 0.1  # seconds

# Idle: a pooler keeps the session for others. What the role may not see may be at work.
_AT_WORK = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = %s AND state IS DISTINCT FROM 'idle')"


@dataclass(frozen=True)
class Settlement:
    """What the database says after a failure.

    Attributes:
        fate: What became of the step at work; without one, nothing was to commit.
        heads: The rows of the version table, where they could be read.
        owed: The contract revisions that are owed, where they could be read.
        has_left_index: Whether the statement that failed has left an index that is INVALID.
    """

    fate: Fate
    heads: frozenset[str] = frozenset()
    owed: tuple[str, ...] = ()
    has_left_index: bool = False


def settle(at: Opened, pid: int, is_done: IsDone | None, statement: str) -> Settlement:
    """Find what became of a run that failed.

    Args:
        at: What was opened for the run; its connection may be lost.
        pid: The backend of that connection.
        is_done: Whether the step that did not come back is committed, by the rows of the version table and what is
            owed; None where none was at work.
        statement: The statement that failed; empty where none did.
    """
    with suppress(psycopg.Error):
        at.connection.rollback()
        return _look(at.connection, at.schemas.target, is_done, statement)
    log.info("The connection was lost; looking whether the database has committed.")
    deadline = time.monotonic() + _SETTLES_WITHIN
    while time.monotonic() < deadline:
        with suppress(psycopg.Error, RagSchemaError), _reconnected(at, deadline) as connection:
            while time.monotonic() < deadline:
                is_at_work = connection.execute(_AT_WORK, (pid,)).fetchone() != (False,)
                found = _look(connection, at.schemas.target, is_done, statement)
                if found.fate == "committed" or not is_at_work:
                    return found
                time.sleep(_LOOK_EVERY)
        time.sleep(_LOOK_EVERY)
    return Settlement("unknown" if is_done else "not committed")


def _look(connection: Connection, schema: str, is_done: IsDone | None, statement: str) -> Settlement:
    try:
        heads = read_heads(connection, schema)
        owed = find_owed(connection, schema, max(heads, default=None))
        left = [index for index in find_invalid_indexes(connection, schema) if index in statement]
    finally:
        if not connection.autocommit:
            connection.rollback()
    fate: Fate = "committed" if is_done is not None and is_done(heads, owed) else "not committed"
    return Settlement(fate, heads, owed, bool(left))


def read_heads(connection: Connection, schema: str) -> frozenset[str]:
    """Return the rows of the version table; none where there is no table."""
    table = sql.Identifier(schema, VERSION_TABLE)
    try:
        found = connection.execute(sql.SQL("SELECT version_num FROM {}").format(table)).fetchall()
    except psycopg.errors.UndefinedTable:
        return frozenset()
    return frozenset(str(revision) for (revision,) in found)


def _reconnected(at: Opened, deadline: float) -> Connection:
    options = replace(at.options, wait=max(0.0, deadline - time.monotonic()), deadline=deadline)
    connection = connecting.connect(options, at.database)
    connecting.apply_settings(connection, options)
    return connection
