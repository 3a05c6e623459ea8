"""A plan: the SQL that an upgrade would run on a database, statement by statement, with what it does there.

Making one reads only, and takes no deployer lock.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ragschema.database.citus import find_place
from ragschema.database.connections import Opened, opened
from ragschema.database.drivers import driver_of
from ragschema.database.options import Options
from ragschema.database.row_security import refuse_hidden
from ragschema.errors import PlanStale, UsageError
from ragschema.planning.document import Plan, RevisionPlan, StatementPlan
from ragschema.revisions.head_script import HeadScript
from ragschema.revisions.manifest import Manifest, Revision, describe_ids, read_manifest, unknown_revision
from ragschema.state.catalogue import Catalogue, read_catalogue
from ragschema.state.emptiness import find_creation
from ragschema.state.owed import find_owed
from ragschema.state.soundness import find_soundness
from ragschema.state.status import read_current, refuse_unmanaged

_ON_CITUS = (
    "On Citus: each statement takes its locks here and on {}, where the rows are, in one transaction. lock_timeout"
    " holds on every node, and every node must answer. What Citus refuses is not looked for: `rag migrate lint --citus`"
    " does."
)
_AT_ONCE = "All tables at once, by the head script in place of {} revisions; --replay plans those."

if TYPE_CHECKING:
    import sqlalchemy as sa


def make_plan(
    options: Options, revision: str = "head", *, expand_only: bool = False, replay: bool = False
) -> Plan:
    """Plan an upgrade; reads only, takes no deployer lock.

    Takes Alembic's ``op``: call it where no migration runs in this process.

    Args:
        options: The database.
        revision: Where to stop: a revision id, ``head`` or ``+N``.
        expand_only: Pass over contract revisions.
        replay: Plan every revision also where the head script would do.

    Raises:
        UsageError: There is no such revision.
        UnmanagedDatabase: The database has our tables and no version row.
        DatabaseAhead: It is at a revision this package does not know.
        LockNotObtained: The size of a table cannot be read.
        RowsHidden: Row security hides rows of our tables from this role.
        DriftFound: A function works on another schema than its own.
    """
    manifest = read_manifest()
    options = replace(options, application_name="ragschema plan")
    with opened(options) as at:
        connection = at.connection
        connection.execute("SET default_transaction_read_only = on")
        current = read_current(connection, at.schemas.target)
        chosen = _choose(manifest, current, at, revision)
        owed = find_owed(connection, at.schemas.target, current)
        target = chosen[-1].revision if chosen else str(current)
        due = [] if expand_only else _due(manifest, owed, revision)
        passed = [each.revision for each in chosen if expand_only and each.deploy == "contract"]
        pending = [*due, *(each for each in chosen if each.revision not in passed)]
        notes = [f"Passes over contract revisions: {describe_ids(passed)}."] if passed else []
        if pending and (place := find_place(connection, at.schemas.target)) is not None:
            notes.append(_ON_CITUS.format(f"{place.host}:{place.port}"))
        refuse_hidden(connection, at.schemas.target)  # it counts rows, and a part of them says nothing
        find_soundness(connection, at.schemas.target, None if chosen else current).refuse()
        if not chosen and current is None:
            raise UsageError("There is no revision to plan.", "Leave out --to and --expand-only.")
        plan = Plan(
            str(at.database),
            at.schemas.target,
            current,
            target,
            _checksum(read_catalogue(connection, at.schemas.target), current),
            "static",
            tuple(notes),
            (),
            expand_only,
        )
        if not pending:
            return plan
        if revision == "head" and not (expand_only or replay):
            script = find_creation(connection, at.schemas.target, manifest)
            if script is not None:
                return replace(
                    plan,
                    notes=(_AT_ONCE.format(len(pending)),),
                    revisions=(_step_of(script),),
                    is_creation=True,
                )
        from ragschema.planning.statements import plan_revisions  # with Alembic: at head we do without it

        method, made, revisions = plan_revisions(at, manifest, current, pending, owed)
        return replace(plan, method=method, notes=(*made, *notes), revisions=tuple(revisions))


def _step_of(script: HeadScript) -> RevisionPlan:
    """Return the head script as the one step of a plan: it touches no table that is there already."""
    statements = tuple(StatementPlan(each, False, (), (), ()) for each in script.statements)
    return RevisionPlan(script.revision, script.summary, "expand", script.checksum, "static", (), statements)


def _choose(manifest: Manifest, current: str | None, at: Opened, revision: str) -> Sequence[Revision]:
    """Return the revisions that an upgrade would run."""
    pending = manifest.pending(current)
    if current is None:
        refuse_unmanaged(at.connection, at.schemas.target)
    return pending[: _count(manifest, pending, revision)]


def _due(manifest: Manifest, owed: Sequence[str], revision: str) -> list[Revision]:
    """Return the owed revisions that an upgrade to a revision runs before the pending ones."""
    fitting = [each.revision for each in manifest.revisions if each.revision.startswith(revision)]
    last = fitting[0] if len(fitting) == 1 else manifest.head
    return [each for each in manifest.revisions if each.revision in owed and each.revision <= last]


def _count(manifest: Manifest, pending: Sequence[Revision], revision: str) -> int:
    """Return how many of the pending revisions an upgrade to a revision would run."""
    if revision in ("head", "heads"):
        return len(pending)
    if revision.startswith("+") and revision[1:].isdecimal() and 0 < int(revision[1:]) <= len(pending):
        return int(revision[1:])
    fitting = [each.revision for each in manifest.revisions if each.revision.startswith(revision)]
    if len(fitting) != 1 or not revision:
        raise unknown_revision(revision)
    return next((number for number, each in enumerate(pending, 1) if each.revision == fitting[0]), 0)


def check_plan(plan: Plan, connection: sa.Connection, schema: str) -> None:
    """Refuse to carry out a plan on a database, or with revisions, that are not those it was made for.

    Args:
        plan: The plan.
        connection: A connection to the database; it is only read.
        schema: The schema that is to be migrated.

    Raises:
        PlanStale: The schema, the database's revision, its catalogue or a pending revision is another one.
    """
    driver = driver_of(connection)
    if schema != plan.schema:
        raise _stale(f"The plan is for schema {plan.schema}, not for {schema}.")
    with driver.transaction(force_rollback=True):  # it may find no version table, which ends a transaction
        current = read_current(driver, schema)
        owed = find_owed(driver, schema, current)
    if current != plan.current:
        raise _stale(
            f"The plan starts at {plan.current or 'an empty database'}, and the database is at"
            f" {current or 'no revision'}."
        )
    manifest = read_manifest()
    if plan.is_creation:
        script = find_creation(driver, schema, manifest)
        if script is None or [each.checksum for each in plan.revisions] != [script.checksum]:
            raise _stale("The plan is to make all tables by a head script that does not fit any more.")
        return
    after = [each for each in manifest.after(current) or () if each.revision <= plan.target]
    if plan.expand_only:
        wanted = [each.revision for each in after if each.deploy == "expand"]
    else:
        wanted = [*(each for each in owed if each <= plan.target), *(each.revision for each in after)]
    if [each.revision for each in plan.revisions] != wanted:
        raise _stale("The plan's revisions are not those that this ragschema would run.")
    for each in plan.revisions:
        if each.checksum != manifest.checksums[each.revision]:
            raise _stale(f"Revision {each.revision} was edited after the plan was made.")
    if _checksum(read_catalogue(driver, schema), current) != plan.catalogue:
        raise _stale("The database's catalogue is not what it was when the plan was made.")


def refuse_overtaken(plan: Plan, applied: Sequence[object], current: str | None) -> None:
    """Refuse a plan of which nothing was left to do: somebody else has brought the database to its target.

    Raises:
        PlanStale: That is so.
    """
    if plan.revisions and not applied:
        raise _stale(
            f"The plan starts at {plan.current or 'an empty database'}, and the database is at {current} already."
        )


def _stale(fact: str) -> PlanStale:
    return PlanStale(
        fact,
        "Nothing was changed. Make a new plan with `rag migrate plan --out FILE`, read it, and run that one.",
    )


def _checksum(catalogue: Catalogue, current: str | None) -> str:
    """Return the SHA-256 of a catalogue; an empty database gets its extension before a plan is checked."""
    if current is None:
        catalogue = {name: text for name, text in catalogue.items() if name != "extension vector"}
    return hashlib.sha256(json.dumps(catalogue, sort_keys=True).encode()).hexdigest()
