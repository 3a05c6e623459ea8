"""The standing of a database, read with psycopg alone: no lock, no write, no SQLAlchemy, no Alembic."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Literal

import psycopg
from psycopg import sql
from psycopg.rows import TupleRow

from ragschema.database.backup import backup_command
from ragschema.database.connections import Opened
from ragschema.database.members import members
from ragschema.database.row_security import find_hidden, is_refusal, rows_hidden
from ragschema.database.server import VERSION_TABLE, Connection
from ragschema.errors import PendingRevisions, RagSchemaError, RowsHidden, UnmanagedDatabase
from ragschema.revisions.manifest import Manifest, Revision, RevisionId
from ragschema.state import attempts
from ragschema.state.attempts import Entry
from ragschema.state.elsewhere import Elsewhere, find_elsewhere
from ragschema.state.expected import our_tables
from ragschema.state.importable import Importable, find_importable
from ragschema.state.owed import owed_of
from ragschema.state.soundness import Soundness, find_soundness

log = logging.getLogger(__name__)

State = Literal["OK", "PENDING", "AHEAD", "UNMANAGED", "EMPTY", "BROKEN"]

# Of another role's build the progress view shows only the pid; pg_locks says which table it works on.
IS_BUILDING = """EXISTS (
    SELECT FROM pg_stat_progress_create_index p
    WHERE p.datname = current_database()
    AND (p.index_relid = i.oid
         OR p.relid = t.oid AND p.command LIKE 'REINDEX%%'
         OR coalesce(p.index_relid, 0) = 0 AND EXISTS (
             SELECT FROM pg_locks l
             WHERE l.pid = p.pid AND l.granted AND l.relation = t.oid AND l.locktype = 'relation'
             AND l.mode IN ('ShareLock', 'ShareUpdateExclusiveLock'))))
"""
"""Whether somebody builds the index ``i`` of the table ``t``, as a condition of a query with parameters."""

_LEFT_BY_REINDEX = ("_ccnew", "_ccold")  # suffixes; a number may follow

_OUR_INDEXES = f"""
SELECT i.relname::text, x.indisvalid, {IS_BUILDING}
FROM pg_index x
JOIN pg_class i ON i.oid = x.indexrelid
JOIN pg_class t ON t.oid = x.indrelid
WHERE t.oid IN ({members("pg_class", "%s")}) AND t.relname::text LIKE 'rag\\_%%' AND NOT (x.indisvalid AND x.indisready)
ORDER BY 1
"""


@dataclass(frozen=True)
class Status:
    """Where a database stands.

    Attributes:
        state: OK at head; PENDING before it, or at it with contract revisions owed; AHEAD at a revision this
            package does not know; UNMANAGED with our tables but no version row; EMPTY with neither; BROKEN
            where objects of its revision are missing, or work on another schema.
        current: The revision the database is at, or None.
        head: The revision this package ends at.
        pending: The revisions between, in the order they will run.
        owed: The contract revisions that ``--expand-only`` passed over; `rag migrate` without it runs them first.
        written_by: The package version that brought the database to a revision that is AHEAD, if recorded.
        invalid_indexes: Indexes on our tables that a failed build left behind; those being built are not here.
        edited: Revisions whose files are not what they were when they were applied.
        last_failure: The last attempt, where it failed.
        elsewhere: Other schemas of the database with our tables, where no schema was named and this one is EMPTY.
        backup: The command that backs the tables up, without a password; None where there are none.
        soundness: What is missing, and what works on another schema.
        importable: Tables of other libraries, each with the command that reads them, where this one is EMPTY.
    """

    state: State
    current: str | None
    head: RevisionId
    pending: tuple[Revision, ...] = ()
    written_by: str | None = None
    invalid_indexes: tuple[str, ...] = ()
    edited: tuple[RevisionId, ...] = ()
    last_failure: Entry | None = field(default=None)
    backup: str | None = None
    elsewhere: tuple[Elsewhere, ...] = ()
    soundness: Soundness | None = None
    owed: tuple[Revision, ...] = ()
    importable: tuple[Importable, ...] = ()


def read_current(connection: Connection, schema: str) -> str | None:
    """Return the revision a database is at; None without a version table or row.

    Raises:
        RagSchemaError: The version table has several rows, or this role may not read it.
        RowsHidden: Row security hides its row from this role.
    """
    table = sql.Identifier(schema, VERSION_TABLE)
    try:
        rows = connection.execute(sql.SQL("SELECT version_num FROM {}").format(table)).fetchall()
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
        return None
    except psycopg.errors.InsufficientPrivilege as exc:
        if is_refusal(exc):
            return _read_what_is_shown(connection, schema)
        if not _exists(connection, schema, VERSION_TABLE):
            return None
        raise RagSchemaError(
            f"The role {connection.info.user} may not read {table.as_string()}.",
            "Ask its owner to run this, then run this again:",
            sql.SQL("GRANT USAGE ON SCHEMA {} TO {user}; GRANT SELECT ON {} TO {user};")
            .format(sql.Identifier(schema), table, user=sql.Identifier(connection.info.user))
            .as_string(),
        ) from exc
    return _only(rows)


def _read_what_is_shown(connection: Connection, schema: str) -> str | None:
    """Read the version table as row security shows it: a policy may show its row to a service's role."""
    table = sql.Identifier(schema, VERSION_TABLE)
    with connection.transaction():
        connection.execute("SET LOCAL row_security = on")
        rows = connection.execute(sql.SQL("SELECT version_num FROM {}").format(table)).fetchall()
    if rows:
        return _only(rows)
    raise rows_hidden([each for each in find_hidden(connection, schema) if each.table == VERSION_TABLE])


def _only(rows: list[TupleRow]) -> str | None:
    if len(rows) > 1:
        raise RagSchemaError(
            f"{VERSION_TABLE} has {len(rows)} rows: {', '.join(row[0] for row in rows)}.",
            "Find out who wrote the second, and delete the wrong one.",
        )
    return str(rows[0][0]) if rows else None


def has_our_tables(connection: Connection, schema: str) -> bool:
    """Whether the schema has a table of any of our revisions."""
    statement = "SELECT FROM pg_tables WHERE schemaname = %s AND tablename = ANY(%s) LIMIT 1"
    return connection.execute(statement, (schema, sorted(our_tables()))).fetchone() is not None


def require_current(connection: Connection, schema: str) -> str:
    """Return the revision a database is at.

    Raises:
        UnmanagedDatabase: It says none, with our tables or without.
    """
    if (current := read_current(connection, schema)) is not None:
        return current
    require_our_tables(connection, schema)
    raise unmanaged()


def require_our_tables(connection: Connection, schema: str) -> None:
    """Refuse a database without our tables.

    Raises:
        UnmanagedDatabase: It has none.
    """
    if has_our_tables(connection, schema):
        return
    fact = f"Schema {schema} has none of our tables."
    if found := find_importable(connection):
        raise UnmanagedDatabase(
            fact,
            f"Run `rag migrate` to make them, then `{found[0].command}`: it reads the tables of {found[0].preset}.",
            "\n".join(f"importable: {each}: {each.command}" for each in found),
        )
    raise UnmanagedDatabase(fact, "Run `rag migrate` to make them, or name their schema with --schema.")


def refuse_unmanaged(connection: Connection, schema: str) -> None:
    """Refuse a database that has our tables; call it where it says no revision.

    Raises:
        UnmanagedDatabase: It has them.
    """
    if has_our_tables(connection, schema):
        raise unmanaged()


def unmanaged() -> UnmanagedDatabase:
    """Return the error of a database with our tables that says no revision."""
    return UnmanagedDatabase(
        f"The database has our tables, but no row of {VERSION_TABLE} says at which revision.",
        "Nothing was changed. Run `rag migrate adopt`: it finds the revision and stamps it.",
    )


def behind(current: str | None, needed: str, remedy: str) -> PendingRevisions:
    """Return the error of a database that is older than is needed."""
    return PendingRevisions(f"The database is at {current or 'no revision'}; {needed} is needed.", remedy)


def find_invalid_indexes(connection: Connection, schema: str) -> tuple[str, ...]:
    """Find indexes on our tables that are not valid and that nobody is building."""
    return tuple(
        name for name, is_building in find_unready_indexes(connection, schema).items() if not is_building
    )


def find_unready_indexes(connection: Connection, schema: str) -> dict[str, bool]:
    """Find indexes on our tables that are not valid; of each, whether somebody is building it."""
    rows = connection.execute(_OUR_INDEXES.encode(), (schema,)).fetchall()
    return {name: is_building for name, _, is_building in rows}


def is_left_by_reindex(index: str) -> bool:
    """Whether the name is one of those that REINDEX CONCURRENTLY gives an index for as long as it runs."""
    return index.rstrip("0123456789").endswith(_LEFT_BY_REINDEX)


def read_status(at: Opened, manifest: Manifest) -> Status:
    """Read where a database stands."""
    schema = at.schemas.target
    current = read_current(at.connection, schema)
    entries = _read_history(at.connection, schema)
    pending = manifest.after(current)
    owed = [each for each in manifest.revisions if each.revision in owed_of(entries, current)]
    soundness = (  # before head, what is missing may be what a failed migration left: verify says
        None if current is None else find_soundness(at.connection, schema, None if pending else current)
    )
    state: State
    if soundness is not None and not soundness.is_sound:
        state = "BROKEN"
    elif current is None:
        state = "UNMANAGED" if has_our_tables(at.connection, schema) else "EMPTY"
    elif pending is None:
        state = "AHEAD"
    else:
        state = "PENDING" if pending or owed else "OK"
    return Status(
        state,
        current,
        manifest.head,
        pending or (),
        written_by=_writer_of(current, entries) if state == "AHEAD" else None,
        invalid_indexes=find_invalid_indexes(at.connection, schema),
        edited=find_edited(current, entries, manifest),
        last_failure=entries[-1] if entries and not entries[-1].succeeded else None,
        elsewhere=find_elsewhere(at, manifest) if state == "EMPTY" else (),
        backup=None if state == "EMPTY" else backup_command(at.database, schema),
        soundness=soundness,
        owed=tuple(owed),
        importable=find_importable(at.connection) if state == "EMPTY" else (),
    )


def _read_history(connection: Connection, schema: str) -> list[Entry]:
    """Return the attempts; where they are hidden, the standing is told without them, and that is said."""
    try:
        return attempts.read(connection, schema)
    except RowsHidden as exc:
        log.warning("%s What is held back, and what has failed, is not known. %s", exc.message, exc.remedy)
        return []


def find_edited(current: str | None, entries: list[Entry], manifest: Manifest) -> tuple[str, ...]:
    """Find applied revisions whose files are not what they were when they were applied."""
    applied = {
        entry.revision: entry.checksum
        for entry in entries
        if entry.succeeded and entry.direction in ("upgrade", "downgrade")
    }
    pending = {revision.revision for revision in manifest.after(current) or ()}
    pending.update(owed_of(entries, current))
    return tuple(
        revision.revision
        for revision in manifest.revisions
        if revision.revision not in pending
        and applied.get(revision.revision) not in (None, manifest.checksums[revision.revision])
    )


def _exists(connection: Connection, schema: str, table: str) -> bool:
    statement = "SELECT FROM pg_tables WHERE schemaname = %s AND tablename = %s"
    return connection.execute(statement, (schema, table)).fetchone() is not None


def _writer_of(revision: str | None, entries: list[Entry]) -> str | None:
    return next((entry.package_version for entry in reversed(entries) if entry.revision == revision), None)
