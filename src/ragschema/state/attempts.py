"""The history of a database's migrations: append-only, written in each revision's own transaction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Literal

import psycopg
from psycopg import sql

from ragschema.database.connections import quoted
from ragschema.database.row_security import find_hidden, is_refusal, rows_hidden
from ragschema.database.server import HISTORY_TABLE, Connection
from ragschema.errors import RowsHidden
from ragschema.revisions.manifest import RevisionId


@dataclass(frozen=True)
class Entry:
    """One attempt at a revision.

    Attributes:
        revision: Its id.
        direction: ``upgrade``, ``downgrade``, or ``stamp``; ``create`` where the head script made
            all of head at once; ``defer`` of a contract revision that was passed over and is owed since, ``settle``
            where one is owed no more although it was not run: rolled back past, or its tables are found to be as it
            leaves them.
        succeeded: False where it was rolled back.
        migrated_by: The login that ran it.
        package_version: The ragschema that ran it.
        started_at: By the server's clock.
        seconds: How long it took.
        checksum: SHA-256 of the revision's file as it was run, or of the head script, in hexadecimal.
        error: The server's message of a failure.
    """

    revision: RevisionId
    direction: Literal["upgrade", "downgrade", "stamp", "create", "defer", "settle"]
    succeeded: bool
    migrated_by: str
    package_version: str
    started_at: datetime
    seconds: float
    checksum: str | None
    error: str | None


def create_table(schema: str | None) -> str:
    """Return the SQL that makes the history table; unqualified without a schema."""
    return (
        f"CREATE TABLE IF NOT EXISTS {_table(schema)} ("
        " id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,"
        " revision text NOT NULL,"
        " direction text NOT NULL,"
        " succeeded boolean NOT NULL,"
        " migrated_by text NOT NULL DEFAULT session_user,"
        " package_version text NOT NULL,"
        " started_at timestamptz NOT NULL,"
        " seconds double precision NOT NULL,"
        " checksum text,"
        " error text)"
    )


def insert(schema: str | None, attempt: Mapping[str, object]) -> str:
    """Return the SQL that records an attempt which ends now."""
    values = {name: sql.Literal(value) for name, value in attempt.items()}
    return (
        sql.SQL(
            "INSERT INTO {table}"
            " (revision, direction, succeeded, package_version, started_at, seconds, checksum, error)"
            " VALUES ({revision}, {direction}, {succeeded}, {package_version},"
            " clock_timestamp() - make_interval(secs => {seconds}), {seconds}, {checksum}, {error})"
        )
        .format(table=sql.SQL(_table(schema)), **values)
        .as_string()
    )


def _table(schema: str | None) -> str:
    return quoted(HISTORY_TABLE) if schema is None else quoted(schema, HISTORY_TABLE)


def attempt(
    revision: str, direction: str, *, seconds: float, checksum: str | None, error: str | None = None
) -> dict[str, object]:
    """Return an attempt for `insert`."""
    return {
        "revision": revision,
        "direction": direction,
        "succeeded": error is None,
        "package_version": _package_version(),
        "seconds": seconds,
        "checksum": checksum,
        "error": error,
    }


@cache
def _package_version() -> str:
    from importlib.metadata import version  # here: it takes as long to import as a status takes to read

    return version("ragschema")


def history_hidden(connection: Connection, schema: str) -> RowsHidden:
    """Return the error that says from whom the history is hidden, and the way out."""
    return rows_hidden([each for each in find_hidden(connection, schema) if each.table == HISTORY_TABLE])


def read(connection: Connection, schema: str) -> list[Entry]:
    """Return the attempts, oldest first; none where there is no history table, or this role may not read it.

    Raises:
        RowsHidden: Row security hides rows of the history from this role.
    """
    try:
        rows = connection.execute(
            "SELECT revision, direction, succeeded, migrated_by, package_version, started_at, seconds, checksum,"
            f" error FROM {_table(schema)} ORDER BY id".encode()
        ).fetchall()
    except psycopg.errors.UndefinedTable:
        return []
    except psycopg.errors.InsufficientPrivilege as exc:
        if is_refusal(exc):
            raise history_hidden(connection, schema) from exc
        return []
    return [Entry(*row) for row in rows]
