"""A rollback foreseen: which database, which revisions, and what reversing each would destroy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ragschema.database.backup import backup_command
from ragschema.database.connections import opened
from ragschema.database.drivers import driver_of, engine_on
from ragschema.database.options import Options
from ragschema.database.row_security import refuse_hidden
from ragschema.errors import PlanStale, UsageError
from ragschema.planning.dependents import find_dependents, find_drops_of, refuse_dependents
from ragschema.planning.losses import StepLoss, count_losses, find_irreversible, read_losses_of
from ragschema.revisions.manifest import Manifest, read_manifest, unknown_revision
from ragschema.revisions.scripts import script_directory
from ragschema.state.cluster import refuse_way_back
from ragschema.state.owed import find_owed
from ragschema.state.status import read_current

if TYPE_CHECKING:
    import sqlalchemy as sa


@dataclass(frozen=True)
class Reversal:
    """A revision to reverse.

    Attributes:
        revision: Its id.
        summary: The first line of its docstring.
        losses: What reversing it would destroy, in words; empty where that is nothing.
        is_owed: Whether it was passed over: then nothing of it is there to reverse.
    """

    revision: str
    summary: str
    losses: tuple[str, ...]
    is_owed: bool = False


@dataclass(frozen=True)
class Rollback:
    """What a rollback would do.

    Attributes:
        database: The database, in words, without its password.
        schema: The schema of the tables.
        current: The revision it is at; None where it says none.
        target: The revision that would stay; None at base.
        reversals: The revisions to reverse, in the order in which they would be: newest first.
        backup: The command that takes a backup first.
    """

    database: str
    schema: str
    current: str | None
    target: str | None
    reversals: tuple[Reversal, ...]
    backup: str


def foresee_rollback(options: Options, revision: str) -> Rollback:
    """Find out what a rollback would do; reads only, takes no deployer lock.

    Counts the rows that would go. Takes Alembic's ``op``: call it where no migration runs in this process.

    Args:
        options: The database.
        revision: The revision that stays, ``base``, or ``-N``.

    Raises:
        UsageError: There is no such revision.
        DatabaseAhead: The database is at a revision this package does not know.
        RowsHidden: Row security hides rows of our tables from this role.
        RevisionRefused: On a node of Citus a tenant does not go so far back.
        DependentsFound: Something of somebody's depends on what would be dropped.
    """
    manifest = read_manifest()
    with opened(options) as at:
        refuse_hidden(at.connection, at.schemas.target)
        current = read_current(at.connection, at.schemas.target)
        manifest.pending(current)  # refuses a revision that is not known
        applied = _applied(manifest, current)
        owed = find_owed(at.connection, at.schemas.target, current)
        kept = _count_kept(manifest, len(applied), revision)
        doomed = list(reversed(applied[kept:]))
        refuse_way_back(at.connection, at.schemas.target, doomed)
        scripts = (
            {script.revision: script for script in script_directory().walk_revisions()} if doomed else {}
        )
        if dependents := find_dependents(at.connection, at.schemas.target, current):
            refuse_dependents(
                dependents,
                (
                    (each, "downgrade", find_drops_of(scripts[each], "downgrade"))
                    for each in doomed
                    if each not in owed
                ),
            )
        at.connection.autocommit = False
        with engine_on(at.connection).connect() as connection:
            reversals = tuple(
                Reversal(
                    each,
                    next(known.summary for known in manifest.revisions if known.revision == each),
                    () if each in owed else _describe(connection, read_losses_of(scripts[each], "downgrade")),
                    is_owed=each in owed,
                )
                for each in doomed
            )
        return Rollback(
            str(at.database),
            at.schemas.target,
            current,
            applied[kept - 1] if kept else None,
            reversals,
            backup_command(at.database, at.schemas.target),
        )


def _describe(connection: sa.Connection, losses: Sequence[StepLoss]) -> tuple[str, ...]:
    return (*map(str, count_losses(connection, losses)), *find_irreversible(connection, losses))


def check_rollback(foreseen: Rollback, connection: sa.Connection, schema: str) -> None:
    """Refuse to roll a database back that has moved since it was asked.

    Raises:
        PlanStale: It is at another revision.
    """
    driver = driver_of(connection)
    with driver.transaction(force_rollback=True):  # it may find no version table, which ends a transaction
        current = read_current(driver, schema)
    if current != foreseen.current:
        raise PlanStale(
            f"The database was at {foreseen.current or 'base'} when you were asked, and is at {current or 'base'}.",
            "Nothing was changed. Run the same command again.",
        )


def _applied(manifest: Manifest, current: str | None) -> Sequence[str]:
    known = [each.revision for each in manifest.revisions]
    return known[: known.index(current) + 1] if current in known else []


def _count_kept(manifest: Manifest, applied: int, revision: str) -> int:
    """Return how many of the applied revisions stay."""
    if revision == "base":
        return 0
    if revision in ("head", "heads"):
        return applied
    if revision.startswith("-") and revision[1:].isdecimal():
        if int(revision[1:]) > applied:
            raise UsageError(
                f"There are not {revision[1:]} revisions to reverse: the database has {applied}.",
                "Give a smaller number, or base.",
            )
        return applied - int(revision[1:])
    fitting = [
        place for place, each in enumerate(manifest.revisions, 1) if each.revision.startswith(revision)
    ]
    if len(fitting) != 1 or not revision:
        raise unknown_revision(revision)
    return min(fitting[0], applied)
