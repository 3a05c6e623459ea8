"""Owed revisions: contract revisions that ``--expand-only`` has passed over, and that nobody has run since.

The version table moves on past them, so that the expand revisions behind them reach a database that is held back.
The history remembers them: a revision is owed where its newest entry is ``defer``.
"""

from __future__ import annotations

from collections.abc import Iterable

import psycopg

from ragschema.database.connections import quoted
from ragschema.database.row_security import is_refusal
from ragschema.database.server import HISTORY_TABLE, Connection
from ragschema.revisions.manifest import RevisionId
from ragschema.state.attempts import Entry, history_hidden

AFTER_THE_CODE = "Run `rag migrate` when the last code that used what they remove is gone."

DECIDING = ("upgrade", "downgrade", "defer", "settle")
"""The directions that say whether a revision is owed; a stamp runs nothing, and says nothing of it."""


def find_owed(connection: Connection, schema: str, current: str | None) -> tuple[RevisionId, ...]:
    """Return the revisions that a database owes, oldest first; reads only.

    Nothing is owed where there is no history table, or this role may not read it.

    Args:
        connection: In or outside a transaction.
        schema: The schema of our tables.
        current: The revision the database is at; those after it are pending, not owed.

    Raises:
        RowsHidden: Row security hides the history from this role.
    """
    if current is None:
        return ()
    try:
        with connection.transaction():  # a failure ends no transaction of the caller's
            rows = connection.execute(deferred(schema).encode()).fetchall()
    except psycopg.errors.UndefinedTable:
        return ()
    except psycopg.errors.InsufficientPrivilege as exc:
        if not is_refusal(exc):
            return ()
        raise history_hidden(connection, schema) from exc
    return owed_at(current, (row[0] for row in rows))


def deferred(schema: str) -> str:
    """Return the query of the revisions that a schema's history says were passed over, and not run since."""
    directions = ", ".join(f"'{direction}'" for direction in DECIDING)
    return (
        "SELECT revision FROM (SELECT DISTINCT ON (revision) revision, direction"
        f" FROM {quoted(schema, HISTORY_TABLE)} WHERE succeeded AND direction IN ({directions})"
        " ORDER BY revision, id DESC) newest WHERE direction = 'defer'"
    )


def owed_at(current: str, found: Iterable[str]) -> tuple[RevisionId, ...]:
    """Return those of the revisions that `deferred` finds that a database at a revision owes, oldest first."""
    return tuple(sorted(revision for revision in found if revision <= current))


def owed_of(entries: Iterable[Entry], current: str | None) -> tuple[RevisionId, ...]:
    """Return the revisions that a database owes, from its history, oldest first; see `find_owed`."""
    newest = {
        entry.revision: entry.direction
        for entry in entries
        if entry.succeeded and entry.direction in DECIDING
    }
    return tuple(
        sorted(
            revision
            for revision, direction in newest.items()
            if direction == "defer" and current is not None and revision <= current
        )
    )
