"""Indexes, built and dropped while others read and write."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from ragschema.operations_v1.statements import (
    OperationRefused,
    comment,
    empty_copy,
    is_offline,
    names,
    outside_transaction,
    quote,
    read,
    run,
)

log = logging.getLogger("ragschema.operations")


def concurrent_index(
    name: str,
    table: str,
    columns: Sequence[str],
    *,
    unique: bool = False,
    using: str | None = None,
    with_: Mapping[str, str | int | float] | None = None,
    where: str | None = None,
    ops: Mapping[str, str] | None = None,
    include: Sequence[str] = (),
) -> None:
    """Build an index with CREATE INDEX CONCURRENTLY, then ANALYZE its table. Commits.

    An INVALID index of this name is what a failed build left: it is dropped and built anew. A valid one of
    the same definition is kept. Takes SHARE UPDATE EXCLUSIVE, and waits for every older transaction.

    Args:
        name: The index.
        table: Its table.
        columns: Names of columns, or whatever else PostgreSQL takes there, an expression in its parentheses:
            ``"(embedding::halfvec(768)) halfvec_cosine_ops"``, ``"created_at DESC"``.
        unique: Whether no two rows may be alike; duplicates raise IntegrityError.
        using: The method, btree by default.
        with_: Storage parameters: ``{"m": 16}``.
        where: The predicate of a partial index.
        ops: Operator class by column.
        include: Columns to carry along.

    Raises:
        OperationRefused: Another session builds it, or the name is taken by something else.
    """
    statement = index_statement(
        name, table, columns, unique=unique, using=using, with_=with_, where=where, ops=ops, include=include
    )
    found = None if is_offline() else _find(name)
    if is_offline():
        comment(f"Not checked offline: an INVALID {name} that a failed run left must be dropped first.")
    elif found is not None:
        _check(found, table, statement)
    with outside_transaction():
        if found is None:
            run(statement)
        elif found.is_valid:
            log.info("Index %s is already there, valid and as asked.", name)
        else:
            log.warning("Index %s is INVALID, left by a failed build: dropping it to build it anew.", name)
            run(f"DROP INDEX CONCURRENTLY {quote(name)}")
            run(statement)
        if not is_offline():
            _assert_valid(name)
        run(f"ANALYZE {quote(table)}")


def drop_concurrent_index(name: str) -> None:
    """Drop an index with DROP INDEX CONCURRENTLY, unless it is gone already. Commits.

    Raises:
        OperationRefused: Another session builds it.
    """
    if not is_offline():
        found = _find(name)
        if found is None:
            log.info("Index %s is already gone.", name)
            return
        _refuse_while_built(found)
    with outside_transaction():
        run(f"DROP INDEX CONCURRENTLY {quote(name)}")


def index_statement(
    name: str,
    table: str,
    columns: Sequence[str],
    *,
    unique: bool = False,
    using: str | None = None,
    with_: Mapping[str, str | int | float] | None = None,
    where: str | None = None,
    ops: Mapping[str, str] | None = None,
    include: Sequence[str] = (),
) -> str:
    """Return the statement that `concurrent_index` builds with.

    Raises:
        ValueError: ``ops`` names what is not among the columns.
    """
    opclass = ops or {}
    if unknown := set(opclass) - set(columns):
        raise ValueError(f"ops of {name} names what is not a column of it: {', '.join(sorted(unknown))}")
    items = [f"{_item(column)} {opclass.get(column, '')}".strip() for column in columns]
    parameters = [f"{key} = {_literal(value)}" for key, value in (with_ or {}).items()]
    parts = (
        f"CREATE {'UNIQUE ' if unique else ''}INDEX CONCURRENTLY {quote(name)} ON {quote(table)}",
        f"USING {using}" if using else "",
        f"({', '.join(items)})",
        f"INCLUDE ({names(include)})" if include else "",
        f"WITH ({', '.join(parameters)})" if parameters else "",
        f"WHERE {where}" if where else "",
    )
    return " ".join(filter(None, parts))


def _item(column: str) -> str:
    return str(quote(column)) if re.fullmatch(r"[A-Za-z_]\w*", column) else column


def _literal(value: str | int | float) -> str:
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else str(value).lower()


_FIND = """
SELECT c.oid, c.relname AS name, t.relname AS table_name, i.indisvalid AS is_valid,
       i.indisunique AS is_unique, pg_get_indexdef(i.indexrelid) AS definition
FROM pg_class c
LEFT JOIN pg_index i ON i.indexrelid = c.oid
LEFT JOIN pg_class t ON t.oid = i.indrelid
WHERE c.relname = :name
AND c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = current_schema())
"""

# Of another role's build the progress view shows only the pid; pg_locks says which table it works on.
_BUILDERS = """
SELECT p.pid, a.application_name
FROM pg_stat_progress_create_index p
JOIN pg_index i ON i.indexrelid = :oid
LEFT JOIN pg_stat_activity a USING (pid)
WHERE p.pid <> pg_backend_pid()
AND p.datid = (SELECT oid FROM pg_database WHERE datname = current_database())
AND (p.index_relid = i.indexrelid
     OR p.relid = i.indrelid AND p.command LIKE 'REINDEX%'
     OR p.relid IS NULL AND EXISTS (
         SELECT FROM pg_locks l
         WHERE l.pid = p.pid AND l.granted AND l.relation = i.indrelid AND l.locktype = 'relation'
         AND l.mode IN ('ShareLock', 'ShareUpdateExclusiveLock')))
"""


def _find(name: str) -> sa.Row[Any] | None:
    return read(_FIND, name=name).one_or_none()


def _check(found: sa.Row[Any], table: str, statement: str) -> None:
    if found.table_name != table:
        owner = f"an index of {found.table_name}" if found.table_name else "something that is no index"
        raise OperationRefused(
            f"The name {found.name} belongs to {owner}, so no index of {table} can have it.",
            "Rename or drop what has the name.",
        )
    if not found.is_valid:
        _refuse_while_built(found)
    elif (expected := _expected_shape(table, statement)) != _shape(found):
        raise OperationRefused(
            f"Index {found.name} is already there, with another definition.",
            f"Rename it, or drop it with DROP INDEX CONCURRENTLY {quote(found.name)}.",
            f"expected: {expected}\nfound:    {_shape(found)}",
        )


def _refuse_while_built(found: sa.Row[Any]) -> None:
    if builders := read(_BUILDERS, oid=found.oid).all():
        raise OperationRefused(
            f"Another session is building index {found.name}, so it was left alone.",
            "Wait until that build has ended.",
            "\n".join(f"pid {row.pid} ({row.application_name or 'no application_name'})" for row in builders),
        )


def _shape(row: sa.Row[Any]) -> str:
    """Return what defines an index beside its name and table, in the server's own words."""
    return f"{'UNIQUE ' if row.is_unique else ''}{row.definition.split(' USING ', 1)[1]}"


def _expected_shape(table: str, statement: str) -> str:
    with empty_copy(table):
        run(statement.replace(" INDEX CONCURRENTLY ", " INDEX ", 1))
        row = read(
            "SELECT indisunique AS is_unique, pg_get_indexdef(indexrelid) AS definition FROM pg_index"
            " WHERE indrelid = to_regclass(:table)",
            table=quote(table),
        ).one()
    return _shape(row)


def _assert_valid(name: str) -> None:
    built = _find(name)
    if built is None or not built.is_valid:
        raise OperationRefused(
            f"Index {name} was built, but is not valid.", "The next run drops it and builds it anew."
        )
