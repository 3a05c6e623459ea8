"""Guards before and after a revision: each raises to refuse."""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Any
from weakref import WeakKeyDictionary

import sqlalchemy as sa
from alembic.runtime.migration import MigrationContext, RevisionStep
from alembic.script import ScriptDirectory
from sqlalchemy.exc import DBAPIError

from ragschema.database.drivers import driver_of
from ragschema.database.sqlstates import is_undefined
from ragschema.errors import RagSchemaError, RevisionRefused
from ragschema.migrations.request import CheckDrift
from ragschema.planning.prechecks import find_in_the_way
from ragschema.revisions.manifest import ahead
from ragschema.state.drift import drift_found, find_drift
from ragschema.words import counted

log = logging.getLogger(__name__)

_ROWS_SHOWN = 5

_ids: WeakKeyDictionary[ScriptDirectory, frozenset[str]] = WeakKeyDictionary()


def check_heads(heads: Any, context: MigrationContext) -> None:
    """Refuse a database that is ahead of this package."""
    if unknown := [head for head in heads if head not in _known(context.script)]:
        raise ahead(*unknown)


def _known(script: ScriptDirectory | None) -> frozenset[str]:
    """Return the ids of Alembic's revisions, which are walked once."""
    if script is None:
        return frozenset()
    if script not in _ids:
        _ids[script] = frozenset(revision.revision for revision in script.walk_revisions())
    return _ids[script]


def look_for_drift(
    connection: sa.Connection, schema: str, revision: str, mode: CheckDrift, owed: Collection[str]
) -> None:
    """Compare the database with what its revision says; what differs fails the run, or is logged."""
    if mode == "off":
        return
    try:
        drift = find_drift(driver_of(connection), schema, revision, owed=owed)
    except RagSchemaError as exc:  # a revision without an expected catalogue
        if mode == "fail":
            raise
        log.warning("Drift is not looked for: %s", exc.message)
        return
    if drift.is_clean:
        return
    found = drift_found(drift, "Nothing was changed. Mend the differences below, or add --check-drift=warn.")
    if mode == "fail":
        raise found
    log.warning("Drift: %s\n%s", found.message, found.evidence)


def precheck(step: RevisionStep, connection: sa.Connection, *, is_first_look: bool = False) -> None:
    """Refuse an upgrade that has rows in its way."""
    if not step.is_upgrade:
        return
    try:
        rows = find_in_the_way(step.revision, connection)
    except DBAPIError as exc:
        if is_first_look and is_undefined(exc):
            return  # it asks of what an earlier pending revision makes: asked again in its turn
        raise
    if rows:
        raise RevisionRefused(
            f"Revision {step.revision.revision} cannot be applied: its precheck finds {counted(len(rows), 'row')}"
            " in its way.",
            "It changed nothing. Mend these rows, then run the same command again.",
            _show(rows),
        )


def verify(step: RevisionStep, connection: sa.Connection) -> None:
    """Run ``verify(connection)`` of an upgrade before the commit: rows that it returns are wrong."""
    find_rows = getattr(step.revision.module, "verify", None)
    if find_rows is not None and step.is_upgrade and (rows := list(find_rows(connection) or ())):
        raise RevisionRefused(
            f"Revision {step.revision.revision} was rolled back: its own check found"
            f" {counted(len(rows), 'row')} wrong.",
            "Report this with the rows below; the database is as it was before this revision.",
            _show(rows),
        )


def _show(rows: list[Any]) -> str:
    shown = [", ".join(map(str, row)) if isinstance(row, tuple | sa.Row) else str(row) for row in rows]
    return "\n".join(shown[:_ROWS_SHOWN] + (["..."] if len(shown) > _ROWS_SHOWN else []))
