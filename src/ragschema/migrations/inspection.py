"""Inspection of a database: each function reads only, and takes no lock. Part of `ragschema.migrations`."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ragschema.database.connections import opened
from ragschema.database.row_security import HIDDEN, is_refusal, read_hidden, refuse_hidden, rows_hidden
from ragschema.database.server import VERSION_TABLE
from ragschema.errors import DatabaseUnreachable, LockNotObtained, RowsHidden, UnmanagedDatabase, UsageError
from ragschema.migrations.request import DatabaseArgument, resolve_options
from ragschema.revisions.manifest import Revision, ahead, read_manifest
from ragschema.state import attempts as history_table
from ragschema.state.attempts import Entry
from ragschema.state.comparison import Drift
from ragschema.state.drift import find_drift
from ragschema.state.elsewhere import describe, find_elsewhere
from ragschema.state.owed import owed_of
from ragschema.state.soundness import question, read_answer
from ragschema.state.status import Status, behind, read_current, read_status, require_current

if TYPE_CHECKING:
    import sqlalchemy as sa

    from ragschema.schema.fact_rules import BrokenFacts
    from ragschema.schema.row_rules import BrokenDocument

_LOOK = 2.0  # seconds that one look of `wait` may take beyond the time that is left


@dataclass(frozen=True)
class HistoryEntry(Revision):
    """A revision, whether the database has it, and the attempts at it.

    Attributes:
        revision: Its id; one that is not in this package has any name.
        is_applied: True up to and including the database's current revision, but for what is owed.
        is_owed: Whether it was passed over and is still to be run.
        attempts: What the history table recorded, oldest first.
    """

    revision: str
    is_applied: bool
    attempts: tuple[Entry, ...] = ()
    is_owed: bool = False


def verify(database: DatabaseArgument = None, *, schema: str | None = None) -> Drift:
    """Compare a database with what its revision says; reads only, needs no second database.

    Raises:
        UnmanagedDatabase: It says no revision.
        DatabaseAhead: This package does not know its revision.
    """
    manifest = read_manifest()
    with opened(resolve_options(database, schema)) as at:
        try:
            current = require_current(at.connection, at.schemas.target)
        except UnmanagedDatabase as exc:
            exc.evidence = describe(find_elsewhere(at, manifest))
            raise
        manifest.pending(current)  # refuses a revision that is not known
        return find_drift(at.connection, at.schemas.target, current)


def verify_data(database: DatabaseArgument = None, *, schema: str | None = None) -> list[BrokenDocument]:
    """List the documents whose chunks are not what their versions say; reads every chunk's row and event once.

    Raises:
        UsageError: The database is at a revision that does not keep these rules yet.
        RowsHidden: Row security hides rows of our tables from this role.
    """
    from ragschema.schema.row_rules import (
        DELETION_SINCE,
        EMBEDDINGS_SINCE,
        SINCE,
        BrokenDocument,
        broken_documents,
    )

    manifest = read_manifest()
    with opened(resolve_options(database, schema)) as at:
        refuse_hidden(at.connection, at.schemas.target)
        current = read_current(at.connection, at.schemas.target)
        to_come = {revision.revision for revision in manifest.after(current) or ()}
        if SINCE in to_come:
            raise UsageError(
                f"The database is at {current or 'no revision'}; the rules for rows hold from {SINCE} on.",
                "Run `rag migrate` first.",
            )
        statement = broken_documents(
            embeddings=EMBEDDINGS_SINCE not in to_come, deletion=DELETION_SINCE not in to_come
        )
        rows = at.connection.execute(str(statement.element).encode()).fetchall()
        return [BrokenDocument(article_id, problem, tuple(ids)) for article_id, problem, ids in rows]


def verify_facts(database: DatabaseArgument = None, *, schema: str | None = None) -> list[BrokenFacts]:
    """List the facts of the graph whose is_current is not what the chunks say; reads every fact and mention once.

    Where the revision of the database keeps no graph yet there are none.

    Raises:
        RowsHidden: Row security hides rows of our tables from this role.
    """
    from ragschema.schema.fact_rules import FACTS_SINCE, BrokenFacts, broken_facts

    manifest = read_manifest()
    with opened(resolve_options(database, schema)) as at:
        refuse_hidden(at.connection, at.schemas.target)
        current = read_current(at.connection, at.schemas.target)
        if FACTS_SINCE in {revision.revision for revision in manifest.after(current) or ()}:
            return []
        rows = at.connection.execute(str(broken_facts().element).encode()).fetchall()
        return [BrokenFacts(kind, problem, tuple(ids)) for kind, problem, ids in rows]


def status(database: DatabaseArgument = None, *, schema: str | None = None) -> Status:
    """Return where a database stands; reads only, takes no lock."""
    manifest = read_manifest()
    with opened(resolve_options(database, schema)) as at:
        return read_status(at, manifest)


def wait(
    database: DatabaseArgument = None,
    *,
    timeout: float,
    minimum: str | None = None,
    schema: str | None = None,
) -> Status:
    """Wait until a database is at head, or at a revision after ``minimum``; reads only.

    Args:
        database: A database, its URL, or `Options`; the settings decide by default.
        timeout: Seconds.
        minimum: The revision that is enough; head by default.
        schema: The schema of the tables; the first of the search_path by default.

    Raises:
        PendingRevisions: It still is not.
        DatabaseUnreachable: It still does not answer.
        LockNotObtained: Its version table is still locked.
        ConfigurationError: It refuses this login, database or encryption, which no waiting heals.
        DatabaseAhead: It is at a revision this package does not know.
        DriftFound: Objects of its revision are missing, or work on another schema.
        RowsHidden: Row security hides the revision from this role.
    """
    deadline = time.monotonic() + timeout
    options = resolve_options(database, schema)
    while True:
        unreachable: DatabaseUnreachable | LockNotObtained | None = None
        try:
            # a look that begins late is answered all the same: cut off, it would call a server dead that lives
            found = status(replace(options, deadline=max(deadline, time.monotonic() + _LOOK)))
        except (DatabaseUnreachable, LockNotObtained) as exc:
            unreachable = exc
        else:
            if found.state == "AHEAD":
                raise ahead(str(found.current))
            if found.soundness is not None:
                found.soundness.refuse()
            missing = {revision.revision for revision in found.pending}
            if not missing if minimum is None else found.current is not None and minimum not in missing:
                return found
        if time.monotonic() >= deadline:
            if unreachable is not None:
                raise unreachable
            error = behind(
                found.current,
                minimum or found.head,
                f"It has been for {timeout:g} s. Run `rag migrate`, or look why it has not run.",
            )
            error.evidence = describe(found.elsewhere)
            raise error
        options = replace(options, is_announced=True)
        time.sleep(min(0.5, max(0.0, deadline - time.monotonic())))


def assert_current(connection: sa.Connection, minimum: str | None = None) -> str:
    """Assert that a service's database is new enough for it, and whole; two SELECTs, no Alembic.

    Args:
        connection: A SQLAlchemy connection, or a session's ``session.connection()``.
        minimum: The oldest revision the service works with; this package's head by default. A database that
            is further ahead is fine.

    Returns:
        The revision the database is at.

    Raises:
        PendingRevisions: The database is older, or not migrated at all.
        DriftFound: Objects of its revision are missing, or work on another schema.
        RowsHidden: Row security hides the revision from this role.
    """
    from sqlalchemy.exc import ProgrammingError

    manifest = read_manifest()
    needed = minimum or manifest.head
    try:
        found = connection.exec_driver_sql(f"SELECT version_num FROM {VERSION_TABLE}").scalar()
    except ProgrammingError as exc:
        if is_refusal(exc.orig):  # by the service's own row_security = off
            raise RowsHidden(
                f"Row security hides the row of {VERSION_TABLE} from this role, so its revision is not known.",
                "Run `rag migrate health` as this role: it names the policy, and the way out.",
            ) from exc
        if getattr(exc.orig, "sqlstate", None) != "42P01":  # undefined_table: not migrated at all
            raise
        found = None
    else:
        if found is None and (error := _hidden_version(connection)) is not None:
            raise error
    if found is None or str(found) < needed:  # ids are UTC timestamps: text order is time order
        raise behind(
            found, needed, "Run `rag migrate` before the service, or `rag migrate wait` in its start-up."
        )
    row = connection.exec_driver_sql(question(_SCHEMA_OF_THE_VERSION).decode()).one_or_none()
    read_answer(row, "of the search_path", str(found)).refuse()
    return str(found)


_SCHEMA_OF_THE_VERSION = (
    f"(SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
    f" WHERE c.oid = to_regclass('{VERSION_TABLE}'))"
)


def _hidden_version(connection: sa.Connection) -> RowsHidden | None:
    """Return the error that says from whom the version table's row is hidden; None where it is from nobody."""
    rows = connection.exec_driver_sql(HIDDEN.replace("%(schema)s", _SCHEMA_OF_THE_VERSION))
    hidden = [each for each in read_hidden(rows) if each.table == VERSION_TABLE]
    return rows_hidden(hidden) if hidden else None


def history(database: DatabaseArgument = None, *, schema: str | None = None) -> list[HistoryEntry]:
    """Return every revision, oldest first, whether the database has it, and the attempts at it; reads only."""
    manifest = read_manifest()
    with opened(resolve_options(database, schema)) as at:
        current = read_current(at.connection, at.schemas.target)
        attempts = history_table.read(at.connection, at.schemas.target)
    pending = {revision.revision for revision in manifest.after(current) or ()}
    owed = owed_of(attempts, current)
    known = [
        HistoryEntry(
            revision.revision,
            revision.summary,
            revision.deploy,
            is_applied=current is not None and revision.revision not in {*pending, *owed},
            is_owed=revision.revision in owed,
            attempts=tuple(attempt for attempt in attempts if attempt.revision == revision.revision),
        )
        for revision in manifest.revisions
    ]
    if current is not None and manifest.after(current) is None:
        known.append(HistoryEntry(current, "(not in this package)", "expand", is_applied=True))
    return known
