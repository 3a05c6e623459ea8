"""Autogenerate for functions and triggers: what the models need, compared with what the database has.

Both sides are read from the catalogue, the models' after creating what they have more than the database: enums,
columns, tables, then the routines that use them, in a savepoint that is rolled back. What only the database has is left
alone: somebody made it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from alembic.autogenerate import renderers
from alembic.autogenerate.api import AutogenContext
from alembic.operations import Operations
from alembic.operations.ops import (
    AddColumnOp,
    CreateUniqueConstraintOp,
    MigrateOperation,
    OpContainer,
    UpgradeOps,
)
from sqlalchemy import Connection, Enum

from ragschema.database.drivers import driver_of
from ragschema.migrations.alembic_plugins import register_comparison
from ragschema.models import Base
from ragschema.schema.routines import Routine, create_routines, newest_routines
from ragschema.state.catalogue import Catalogue, read_catalogue

NAME = "ragschema.migrations.routine_comparison"

_SIGNATURES = """
SELECT proname::text, array_agg(proname || '(' || pg_catalog.oidvectortypes(proargtypes) || ')' ORDER BY oid)
FROM pg_catalog.pg_proc
WHERE pronamespace = pg_catalog.current_schema()::regnamespace AND proname ~ '^rag_'
GROUP BY proname
"""


@dataclass(frozen=True)
class CreateRoutine(MigrateOperation):
    """Create a version of a function or trigger that is not there.

    Attributes:
        routine: Its kind and name.
        version: The version; 0: one that no file has.
        signature: Of a function, ``name(types of its arguments)``.
    """

    routine: Routine
    version: int
    signature: str

    def reverse(self) -> MigrateOperation:
        """Return the operation for the other direction."""
        return DropRoutine(self.routine, self.version, self.signature)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Return the difference as ``alembic check`` prints it."""
        return (f"create_{self.routine.kind}", self.routine.name, self.version)


@dataclass(frozen=True)
class DropRoutine(MigrateOperation):
    """Drop a version of a function or trigger; the attributes are those of `CreateRoutine`."""

    routine: Routine
    version: int
    signature: str

    def reverse(self) -> MigrateOperation:
        """Return the operation for the other direction."""
        return CreateRoutine(self.routine, self.version, self.signature)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Return the difference as ``alembic check`` prints it."""
        return (f"drop_{self.routine.kind}", self.routine.name, self.version)


@dataclass(frozen=True)
class ReplaceFunction(MigrateOperation):
    """Replace a function by another version with the same arguments.

    Attributes:
        routine: Its name.
        version: The version that comes.
        replaced: The version that goes; 0: one that no file has.
    """

    routine: Routine
    version: int
    replaced: int

    def reverse(self) -> MigrateOperation:
        """Return the operation for the other direction."""
        return ReplaceFunction(self.routine, self.replaced, self.version)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Return the difference as ``alembic check`` prints it."""
        return ("create_function", self.routine.name, self.version)


@renderers.dispatch_for(CreateRoutine)
@renderers.dispatch_for(ReplaceFunction)
def _render_create(_: AutogenContext, operation: CreateRoutine | ReplaceFunction) -> str:
    routine = operation.routine
    if operation.version == 0:
        return f'raise RuntimeError("the way back of {routine.name} is not written yet")'
    return f'create_{routine.kind}("{routine.name}", {operation.version})'


@renderers.dispatch_for(DropRoutine)
def _render_drop(_: AutogenContext, operation: DropRoutine) -> str:
    routine = operation.routine
    if routine.kind == "trigger":
        return f'drop_trigger("{routine.name}", "{routine.table}")'
    return f'drop_function("{operation.signature}")'


def compare_routines(context: AutogenContext, upgrade_ops: UpgradeOps, *_: Any) -> None:
    """Add what is missing or different to the operations."""
    connection = context.connection
    assert connection is not None
    assert context.migration_context is not None
    found, before = _read(connection), _read_signatures(connection)
    with connection.begin_nested() as savepoint:
        _create_missing(connection, Operations(context.migration_context), upgrade_ops)
        create_routines(connection, Base.metadata)
        expected, after = _read(connection), _read_signatures(connection)
        savepoint.rollback()
    changed = {name.split("(")[0] for name in expected if expected[name] != found.get(name)}
    there = {name.split("(")[0] for name in found}
    for routine in newest_routines():
        name = f"{routine.kind} {routine.name}"
        if name in changed:
            is_there = name in there
            signatures = before.get(routine.name, []), after.get(routine.name, [])
            drafted = _draft(routine, *signatures, is_there=is_there)
            at = 0 if routine.is_for_indexes else len(upgrade_ops.ops)
            upgrade_ops.ops[at:at] = drafted


def _draft(
    routine: Routine, before: list[str], after: list[str], *, is_there: bool
) -> list[MigrateOperation]:
    """Return the operations that bring the newest version of a routine.

    Args:
        routine: The newest version.
        before: The signatures of the functions of its name in the database.
        after: Those once it was created.
        is_there: Whether the database has one of its kind and name.
    """
    version, former = routine.version, routine.version - 1
    (new, *_) = [*(each for each in after if each not in before), *after, ""]
    create = CreateRoutine(routine, version, new)
    if routine.kind == "trigger":
        return [DropRoutine(routine, former, ""), create] if is_there else [create]
    if len(after) == len(before):
        return [ReplaceFunction(routine, version, former)]
    if former and len(before) == 1:  # other arguments; of several it is not known which is ours
        return [DropRoutine(routine, former, before[0]), create]
    return [create]


def _create_missing(connection: Connection, operations: Operations, upgrade_ops: UpgradeOps) -> None:
    """Create the enums, columns and tables that routines may need: those that the models have and nobody else."""
    for table in Base.metadata.tables.values():
        for column in table.columns:
            if isinstance(column.type, Enum):
                column.type.create(connection, checkfirst=True)
    for operation in _flat(upgrade_ops.ops):
        if isinstance(
            operation, AddColumnOp | CreateUniqueConstraintOp
        ):  # a table may refer to what is unique
            operations.invoke(operation)
    Base.metadata.create_all(connection)


def _flat(operations: Iterable[MigrateOperation]) -> Iterable[MigrateOperation]:
    for operation in operations:
        if isinstance(operation, OpContainer):
            yield from _flat(operation.ops)
        else:
            yield operation


def _read_signatures(connection: Connection) -> dict[str, list[str]]:
    """Return the signatures of functions by name."""
    return {name: list(signatures) for name, signatures in connection.exec_driver_sql(_SIGNATURES)}


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


register_comparison(NAME, compare_routines)
