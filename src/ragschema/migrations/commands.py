"""Commands that change a database or plan it; each that runs revisions imports Alembic when it is called."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from io import StringIO
from typing import TYPE_CHECKING

from ragschema.database.backup import backup_command
from ragschema.database.connections import Opened, held_reachable, opened
from ragschema.database.options import Options
from ragschema.errors import LockNotObtained
from ragschema.migrations.adoption import Adoption, find_adoption
from ragschema.migrations.alembic_lock import ALEMBIC_LOCK, alembic_config
from ragschema.migrations.request import (
    Applied,
    CheckDrift,
    DatabaseArgument,
    Request,
    Result,
    resolve_options,
)
from ragschema.migrations.retries import retrying
from ragschema.revisions.manifest import Manifest, Revision, RevisionId, describe_ids, read_manifest
from ragschema.state.glance import glance_at
from ragschema.state.owed import find_owed
from ragschema.state.soundness import find_soundness
from ragschema.state.status import read_current

if TYPE_CHECKING:
    import sqlalchemy as sa

    from ragschema.migrations.watch import Build
    from ragschema.planning.document import Plan
    from ragschema.planning.rollback import Rollback

log = logging.getLogger(__name__)


def upgrade(
    database: DatabaseArgument = None,
    revision: str = "head",
    *,
    schema: str | None = None,
    expand_only: bool = False,
    allow_data_loss: bool = False,
    report: Callable[[Applied], None] | None = None,
    show_build: Callable[[Build | None], None] | None = None,
    check_drift: CheckDrift = "warn",
    check: Callable[[sa.Connection, str], None] | None = None,
    replay: bool = False,
) -> Result:
    """Upgrade a database, to head by default.

    At head it takes no lock and writes nothing. In a schema that has nothing of ours the head script makes all tables
    at once, in one transaction.

    Args:
        database: A database, its URL, or `Options`; the settings decide by default.
        revision: Where to stop: a revision id, ``head`` or ``+N``.
        schema: The schema of the tables; the first of the search_path by default.
        expand_only: Pass over contract revisions; they are owed until an upgrade without it runs them.
        allow_data_loss: Whether rows and column values may be destroyed.
        report: Called after each revision.
        show_build: Shows the progress of an index build; lines are logged by default.
        check_drift: What to do where the database is not what its revision says: ``fail``, ``warn`` or ``off``.
        check: Called with the connection and the schema before anything changes; raises to refuse.
        replay: Run each revision in its turn also where the head script would do.

    Raises:
        UsageError: There is no such revision.
        DatabaseAhead: The database is at a revision this package does not know.
        DriftFound: Objects of its revision are missing, or work on another schema.
        RowsHidden: Row security hides rows of our tables from this role.
        ConfigurationError: The server is a standby, or this session may only read.
        LockNotObtained: Another deployer held the lock for too long, or a session the tables.
        RagSchemaError: A revision failed; it was rolled back, and those before it stay.
    """
    with held_reachable(resolve_options(database, schema)) as options:
        manifest = read_manifest()
        at, current, owed = _first_look(options, manifest)
        found = _find_nothing_to_do(at, manifest, current, owed, revision, expand_only=expand_only)
        if found is not None:
            return found
        request = Request(
            replace(options, is_announced=True),
            allow_data_loss=allow_data_loss,
            expand_only=expand_only,
            report=report,
            show_build=show_build,
            check_drift=check_drift,
            check=check,
        )
        if current is None and revision == "head" and not (expand_only or replay):
            from ragschema.migrations.creation import create  # what it needs is loaded where it is needed

            if (created := create(request)) is not None:
                return created
        return _run("upgrade", request, revision)


def downgrade(
    database: DatabaseArgument,
    revision: str,
    *,
    schema: str | None = None,
    allow_data_loss: bool = False,
    report: Callable[[Applied], None] | None = None,
    check: Callable[[sa.Connection, str], None] | None = None,
) -> Result:
    """Downgrade a database to a revision, ``base``, or ``-N`` steps.

    Args:
        database: A database, its URL, or `Options`; the settings decide where it is None.
        revision: The revision that stays; those after it are reversed.
        schema: The schema of the tables; the first of the search_path by default.
        allow_data_loss: Whether rows and column values may be destroyed.
        report: Called after each revision.
        check: Called with the connection and the schema before anything changes; raises to refuse.

    Raises:
        DataLossRefused: Rows or values would be destroyed without ``allow_data_loss``; nothing changed.
        UsageError: There is no such revision.
    """
    options = resolve_options(database, schema)
    request = Request(options, allow_data_loss=allow_data_loss, report=report, check=check)
    return _run("downgrade", request, revision)


def foresee_rollback(database: DatabaseArgument, revision: str, *, schema: str | None = None) -> Rollback:
    """Return what `downgrade` would reverse and destroy; reads only, takes no lock.

    Args:
        database: A database, its URL, or `Options`; the settings decide where it is None.
        revision: The revision that stays, ``base``, or ``-N``.
        schema: The schema of the tables; the first of the search_path by default.

    Raises:
        UsageError: There is no such revision.
    """
    from ragschema.planning import rollback

    with ALEMBIC_LOCK:
        return rollback.foresee_rollback(resolve_options(database, schema), revision)


def stamp(
    database: DatabaseArgument, revision: str, *, schema: str | None = None, force: bool = False
) -> Result:
    """Say which revision a database is at, without running any; writes the version table and the history.

    Args:
        database: A database, its URL, or `Options`; the settings decide where it is None.
        revision: The revision, or ``base``.
        schema: The schema of the tables; the first of the search_path by default.
        force: Whether to stamp a revision that the tables are not.

    Raises:
        DriftFound: The tables are not those of the revision; nothing was stamped.
        UsageError: There is no such revision.
    """
    return _run("stamp", Request(resolve_options(database, schema), force=force), revision)


def adopt(
    database: DatabaseArgument = None, *, baseline: str | None = None, schema: str | None = None
) -> Adoption:
    """Stamp a database that has our tables and no version row, with the revision that its catalogue fits.

    Args:
        database: A database, its URL, or `Options`; the settings decide by default.
        baseline: The revision it is said to be at; verified all the same.
        schema: The schema of the tables; the first of the search_path by default.

    Raises:
        DriftFound: It fits no revision, or not the one stated; nothing was stamped.
    """
    with held_reachable(resolve_options(database, schema)) as options:
        adoption = find_adoption(options, baseline)
        if not adoption.was_managed:
            stamp(replace(options, is_announced=True), adoption.revision)
        return adoption


def plan(
    database: DatabaseArgument = None,
    revision: str = "head",
    *,
    schema: str | None = None,
    expand_only: bool = False,
    replay: bool = False,
) -> Plan:
    """Return what `upgrade` would run on a database, and what it does there; reads only, takes no lock.

    Args:
        database: A database, its URL, or `Options`; the settings decide by default.
        revision: Where to stop: a revision id, ``head`` or ``+N``.
        schema: The schema of the tables; the first of the search_path by default.
        expand_only: Pass over contract revisions.
        replay: Plan every revision also where the head script would do.

    Raises:
        UsageError: There is no such revision.
        UnmanagedDatabase: The database has our tables and no version row.
        DatabaseAhead: It is at a revision this package does not know.
    """
    from ragschema.planning.plan import make_plan

    with ALEMBIC_LOCK:
        return make_plan(resolve_options(database, schema), revision, expand_only=expand_only, replay=replay)


def upgrade_sql(revision: str = "head", *, start: str = "base") -> str:
    """Return the SQL of an upgrade from one revision to another, without a database."""
    output = StringIO()
    with alembic_config(Request(), output) as (command, config):
        command.upgrade(config, f"{start}:{revision}" if start != "base" else revision, sql=True)
    return output.getvalue()


def _find_nothing_to_do(
    at: Opened,
    manifest: Manifest,
    current: str | None,
    owed: tuple[RevisionId, ...],
    revision: str,
    *,
    expand_only: bool,
) -> Result | None:
    """Return the result if the upgrade has nothing to do, by what the first look found.

    Says when to have a backup: before what older code reads is dropped.
    """
    pending = manifest.after(current)
    if current is None or pending is None or (target := _find_target(revision, manifest, pending)) is None:
        return None
    missing = [each for each in pending if each.revision <= target]
    due = [] if expand_only else [each for each in owed if each <= target]
    contracts = due + [each.revision for each in missing if each.deploy == "contract"]
    if contracts and not expand_only:
        log.info(
            "%s pending, %s: have a backup, made by %s",
            "A contract revision is" if len(contracts) == 1 else "Contract revisions are",
            describe_ids(contracts),
            backup_command(at.database, at.schemas.target),
        )
    return None if missing or due else Result([], current, owed)


def _find_target(revision: str, manifest: Manifest, pending: Sequence[Revision]) -> str | None:
    """Return the id that a target means to a database with these revisions pending; None: Alembic says why not."""
    if revision in ("head", "heads"):
        return manifest.head
    steps = int(revision) if re.fullmatch(r"\+\d{1,9}", revision) else 0
    if steps:
        return pending[steps - 1].revision if steps <= len(pending) else None
    return revision if revision in manifest.checksums else None


def _first_look(options: Options, manifest: Manifest) -> tuple[Opened, str | None, tuple[RevisionId, ...]]:
    """Return what a connection found, which is closed again, the current revision, and what is owed."""

    def look() -> tuple[Opened, str | None, tuple[RevisionId, ...]]:
        with opened(options) as at:
            connection, schema = at.connection, at.schemas.target
            if (seen := glance_at(connection, schema)) is not None:
                if seen.current == manifest.head:
                    seen.soundness.refuse()
                return at, seen.current, seen.owed
            current = read_current(connection, schema)
            if current == manifest.head:
                find_soundness(connection, schema, current).refuse()
            return at, current, find_owed(connection, schema, current)

    try:
        return look()
    except LockNotObtained:
        if not options.retries:
            raise
        again = replace(options, retries=options.retries - 1)
        return retrying(again, lambda exc: isinstance(exc, LockNotObtained))(look)


def _run(name: str, request: Request, revision: str) -> Result:
    from ragschema.revisions.scripts import RESULT_ATTRIBUTE  # with Alembic

    with alembic_config(request) as (command, config):
        getattr(command, name)(config, revision)
        result: Result = config.attributes[RESULT_ATTRIBUTE]
        return result
