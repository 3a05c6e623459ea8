"""Upgrade of one tenant after the other by a worker: in passing where that is known to do, else step by step."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import psycopg

from ragschema.database.secrets import without_secrets
from ragschema.database.server import Connection
from ragschema.errors import DatabaseUnreachable, LockNotObtained, NodeUnreachable, RagSchemaError, TenantGone
from ragschema.migrations.commands import look
from ragschema.migrations.deployer_lock import deployer_lock_key
from ragschema.migrations.interruption import interruptible
from ragschema.migrations.replay import Replay, replay
from ragschema.migrations.request import Applied, CheckDrift, Request, Result
from ragschema.revisions.manifest import RevisionId, describe_ids
from ragschema.state.glance import Glance
from ragschema.state.survey import Survey, drift_of, glance_in_passing, survey
from ragschema.tenants.databases import name_of
from ragschema.tenants.lending import Lender
from ragschema.tenants.outcomes import TenantOutcome
from ragschema.tenants.tasks import Task

if TYPE_CHECKING:
    from ragschema.migrations.loaded_scripts import LoadedScripts

_UNREACHABLE = 2  # times in a row, after which a worker does not try a database again


@dataclass
class Upgrading:
    """What a worker does with each tenant.

    Attributes:
        target: The revision to end at.
        scripts: The revisions; None where none are pending: they are loaded for the first tenant that needs them,
            for Alembic costs a second.
        revisions: The revision of each tenant that is behind; None at base.
        passes: Whether a tenant may be upgraded in passing: not where revisions are held back.
        expand_only: Pass over contract revisions.
        allow_data_loss: Whether rows and column values may be destroyed.
        check_drift: What to do where a tenant is not what its revision says.
    """

    target: RevisionId
    scripts: LoadedScripts | None
    revisions: Mapping[Task, RevisionId | None]
    passes: bool
    expand_only: bool
    allow_data_loss: bool
    check_drift: CheckDrift
    _replays: dict[int, Replay] = field(default_factory=dict, init=False)  # by the place of the database
    _unreachable: dict[int, int] = field(default_factory=dict, init=False)

    def __call__(self, lender: Lender, task: Task) -> TenantOutcome:
        """Upgrade a tenant, and return what became of it."""
        began, place = time.monotonic(), task.database
        outcome = TenantOutcome(name_of(lender.options.database), task.schema, "failed", None)
        if self._unreachable.get(place, 0) >= _UNREACHABLE:
            return replace(outcome, error="The database could not be reached.")
        applied: list[Applied] = []
        try:
            result = self._upgrade(lender, task, applied)
            outcome = replace(
                outcome,
                fate="migrated" if applied else "up to date",
                revision=result.current,
                owed=result.owed,
            )
            self._unreachable[place] = 0
        except TenantGone as exc:
            outcome = replace(outcome, fate="dropped", error=exc.message)
        except KeyboardInterrupt:
            outcome = replace(outcome, fate="interrupted")
        except Exception as exc:  # a revision may raise anything, and the next tenant is not to pay for it
            gone = isinstance(exc, DatabaseUnreachable) and not isinstance(exc, NodeUnreachable)
            self._unreachable[place] = self._unreachable.get(place, 0) + 1 if gone else 0
            outcome = _failed(outcome, exc)
        return replace(
            outcome, applied=tuple(each.revision for each in applied), seconds=time.monotonic() - began
        )

    def _upgrade(self, lender: Lender, task: Task, applied: list[Applied]) -> Result:
        replays = self._replays.setdefault(task.database, Replay())
        if self._upgrade_in_passing(lender, task, replays, applied):
            return Result(applied, self.target)
        options = lender.options_of(task.schema)
        if task not in self.revisions:
            nothing = look(options, self.target, expand_only=self.expand_only)
            if nothing is not None:
                return nothing
        request = Request(
            options,
            allow_data_loss=self.allow_data_loss,
            expand_only=self.expand_only,
            report=applied.append,
            check_drift=self.check_drift,
            record=lambda recording: replays.hear(task.schema, recording),
            is_tenant=True,
        )
        if self.scripts is None:
            from ragschema.migrations.loaded_scripts import LoadedScripts

            self.scripts = LoadedScripts()
        return self.scripts.upgrade(request, self.target)

    def _upgrade_in_passing(
        self, lender: Lender, task: Task, replays: Replay, applied: list[Applied]
    ) -> bool:
        """Upgrade a tenant by what its revisions have run on others; False where that is not the end of it."""
        schema, is_behind = task.schema, task in self.revisions
        if not self.passes or (is_behind and replays.next(self.revisions[task]) is None):
            return False
        try:
            with interruptible(), lender.lent_in_passing(schema) as connection:
                if connection is None:
                    return False
                if not is_behind:
                    return self._is_done(glance_in_passing(connection, schema))
                try:
                    return self._replay_all(connection, schema, replays, applied)
                except KeyboardInterrupt as exc:
                    done = describe_ids([each.revision for each in applied])
                    exc.add_note(f"committed in this run: {done or 'nothing'}; the last may be committed too")
                    raise
        except (psycopg.Error, RagSchemaError):
            return False  # step by step it is looked at anew, and said

    def _replay_all(
        self, connection: Connection, schema: str, replays: Replay, applied: list[Applied]
    ) -> bool:
        try:
            is_done = self._replay_each(connection, schema, replays, applied)
        except psycopg.Error:
            connection.rollback()
            is_done = False
        connection.execute("SELECT pg_advisory_unlock_all()")
        return is_done

    def _replay_each(
        self, connection: Connection, schema: str, replays: Replay, applied: list[Applied]
    ) -> bool:
        seen = survey(connection, schema, lock=deployer_lock_key(schema))
        while seen is not None and seen.is_locked and _is_clean(connection, seen):
            if seen.current == self.target:
                return True
            recording = replays.next(seen.current)
            if recording is None or recording.revision > self.target:
                return False
            if (one := replay(connection, seen, recording)) is None:
                return False
            applied.append(one)
            if recording.revision == self.target:
                return True
            seen = survey(connection, schema)
        return False

    def _is_done(self, seen: Glance | None) -> bool:
        """Whether a tenant is at the target, and `look` would say nothing of it."""
        return seen is not None and seen.current == self.target and not seen.owed and seen.soundness.is_sound


def _is_clean(connection: Connection, seen: Survey) -> bool:
    """Whether a tenant owes nothing, and is what its revision says."""
    if seen.owed or not seen.imprint.is_ordinary:
        return False
    drift = drift_of(connection, seen)
    return drift is not None and drift.is_clean


def _failed(outcome: TenantOutcome, exc: Exception) -> TenantOutcome:
    """Return the outcome of a tenant that this was raised of."""
    if isinstance(exc, RagSchemaError):
        message, evidence = exc.message, "\n".join(part for part in (exc.remedy, exc.evidence) if part)
    else:
        message, evidence = f"{type(exc).__name__}: {exc}", ""
    return replace(
        outcome,
        fate="locked" if isinstance(exc, LockNotObtained) else "failed",
        error=without_secrets(message),
        evidence=without_secrets(evidence) or None,
    )
