"""Statements of a plan: rehearsed where there is a scratch server, read in any case."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import sqlalchemy as sa
from alembic.script import Script
from sqlalchemy.exc import DBAPIError

from ragschema.database.connections import Opened
from ragschema.database.drivers import engine_on
from ragschema.database.sqlstates import is_undefined, server_message
from ragschema.errors import RagSchemaError
from ragschema.planning.document import Lock, Method, RevisionPlan, StatementPlan
from ragschema.planning.effects import Effect, is_framing, rank, stronger
from ragschema.planning.hazards import Hazard, find_hazards
from ragschema.planning.losses import StepLoss, count_losses, count_risked
from ragschema.planning.prechecks import find_in_the_way
from ragschema.planning.rehearsal import Ran, Rehearsal, Rehearsed, rehearse
from ragschema.planning.scratch_server import is_installed
from ragschema.planning.table_sizes import Tables, read_tables
from ragschema.planning.text_effects import Analysis
from ragschema.revisions.docstrings import read_deletion
from ragschema.revisions.manifest import Manifest, Revision
from ragschema.revisions.offline import RevisionSql, read_sql
from ragschema.revisions.scripts import script_directory
from ragschema.words import counted

_NOT_INSTALLED = "Found by static analysis: ragschema[embedded], which would rehearse, is not installed."


@dataclass(frozen=True)
class _Step:
    """A statement to plan, as it ran or as it was read."""

    sql: str
    is_autocommit: bool
    is_helper: bool
    ran: Ran | None = None


@dataclass(frozen=True)
class _Draft:
    """A revision to plan."""

    revision: Revision
    method: Method
    steps: list[_Step]
    hazards: list[Hazard]


def plan_revisions(
    at: Opened,
    manifest: Manifest,
    current: str | None,
    pending: Sequence[Revision],
    owed: Collection[str],
) -> tuple[Method, list[str], list[RevisionPlan]]:
    """Plan revisions on a database that owes some; return the method, notes on it, and the plans.

    Takes Alembic's ``op``: call it where no migration runs in this process. Closes the connection.
    """
    scripts: dict[str, Script] = {script.revision: script for script in script_directory().walk_revisions()}
    ids = [each.revision for each in manifest.revisions]
    passed = ids[: ids.index(current) + 1] if current else []
    applied = [scripts[revision] for revision in passed if revision not in owed]
    texts = [read_sql(scripts[each.revision], "upgrade") for each in pending]
    tables = read_tables(at.connection, at.schemas.target)
    rehearsal, notes = _try_to_rehearse(at, applied, [scripts[each.revision] for each in pending])
    rehearsed = rehearsal.revisions if rehearsal is not None else []
    drafts = [_draft(revision, text, ran) for revision, text, ran in zip_longest(pending, texts, rehearsed)]
    analysis = Analysis(tables)
    at.connection.autocommit = False
    with engine_on(at.connection).connect() as connection:
        plans = []
        for draft in drafts:
            script = scripts[draft.revision.revision]
            hazards = _judge(draft, current, _precheck(script, connection))
            if current is not None and (deletion := read_deletion(script.module.__doc__ or "")):
                hazards.append(Hazard("data-loss", f"says itself that it {deletion.rstrip('.')}."))
            statements = _plan_statements(draft, analysis, tables, connection)
            checksum = manifest.checksums[draft.revision.revision]
            plans.append(
                RevisionPlan(
                    draft.revision.revision,
                    draft.revision.summary,
                    draft.revision.deploy,
                    checksum,
                    draft.method,
                    tuple(hazards),
                    tuple(statements),
                )
            )
    return "static" if rehearsal is None else "rehearsal", notes, plans


def _try_to_rehearse(
    at: Opened, applied: Sequence[Script], pending: Sequence[Script]
) -> tuple[Rehearsal | None, list[str]]:
    """Rehearse, and say what a reader must know of how it was done; None where it cannot be."""
    if not is_installed():
        return None, [_NOT_INSTALLED]
    try:
        rehearsal = rehearse(at, applied, pending)
    except (RagSchemaError, OSError) as exc:
        reason = exc.message if isinstance(exc, RagSchemaError) else str(exc)
        return None, [f"Found by static analysis, because there was no rehearsal: {reason}"]
    if rehearsal.difference is None:
        return rehearsal, [rehearsal.left_out] if rehearsal.left_out else []
    note = (
        "Rehearsed on the schema that our revisions make, because the target's could not be copied:"
        f" {rehearsal.difference}."
    )
    return rehearsal, [note]


def _draft(revision: Revision, text: RevisionSql, rehearsed: Rehearsed | None) -> _Draft:
    read = [
        _Step(statement.sql, statement.is_autocommit, statement.is_helper)
        for statement in text.statements
        if not is_framing(statement.sql)
    ]
    if rehearsed is None:
        hazards = []
        if text.error is not None:
            hazards.append(Hazard("opaque", f"cannot be read to its end without a database: {text.error}"))
        return _Draft(revision, "static", read, hazards)
    hazards = []
    steps = list(_ran_steps(rehearsed, read))
    if rehearsed.error is not None:
        failed = steps[-1] if steps and steps[-1].ran and steps[-1].ran.error else None
        if failed is None:
            hazards.append(Hazard("failure", f"fails in rehearsal: {rehearsed.error}."))
        sqls = [_squeeze(step.sql) for step in read]
        place = (
            sqls.index(_squeeze(failed.sql)) + 1 if failed and _squeeze(failed.sql) in sqls else len(steps)
        )
        steps += read[place:]
    return _Draft(revision, "rehearsal", steps, hazards)


def _ran_steps(rehearsed: Rehearsed, read: Sequence[_Step]) -> Iterator[_Step]:
    """Yield what ran. A backfill only counts the rows of an empty table: its UPDATE is taken from the text."""
    updates = [step for step in read if step.is_helper and step.sql.upper().startswith("UPDATE")]
    for ran in rehearsed.statements:
        if updates and ran.is_autocommit and ran.sql.startswith("SELECT count(*) FROM"):
            yield updates.pop(0)
        else:
            yield _Step(ran.sql, ran.is_autocommit, is_helper=False, ran=ran)


def _squeeze(sql: str) -> str:
    return " ".join(sql.split()).rstrip("; ")


def _judge(draft: _Draft, current: str | None, precheck: list[Hazard]) -> list[Hazard]:
    """Return the hazards of a revision as a whole; an empty database has no code to break."""
    hazards = [*draft.hazards, *precheck]
    if current is not None and draft.revision.deploy == "contract":
        message = "run it only when the last code that used what it removes is gone."
        hazards.append(Hazard("contract", message))
    if current is not None and any(step.is_autocommit for step in draft.steps):
        message = (
            "it commits in the middle: after a failure, what ran before stays; running it again goes on."
        )
        hazards.append(Hazard("autocommit", message))
    return hazards


def _plan_statements(
    draft: _Draft, analysis: Analysis, tables: Tables, connection: sa.Connection
) -> Iterator[StatementPlan]:
    held: dict[str, str] = {}
    for step in draft.steps:
        effect = analysis.read(step.sql)
        before = {} if step.is_autocommit else held
        if step.ran is not None and step.ran.error is None:
            _correct(effect, step.ran, before, tables)
        hazards = find_hazards(
            effect, tables.sizes, before, is_autocommit=step.is_autocommit, is_helper=step.is_helper
        )
        hazards += _find_losses(effect, draft.revision.revision, connection)
        if step.ran is not None and step.ran.error is not None:
            hazards.append(Hazard("failure", f"fails in rehearsal: {step.ran.error}."))
        elif step.ran is None and effect.is_opaque:
            hazards.append(Hazard("opaque", "its text does not tell what it locks and destroys."))
        elif effect.is_opaque and any(table.has_rows for table in tables.sizes.values()):
            hazards.append(Hazard("opaque", "its text does not tell whether it destroys rows."))
        locks, rewrites = tuple(_size_locks(effect, tables)), tuple(sorted(effect.rewrites))
        yield StatementPlan(step.sql, step.is_autocommit, locks, rewrites, tuple(hazards))
        held = {} if step.is_autocommit else dict(before)
        for table, mode in effect.locks.items() if not step.is_autocommit else ():
            held[table] = stronger(mode, held.get(table))


def _size_locks(effect: Effect, tables: Tables) -> Iterator[Lock]:
    """Yield the locks, the strongest first."""
    for name, mode in sorted(effect.locks.items(), key=lambda lock: (-rank(lock[1]), lock[0])):
        yield Lock(name, mode, tables.sizes[name].rows, tables.sizes[name].bytes)


def _correct(effect: Effect, ran: Ran, before: Mapping[str, str], tables: Tables) -> None:
    """Correct what the text says by what was seen; a lock that was held already is known from the text only."""
    effect.rewrites = {table for table in ran.rewrites if table in tables.sizes} - effect.empties
    if ran.is_autocommit:
        return
    seen = {
        table: mode
        for table, mode in ran.held.items()
        if table in tables.sizes and rank(mode) > rank(before.get(table))
    }
    again = {table: mode for table, mode in effect.locks.items() if rank(ran.held.get(table)) >= rank(mode)}
    effect.locks = {**again, **seen}


def _find_losses(effect: Effect, revision: str, connection: sa.Connection) -> Iterator[Hazard]:
    for loss in effect.losses:
        step = StepLoss(revision, loss, "", is_autocommit=False)
        try:
            lost, risked = count_losses(connection, [step]), count_risked(connection, loss)
        except DBAPIError as exc:
            what = f"rows of {loss.name}" if loss.column is None else f"values of {loss.name}.{loss.column}"
            yield Hazard(
                "data-loss", f"destroys all {what}, which could not be counted: {server_message(exc)}."
            )
        else:
            yield from (Hazard("data-loss", f"destroys {each.what}.") for each in lost)
            if risked is not None:
                verb = "may delete some of the" if loss.kind == "rows" else "may cut some of the"
                yield Hazard("data-loss", f"{verb} {risked.what}.")


def _precheck(script: Script, connection: sa.Connection) -> list[Hazard]:
    """Ask a revision's own precheck, which refuses the upgrade where it returns rows."""
    try:
        count = len(find_in_the_way(script, connection))
    except DBAPIError as exc:
        if is_undefined(exc):
            return []  # it asks of what an earlier pending revision makes
        return [Hazard("precheck", f"its precheck could not be asked: {server_message(exc)}.")]
    return [Hazard("precheck", f"its precheck finds {counted(count, 'row')} in its way.")] if count else []
