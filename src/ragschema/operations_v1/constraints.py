"""Constraints on a table with rows, without a lock that stops readers or writers while rows are read."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa
from alembic import op
from sqlalchemy.exc import DBAPIError, IntegrityError

from ragschema.operations_v1.indexes import concurrent_index
from ragschema.operations_v1.statements import (
    OperationRefused,
    empty_copy,
    is_offline,
    names,
    outside_transaction,
    quote,
    read,
    run,
    server_version,
)

Action = Literal["NO ACTION", "RESTRICT", "CASCADE", "SET NULL", "SET DEFAULT"]

log = logging.getLogger("ragschema.operations")


@dataclass(frozen=True)
class NotNullSteps:
    """The statements of `set_not_null`, in order.

    Attributes:
        add: In the revision's transaction, which then commits.
        validate: In an autocommit block; reads the table.
        after: In the transaction that follows.
    """

    add: str
    validate: str
    after: tuple[str, ...] = ()


def set_not_null(table: str, column: str) -> None:
    """Make a column NOT NULL. Commits.

    On PostgreSQL 18 by ADD NOT NULL ... NOT VALID and VALIDATE; before 18, and offline, by a CHECK that
    spares SET NOT NULL its scan and is dropped. The catalogue becomes that of a plain SET NOT NULL. ACCESS
    EXCLUSIVE for a moment before the scan (and before 18 after it), SHARE UPDATE EXCLUSIVE during it.

    Where some row has NULL there: IntegrityError, and the table is as it was.

    Raises:
        OperationRefused: There is no such column.
    """
    if is_offline():
        steps = not_null_steps(table, column)
        run(steps.add)
        with outside_transaction():
            run(steps.validate)
        for statement in steps.after:
            run(statement)
    elif server_version() >= 18:
        _set_not_null_by_constraint(table, column)
    else:
        _set_not_null_by_check(table, column)


def not_null_steps(table: str, column: str, version: int | None = None) -> NotNullSteps:
    """Return the statements of `set_not_null` for a major version of PostgreSQL, or for any.

    From 18 the server chooses the constraint's name; ``validate`` has the one it chooses where that is free.
    """
    alter, name = f"ALTER TABLE {quote(table)}", quote(column)
    if version is not None and version >= 18:
        return NotNullSteps(
            f"{alter} ADD NOT NULL {name} NOT VALID",
            f"{alter} VALIDATE CONSTRAINT {quote(f'{table}_{column}_not_null')}",
        )
    check = quote(_check_name(table, column))
    return NotNullSteps(
        f"{alter} ADD CONSTRAINT {check} CHECK ({name} IS NOT NULL) NOT VALID",
        f"{alter} VALIDATE CONSTRAINT {check}",
        (f"{alter} ALTER COLUMN {name} SET NOT NULL", f"{alter} DROP CONSTRAINT {check}"),
    )


def _set_not_null_by_constraint(table: str, column: str) -> None:
    found = _find_column(table, column)
    if found.constraint is None:
        run(not_null_steps(table, column, 18).add)
        found = _find_column(table, column)
    if found.is_constraint_valid:
        log.info("Column %s.%s is already NOT NULL.", table, column)
    else:
        _validate(table, found.constraint, drop_if_violated=True)
    if found.is_check_valid is not None:  # left by a run before the server was upgraded
        _drop(table, _check_name(table, column))


def _set_not_null_by_check(table: str, column: str) -> None:
    found = _find_column(table, column)
    if found.attnotnull and found.is_check_valid is None:
        log.info("Column %s.%s is already NOT NULL.", table, column)
        return
    steps = not_null_steps(table, column)
    if not found.attnotnull:
        if found.is_check_valid is None:
            run(steps.add)
        if not found.is_check_valid:
            _validate(table, _check_name(table, column), drop_if_violated=True)
    for statement in steps.after:
        run(statement)


def _check_name(table: str, column: str) -> str:
    """Return the name of the passing CHECK: not the one that 18 gives its own constraint."""
    return f"{table}_{column}_not_null_check"


def add_check(table: str, name: str, condition: str) -> None:
    """Add a CHECK that new rows must meet, NOT VALID; `validate_constraint` is for the old ones.

    One that is there already with the same condition is kept. ACCESS EXCLUSIVE for a moment.

    Raises:
        OperationRefused: Another constraint has the name.
    """
    statement = f"ALTER TABLE {quote(table)} ADD CONSTRAINT {quote(name)} CHECK ({condition})"
    if (found := _find_constraint(table, name)) is None:
        run(f"{statement} NOT VALID")
        return
    with empty_copy(table):
        run(statement)
        expected = read(
            "SELECT pg_get_constraintdef(oid) FROM pg_constraint"
            " WHERE conrelid = to_regclass(:table) AND conname = :name",
            table=quote(table),
            name=name,
        ).scalar_one()
    _keep(table, name, found, expected)


def add_foreign_key(
    table: str,
    name: str,
    columns: Sequence[str],
    referenced_table: str,
    referenced_columns: Sequence[str],
    *,
    on_delete: Action = "NO ACTION",
    on_update: Action = "NO ACTION",
    initially_deferred: bool = False,
) -> None:
    """Add a foreign key that new rows must meet, NOT VALID; `validate_constraint` is for the old ones.

    One that is there already and alike is kept. SHARE ROW EXCLUSIVE on both tables for a moment: writers
    wait, readers do not.

    Args:
        table: The table that refers.
        name: The constraint.
        columns: Its columns.
        referenced_table: The table referred to.
        referenced_columns: Its columns, in the order of ``columns``.
        on_delete: What becomes of a row when the one it refers to is deleted.
        on_update: And when that one's key is changed.
        initially_deferred: Whether it is checked at COMMIT; then it is DEFERRABLE too.

    Raises:
        OperationRefused: Another constraint has the name.
    """
    definition = " ".join(
        (
            f"FOREIGN KEY ({names(columns)})",
            f"REFERENCES {quote(referenced_table)}({names(referenced_columns)})",
            *((f"ON UPDATE {on_update}",) if on_update != "NO ACTION" else ()),
            *((f"ON DELETE {on_delete}",) if on_delete != "NO ACTION" else ()),
            *(("DEFERRABLE INITIALLY DEFERRED",) if initially_deferred else ()),
        )
    )
    if (found := _find_constraint(table, name)) is None:
        run(f"ALTER TABLE {quote(table)} ADD CONSTRAINT {quote(name)} {definition} NOT VALID")
    else:
        _keep(table, name, found, definition)


def add_unique(table: str, name: str, columns: Sequence[str]) -> None:
    """Make columns unique: `concurrent_index`, then the constraint that takes the index over. Commits.

    ACCESS EXCLUSIVE for a moment, at the end. Duplicates: IntegrityError, and an INVALID index is left that
    the next run drops.

    Raises:
        OperationRefused: Another session builds the index, or the name is taken by something else.
    """
    if (found := _find_constraint(table, name)) is not None:
        _keep(table, name, found, f"UNIQUE ({names(columns)})")
        return
    concurrent_index(name, table, columns, unique=True)
    run(f"ALTER TABLE {quote(table)} ADD CONSTRAINT {quote(name)} UNIQUE USING INDEX {quote(name)}")


def validate_constraint(table: str, name: str) -> None:
    """Check the old rows against a constraint that is NOT VALID. Commits.

    In the revision that added it or a later one: either way what was added is committed, and its lock gone,
    before rows are read. SHARE UPDATE EXCLUSIVE, and ROW SHARE on a referenced table.

    Where a row violates it: IntegrityError, and the constraint stays NOT VALID, binding new rows only.
    """
    found = _find_constraint(table, name)
    if found is not None and found.convalidated:
        log.info("Constraint %s of %s is already valid.", name, table)
    else:
        _validate(table, name)


def _validate(table: str, name: str, *, drop_if_violated: bool = False) -> None:
    try:
        with outside_transaction():
            run(f"ALTER TABLE {quote(table)} VALIDATE CONSTRAINT {quote(name)}")
    except IntegrityError:
        if drop_if_violated:
            _drop_violated(table, name)
        raise


def _drop_violated(table: str, name: str) -> None:
    try:
        with op.get_context().autocommit_block():  # with lock_timeout: this one would stop readers
            _drop(table, name)
    except DBAPIError as exc:
        log.warning(
            "Constraint %s of %s stays, NOT VALID; it could not be dropped: %s", name, table, exc.orig
        )


def _drop(table: str, name: str) -> None:
    run(f"ALTER TABLE {quote(table)} DROP CONSTRAINT {quote(name)}")


def _keep(table: str, name: str, found: sa.Row[Any], expected: str) -> None:
    definition = found.definition.removesuffix(" NOT VALID")
    if definition.replace('"', "") != expected.replace('"', ""):
        raise OperationRefused(
            f"Constraint {name} of {table} is already there, with another definition.",
            "Find out who made it, then rename or drop it.",
            f"expected: {expected}\nfound:    {definition}",
        )
    log.info("Constraint %s of %s is already there, as asked.", name, table)


_COLUMN = """
SELECT a.attnotnull, n.conname AS constraint, n.convalidated AS is_constraint_valid,
       (SELECT convalidated FROM pg_constraint
        WHERE conrelid = a.attrelid AND conname = :check AND contype = 'c') AS is_check_valid
FROM pg_attribute a
JOIN pg_class c ON c.oid = a.attrelid
LEFT JOIN pg_constraint n ON n.conrelid = a.attrelid AND n.contype = 'n' AND n.conkey = ARRAY[a.attnum]
WHERE c.relname = :table AND a.attname = :column AND NOT a.attisdropped
AND c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = current_schema())
"""

_CONSTRAINT = """
SELECT con.convalidated, pg_get_constraintdef(con.oid) AS definition
FROM pg_constraint con
JOIN pg_class c ON c.oid = con.conrelid
WHERE c.relname = :table AND con.conname = :name
AND c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = current_schema())
"""


def _find_column(table: str, column: str) -> sa.Row[Any]:
    found = read(_COLUMN, table=table, column=column, check=_check_name(table, column)).one_or_none()
    if found is None:
        raise OperationRefused(
            f"There is no column {column} in a table {table} of the schema being migrated.",
            "Add the column in an earlier revision, or correct the name.",
        )
    return found


def _find_constraint(table: str, name: str) -> sa.Row[Any] | None:
    return None if is_offline() else read(_CONSTRAINT, table=table, name=name).one_or_none()
