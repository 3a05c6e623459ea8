"""Replay of a revision: the statements that it ran on other schemas, run on one more without its Python.

For many schemas one after the other. What a revision runs is kept where it depends on nothing that is in the database:
it only creates and alters, was answered nothing, and ran the same statements on two schemas. The guard of rows looks at
a replay too; it refuses nothing, but leaves the schema as it is to the run that can say why.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import TupleRow

from ragschema.database.connections import quoted
from ragschema.database.prepared import call
from ragschema.database.server import VERSION_TABLE, Connection
from ragschema.errors import RagSchemaError
from ragschema.migrations.request import Applied, Recording
from ragschema.revisions.manifest import RevisionId
from ragschema.sql.losses import find_losses
from ragschema.sql.splitting import split_sql
from ragschema.state import attempts
from ragschema.state.imprint import Imprint
from ragschema.state.survey import Survey

Cursor = psycopg.Cursor[TupleRow]

_VERBS = ("ALTER ", "CREATE ", "COMMENT ")
_LOCK_TIMEOUT = "100ms"  # whoever is in the way is waited for, and named, by the run that watches

# What guards.py asks of each relation that a transaction has touched, in short.
_TOUCHED = """
SELECT l.relation::int8, c.relkind::text, c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = %(schema)s),
    c.relfilenode::int8::text, coalesce(pg_stat_get_xact_tuples_deleted(l.relation), 0),
    ARRAY(SELECT attnum::text FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped)
FROM (SELECT DISTINCT relation FROM pg_locks
    WHERE pid = pg_backend_pid() AND locktype = 'relation' AND relation >= 16384
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND mode NOT IN ('AccessShareLock', 'RowShareLock')) l
LEFT JOIN pg_class c ON c.oid = l.relation
"""
_TABLES = ("r", "p", "m", "f")


def is_replayable(statement: str) -> bool:
    """Whether a statement, or each of several in one string, changes the catalogue alone and destroys nothing."""
    parts = [part.lstrip().upper() for _, part in split_sql(statement)]
    return bool(parts) and all(part.startswith(_VERBS) for part in parts) and not find_losses(statement)


class Ran:
    """What a revision runs.

    Attributes:
        statements: As the server got them; None where they are not to be run again as they were.
    """

    def __init__(self) -> None:
        self.statements: list[str] | None = []

    def forget(self) -> None:
        """Take nothing any more: it has committed in between, or run twice."""
        self.statements = None

    def take(self, cursor: Cursor, statement: str, parameters: Any) -> None:
        """Take a statement that was answered nothing: what comes after it depends on no answer."""
        connection = cursor.connection
        if parameters or cursor.description or cursor.rowcount != -1 or connection.autocommit:
            self.forget()
        elif self.statements is not None:
            self.statements.append(psycopg.ClientCursor(connection).mogrify(statement, parameters))


class Replay:
    """What revisions have run, by the revision before each."""

    def __init__(self) -> None:
        self._heard: dict[RevisionId, tuple[str, Recording]] = {}
        self._known: dict[RevisionId, Recording] = {}

    def hear(self, schema: str, recording: Recording) -> None:
        """Take what a revision has run on a schema; of two schemas in turn it must be the same."""
        first, heard = self._heard.get(recording.previous, ("", None))
        if heard == recording and first != schema:
            self._known[recording.previous] = recording
        else:
            self._known.pop(recording.previous, None)
        self._heard[recording.previous] = schema, recording

    def next(self, revision: RevisionId | None) -> Recording | None:
        """Return what is to be run on a schema at a revision; None where that is not known."""
        return self._known.get(revision or "")


def replay(connection: Connection, seen: Survey, recording: Recording) -> Applied | None:
    """Run a revision on a schema in one transaction, with its row of the version table and of the history.

    ACCESS EXCLUSIVE and the like as the revision takes it, for which it waits 0.1 s.

    Args:
        connection: In autocommit mode; the session holds the deployer lock.
        seen: What was seen of the schema since then: it is at the revision before, ordinary, and without drift.
        recording: What is run.

    Returns:
        None where nothing was changed, because somebody has to look closer.

    Raises:
        psycopg.Error: The server refused it; the transaction is to be rolled back.
        RagSchemaError: It is committed, and the version table says something else.
    """
    began = time.monotonic()
    path = [sql.Identifier(name) for name in dict.fromkeys([seen.schema, seen.imprint.extension or "public"])]
    statements = [
        "BEGIN",
        f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'",
        sql.SQL("SET LOCAL search_path = {}").format(sql.SQL(", ").join(path)).as_string(),
        *recording.statements,
        "SET LOCAL search_path = pg_catalog",
        call(connection, _TOUCHED, {"schema": "text"}, {"schema": seen.schema}).as_string(),
    ]
    found = _last_rows(connection.execute(";\n".join(statements).encode()))
    if not all(_is_kept(touched, seen.imprint) for touched in found):
        connection.execute("ROLLBACK")
        return None
    table = quoted(seen.schema, VERSION_TABLE)
    moved = connection.execute(
        f"UPDATE {table} SET version_num = '{recording.revision}'"
        f" WHERE version_num = '{recording.previous}'".encode()
    )
    if moved.rowcount != 1:
        connection.execute("ROLLBACK")
        return None
    seconds = time.monotonic() - began
    entry = attempts.attempt(recording.revision, "upgrade", seconds=seconds, checksum=recording.checksum)
    end = f"{attempts.insert(seen.schema, entry)}; COMMIT; SELECT version_num FROM {table}"
    if _last_rows(connection.execute(end.encode())) != [(recording.revision,)]:
        raise RagSchemaError(
            f"Revision {recording.revision} ran, but the database does not say that it is there.",
            "Report this, with the command you ran.",
        )
    return Applied(recording.revision, recording.summary, "upgrade", seconds)


def _last_rows(cursor: Cursor) -> list[TupleRow]:
    """Return the rows of the last of several statements."""
    while cursor.nextset():
        pass
    return cursor.fetchall()


def _is_kept(touched: Sequence[Any], before: Imprint) -> bool:
    """Whether a relation that was touched has all that it had: no row was deleted, no file written anew."""
    oid, kind, is_in_schema, file, deleted, columns = touched
    if kind is None or deleted:
        return False
    if oid in before.files:
        return file == before.files[oid] and before.columns[oid] <= set(columns)
    return kind not in _TABLES or bool(is_in_schema)  # a table that was not there is new
