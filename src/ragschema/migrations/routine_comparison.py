"""Autogenerate for functions and triggers: what the models need, compared with what the database has.

Both sides are read from the catalogue, the models' after creating it in a savepoint that is rolled back. What
only the database has is left alone: somebody made it.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import Any

from alembic.autogenerate import renderers
from alembic.autogenerate.api import AutogenContext
from alembic.operations.ops import MigrateOperation, UpgradeOps
from alembic.runtime.plugins import Plugin
from alembic.util import PriorityDispatchResult
from sqlalchemy import Connection

from ragschema.database.drivers import driver_of
from ragschema.models import Base
from ragschema.schema.routines import Routine, create_routines, newest_routines
from ragschema.state.catalogue import Catalogue, read_catalogue

NAME = "ragschema.migrations.routine_comparison"


@dataclass(frozen=True)
class CreateRoutine(MigrateOperation):
    """Create the newest version of a function or trigger.

    Attributes:
        routine: What to create.
        is_reversed: Whether to go back instead, to the version before or to none: for the author to write.
    """

    routine: Routine
    is_reversed: bool = False

    def reverse(self) -> MigrateOperation:
        """Return the operation for the other direction."""
        return replace(self, is_reversed=not self.is_reversed)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Return the difference as ``alembic check`` prints it."""
        return (f"create_{self.routine.kind}", self.routine.name, self.routine.version)


@renderers.dispatch_for(CreateRoutine)
def _render(context: AutogenContext, operation: CreateRoutine) -> str:
    routine = operation.routine
    if operation.is_reversed:
        return f'raise RuntimeError("the way back of {routine.name} is not written yet")'
    context.imports.add(f"from ragschema.operations_v2 import create_{routine.kind}")
    return f'create_{routine.kind}("{routine.name}", {routine.version})'


def compare_routines(context: AutogenContext, upgrade_ops: UpgradeOps, *_: Any) -> PriorityDispatchResult:
    """Add what is missing or different to the operations."""
    connection = context.connection
    assert connection is not None
    found = _read(connection)
    with connection.begin_nested() as savepoint:
        create_routines(connection, Base.metadata)
        expected = _read(connection)
        savepoint.rollback()
    changed = {name.split("(")[0] for name in expected if expected[name] != found.get(name)}
    for routine in newest_routines():
        if f"{routine.kind} {routine.name}" in changed:
            upgrade_ops.ops.append(CreateRoutine(routine))
    return PriorityDispatchResult.CONTINUE


def _read(connection: Connection) -> Catalogue:
    schema = connection.exec_driver_sql("SELECT current_schema()").scalar_one()
    catalogue = read_catalogue(driver_of(connection), schema)
    kinds = ("function ", "trigger ")
    return {
        # a trigger is named with its table: rag_chunks.rag_chunks_check
        f"trigger {name.partition('.')[2]}" if name.startswith("trigger ") else name: text
        for name, text in catalogue.items()
        if name.startswith(kinds)
    }


def setup(plugin: Plugin) -> None:
    """Register the comparison; called by alembic."""
    plugin.add_autogenerate_comparator(compare_routines, "schema", "routines")


Plugin.setup_plugin_from_module(sys.modules[__name__], NAME)
