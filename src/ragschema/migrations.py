"""Migrations as plain functions: what ``rag migrate`` calls, and what a service may.

Alembic keeps its environment in module globals, so one lock lets one thread of a process migrate at a time.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Literal

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.util import CommandError

from ragschema import autogenerate
from ragschema.database import VERSION_TABLE, find_schemas, migration_connection
from ragschema.environment import Applied, Run
from ragschema.errors import ConfigurationError, RagSchemaError, UsageError
from ragschema.scripts import Revision, checkout, make_config, read_revision, script_directory
from ragschema.settings import Database, find_database

State = Literal["OK", "PENDING", "AHEAD", "UNMANAGED", "EMPTY"]

_alembic = threading.Lock()


@dataclass(frozen=True)
class Result:
    """What an upgrade or downgrade did.

    Attributes:
        applied: The steps taken, in order; empty where there was nothing to do.
        current: The revision the database is at now, or None at base.
    """

    applied: list[Applied]
    current: str | None


@dataclass(frozen=True)
class Status:
    """Where a database stands.

    Attributes:
        state: OK at head; PENDING before it; AHEAD at a revision this package does not know; UNMANAGED with
            our tables but no version row; EMPTY with neither.
        current: The revision the database is at, or None.
        head: The revision this package ends at.
        pending: The revisions between, in the order they will run.
    """

    state: State
    current: str | None
    head: str
    pending: list[Revision] = field(default_factory=list)


@dataclass(frozen=True)
class HistoryEntry(Revision):
    """A revision, and whether the database has it.

    Attributes:
        is_applied: True up to and including the database's current revision.
    """

    is_applied: bool


def upgrade(
    database: Database | str | None = None,
    revision: str = "head",
    *,
    report: Callable[[Applied], None] | None = None,
) -> Result:
    """Upgrade a database, to head by default.

    Args:
        database: A database or its URL; the settings decide by default.
        revision: Where to stop: a revision id, ``head`` or ``+N``.
        report: Called after each revision.

    Raises:
        UsageError: There is no such revision.
        DatabaseAhead: The database is at a revision this package does not know.
        LockNotObtained: Another deployer held the lock for too long.
        RagSchemaError: A revision failed; it was rolled back, and those before it stay.
    """
    return _migrate(command.upgrade, database, revision, report=report)


def downgrade(
    database: Database | str | None,
    revision: str,
    *,
    allow_data_loss: bool = False,
    report: Callable[[Applied], None] | None = None,
) -> Result:
    """Downgrade a database to a revision, ``base``, or ``-N`` steps.

    Args:
        database: A database or its URL; the settings decide where it is None.
        revision: The revision that stays; those after it are reversed.
        allow_data_loss: Whether rows and column values may be destroyed.
        report: Called after each revision.

    Raises:
        DataLossRefused: Rows or values would be destroyed without ``allow_data_loss``; nothing changed.
        UsageError: There is no such revision.
    """
    return _migrate(command.downgrade, database, revision, allow_data_loss=allow_data_loss, report=report)


def status(database: Database | str | None = None) -> Status:
    """Return where a database stands; reads only, takes no lock."""
    current, has_tables = _read_current(database)
    scripts = script_directory()
    head = scripts.get_current_head() or ""
    revisions = [read_revision(script) for script in reversed(list(scripts.walk_revisions()))]
    ids = [revision.revision for revision in revisions]
    if current is None:
        return Status("UNMANAGED" if has_tables else "EMPTY", None, head, revisions)
    if current not in ids:
        return Status("AHEAD", current, head)
    pending = revisions[ids.index(current) + 1 :]
    return Status("PENDING" if pending else "OK", current, head, pending)


def history(database: Database | str | None = None) -> list[HistoryEntry]:
    """Return every revision, oldest first, and whether the database has it; reads only."""
    current, _ = _read_current(database)
    scripts = script_directory()
    known = {script.revision for script in scripts.walk_revisions()}
    applied = (
        {script.revision for script in scripts.walk_revisions("base", current)} if current in known else set()
    )
    return [
        HistoryEntry(script.revision, script.doc, script.revision in applied)
        for script in reversed(list(scripts.walk_revisions()))
    ]


def upgrade_sql(revision: str = "head", *, start: str = "base") -> str:
    """Return the SQL of an upgrade from one revision to another, without a database."""
    output = StringIO()
    with _running_alembic(make_config(Run(), output=output)) as config:
        command.upgrade(config, f"{start}:{revision}" if start != "base" else revision, sql=True)
    return output.getvalue()


def create(
    message: str, *, with_autogenerate: bool = False, database: Database | str | None = None
) -> Path | None:
    """Write a new revision in a checkout; return its path, or None where autogenerate found no difference.

    Args:
        message: What it does, in a few words.
        with_autogenerate: Draft it from the difference between the models and the database.
        database: The database to compare with, at head.

    Raises:
        ConfigurationError: This is not a checkout.
    """
    if checkout() is None:
        raise ConfigurationError(
            "Revisions are written in a checkout of ragschema, and this is an installed package.",
            "Clone the repository and run `uv run rag migrate create` there.",
        )
    run = Run(_resolve(database) if with_autogenerate else None)
    with _running_alembic(make_config(run)) as config, redirect_stdout(sys.stderr):
        script = command.revision(
            config, message, autogenerate=with_autogenerate, rev_id=autogenerate.new_revision_id()
        )
    scripts = script if isinstance(script, list) else [script]
    return next((Path(script.path) for script in scripts if script is not None), None)


def _migrate(
    alembic_command: Callable[[Config, str], None],
    database: Database | str | None,
    revision: str,
    *,
    allow_data_loss: bool = False,
    report: Callable[[Applied], None] | None,
) -> Result:
    run = Run(_resolve(database), allow_data_loss=allow_data_loss)
    if report is not None:
        run.report = report
    with _running_alembic(make_config(run)) as config:
        alembic_command(config, revision)
    return Result(run.applied, run.current)


@contextmanager
def _running_alembic(config: Config) -> Iterator[Config]:
    """Let one thread use alembic, and turn its errors into ours."""
    with _alembic:
        try:
            yield config
        except CommandError as exc:
            raise UsageError(
                f"{str(exc).rstrip('.')}.", "Run `rag migrate history` to see the revisions."
            ) from exc


def _resolve(database: Database | str | None) -> Database:
    return database if isinstance(database, Database) else find_database(database)


def _read_current(database: Database | str | None) -> tuple[str | None, bool]:
    """Return the current revision, and whether our tables exist."""
    with migration_connection(_resolve(database)) as connection:
        schema = find_schemas(connection).target
        options = {"version_table": VERSION_TABLE, "version_table_schema": schema}
        heads = MigrationContext.configure(connection, opts=options).get_current_heads()
        if len(heads) > 1:
            raise RagSchemaError(
                f"{VERSION_TABLE} has {len(heads)} rows: {', '.join(heads)}.",
                "Find out who wrote the second, and delete the wrong one.",
            )
        return (heads[0] if heads else None), sa.inspect(connection).has_table("rag_documents", schema=schema)
