"""Refusals of statements by a setting of somebody: whose it is, and what undoes it, whichever command met it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from ragschema.database.row_security import find_refused, rows_hidden
from ragschema.database.server import Connection
from ragschema.database.sqlstates import driver_error
from ragschema.database.write_access import find_obstacles
from ragschema.errors import ConfigurationError, RagSchemaError

_READ_ONLY = "25006"  # read_only_sql_transaction


@contextmanager
def named_refusals(connection: Connection, *, is_ours: bool) -> Iterator[None]:
    """Turn a refusal of the block's statements into the error that names the setting, and whose it is.

    Args:
        connection: The block's connection; rolled back where it was refused something.
        is_ours: Whether it is no caller's own, whose transaction stays as it is.

    Raises:
        ConfigurationError: The session may only read.
        RowsHidden: Row security would have hidden rows from a statement.
    """
    try:
        yield
    except Exception as exc:
        if is_ours and (found := _find_refusal(connection, exc)) is not None:
            raise found from exc
        raise


def _find_refusal(connection: Connection, exc: Exception) -> RagSchemaError | None:
    error = driver_error(exc)
    if error is None or connection.closed or error.sqlstate not in (_READ_ONLY, "42501"):
        return None
    try:
        connection.rollback()
        if hidden := find_refused(connection, error):
            return rows_hidden(hidden)
        obstacles = find_obstacles(connection) if error.sqlstate == _READ_ONLY else []
    except psycopg.Error:
        return None  # the server says no more: its own words are shown
    finally:
        if not connection.closed and not connection.autocommit:
            connection.rollback()
    if not obstacles:
        return None
    return ConfigurationError(
        obstacles[0].fact, f"Nothing was changed. {obstacles[0].remedy}", str(error).strip()
    )
