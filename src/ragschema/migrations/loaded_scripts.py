"""Revisions loaded once, for upgrades of many schemas one after the other.

Alembic loads every revision again with each of its commands: two thirds of what a small upgrade takes here.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import RevisionStep
from alembic.script import Script, ScriptDirectory
from alembic.util import CommandError

from ragschema.migrations import environment
from ragschema.migrations.alembic_lock import ALEMBIC_LOCK
from ragschema.migrations.request import Request, Result
from ragschema.planning.dependents import find_drops_of
from ragschema.planning.losses import read_losses_of
from ragschema.revisions.checks import check_single_head
from ragschema.revisions.scripts import (
    REQUEST_ATTRIBUTE,
    RESULT_ATTRIBUTE,
    make_config,
    refused_by_alembic,
)


class LoadedScripts:
    """The revisions as Alembic has them; a fork has them too.

    Args:
        pending: The revisions to come, whose SQL is read at once: what they drop, and what they may destroy.

    Raises:
        ConfigurationError: They have two heads.
    """

    def __init__(self, pending: Collection[str] = ()) -> None:
        self._config = make_config()
        self._script = ScriptDirectory.from_config(self._config)
        self._ways: dict[tuple[tuple[str, ...], str], Sequence[Script]] = {}
        with ALEMBIC_LOCK:
            check_single_head(self._script)
            for script in self._script.walk_revisions():
                if script.revision in pending:
                    read_losses_of(script, "upgrade")
                    find_drops_of(script, "upgrade")

    def _find_scripts(self, current: tuple[str, ...], revision: str) -> Sequence[Script]:
        """Return the revisions from one to another, which Alembic finds by walking all; as in alembic.command."""
        found = self._ways.get((current, revision))
        if found is None:
            steps = self._script._upgrade_revs(revision, current)  # type: ignore[arg-type]  # it takes a tuple
            found = [step.revision for step in steps if isinstance(step, RevisionStep)]
            self._ways[current, revision] = found
        return found

    def upgrade(self, request: Request, revision: str) -> Result:
        """Upgrade a schema, as `ragschema.migrations.upgrade` does where there is something to do.

        Raises:
            UsageError: There is no such revision.
            RagSchemaError: See `ragschema.migrations.upgrade`.
        """

        def upgrade(current: tuple[str, ...], _context: object) -> list[RevisionStep]:
            return [
                RevisionStep(self._script.revision_map, script, is_upgrade=True)
                for script in self._find_scripts(tuple(current), revision)
            ]

        with ALEMBIC_LOCK:
            self._config.attributes[REQUEST_ATTRIBUTE] = request
            try:
                with EnvironmentContext(
                    self._config, self._script, fn=upgrade, as_sql=False, destination_rev=revision
                ):
                    environment.run()
            except CommandError as exc:
                raise refused_by_alembic(exc) from exc
            result: Result = self._config.attributes[RESULT_ATTRIBUTE]
            return result
