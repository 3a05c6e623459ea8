"""Repair of what failed builds left, and of functions that were made for another schema."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from psycopg import sql

from ragschema.database.connections import opened
from ragschema.database.options import Options
from ragschema.database.schemas import Schemas
from ragschema.database.server import Connection
from ragschema.database.write_access import check_writable
from ragschema.migrations.deployer_lock import take_deployer_lock
from ragschema.migrations.retries import retrying
from ragschema.state.expected import read_fingerprints
from ragschema.state.partitions import RegisteredModel, concurrent_index, read_models_if_shown
from ragschema.state.soundness import Soundness, find_soundness
from ragschema.state.status import find_invalid_indexes, is_left_by_reindex, read_current

log = logging.getLogger(__name__)

_UNVALIDATED = """
SELECT t.relname::text, c.conname::text FROM pg_constraint c
JOIN pg_class t ON t.oid = c.conrelid JOIN pg_namespace n ON n.oid = t.relnamespace
WHERE n.nspname = %s AND t.relname::text LIKE 'rag\\_%%' AND NOT c.convalidated
ORDER BY 1, 2
"""
_SIGNATURES = """
SELECT format('%%I.%%I(%%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid)), p.proname::text
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname = %(schema)s AND p.proname = ANY (%(functions)s) AND p.prokind = 'f' ORDER BY 2
"""
_TRIGGERS = """
SELECT t.tgname::text, c.relname::text, p.proname::text, pg_get_triggerdef(t.oid)
FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_proc p ON p.oid = t.tgfoid
WHERE n.nspname = %(schema)s AND c.relname || '.' || t.tgname = ANY (%(triggers)s) ORDER BY 2, 1
"""


@dataclass(frozen=True)
class Repair:
    """What `repair` healed.

    Attributes:
        rebuilt: Indexes built again, concurrently; those that searches read also where they are missing: a load that
            deferred them has died, or an embedding model has lost its own.
        dropped: Left-overs of an interrupted REINDEX CONCURRENTLY, and of the index of an embedding model that is
            being built.
        validated: Constraints validated, as ``table.constraint``.
        moved: Functions and triggers that worked on another schema, and work on their own now.
    """

    rebuilt: tuple[str, ...]
    dropped: tuple[str, ...]
    validated: tuple[str, ...]
    moved: tuple[str, ...] = ()


def repair(options: Options) -> Repair:
    """Heal functions made for another schema, invalid indexes and unvalidated constraints of ours.

    The functions, and triggers that call another schema's, change in one transaction. An index being built is not
    touched. Rebuilds with REINDEX CONCURRENTLY and validates under SHARE UPDATE EXCLUSIVE: reads and writes go on.

    Raises:
        DriftFound: Tables or functions are missing, which no repair makes; nothing was changed.
        RagSchemaError: psycopg's own error where a constraint does not hold for the rows.
    """
    with opened(options) as at:
        connection = at.connection
        schema = at.schemas.target
        take_deployer_lock(connection, schema, wait=options.lock_wait)
        check_writable(connection)
        soundness = find_soundness(connection, schema, read_current(connection, schema))
        if soundness.missing:
            soundness.refuse()
        execute = _retried(connection, options)
        moved = retrying(options)(_move, connection, at.schemas, soundness)
        connection.execute("SELECT set_config('lock_timeout', '0', false)")  # it would leave invalid indexes
        models = read_models_if_shown(connection, schema) or []
        unneeded = {model.index for model in models if not model.is_column and not model.needs_index}
        rebuilt = _rebuild(connection, schema, unneeded, execute)
        dropped = _drop_left_overs(connection, schema, unneeded, execute)
        rebuilt += _build_deferred(connection, schema, execute)
        rebuilt += _build_missing(connection, schema, models, execute)
        validated = _validate(connection, schema, execute)
        return Repair(tuple(rebuilt), tuple(dropped), tuple(validated), tuple(moved))


_Execute = Callable[..., None]


def _retried(connection: Connection, options: Options) -> _Execute:
    """Return a function that executes statements, and all of them again where one met a lock or a deadlock."""

    def execute(*statements: sql.Composable) -> None:
        for statement in statements:
            connection.execute(statement.as_string().encode())

    return lambda *statements: retrying(options)(execute, *statements)


def _rebuild(connection: Connection, schema: str, unneeded: Collection[str], execute: _Execute) -> list[str]:
    found = find_invalid_indexes(connection, schema)
    rebuilt = [index for index in found if not _is_left_over(index, unneeded)]
    for index in rebuilt:
        log.info("Rebuilding %s", index)
        execute(sql.SQL("REINDEX INDEX CONCURRENTLY {}").format(sql.Identifier(schema, index)))
    return rebuilt


def _drop_left_overs(
    connection: Connection, schema: str, unneeded: Collection[str], execute: _Execute
) -> list[str]:
    """Drop what interrupted builds left, our own just now too, where a deadlock ended its first attempt."""
    found = find_invalid_indexes(connection, schema)
    dropped = [index for index in found if _is_left_over(index, unneeded)]
    for index in dropped:
        log.info("Dropping %s, left by an interrupted build", index)
        execute(sql.SQL("DROP INDEX CONCURRENTLY {}").format(sql.Identifier(schema, index)))
    return dropped


def _is_left_over(index: str, unneeded: Collection[str]) -> bool:
    return is_left_by_reindex(index) or index in unneeded


def _validate(connection: Connection, schema: str, execute: _Execute) -> list[str]:
    found = connection.execute(_UNVALIDATED, (schema,)).fetchall()
    for table, constraint in found:
        log.info("Validating %s of %s", constraint, table)
        statement = sql.SQL("ALTER TABLE {} VALIDATE CONSTRAINT {}")
        execute(statement.format(sql.Identifier(schema, table), sql.Identifier(constraint)))
    return [f"{table}.{constraint}" for table, constraint in found]


def _move(connection: Connection, schemas: Schemas, soundness: Soundness) -> list[str]:
    """Make functions and triggers work on the schema they stand in, in one transaction; return their names."""
    astray = [each.object.partition(" ") for each in soundness.astray]
    functions = [name for kind, _, name in astray if kind == "function"]
    triggers = [name for kind, _, name in astray if kind == "trigger"]
    path = sql.SQL(", ").join(map(sql.Identifier, [*schemas.names, "pg_temp"]))
    with connection.transaction():
        parameters = {"schema": schemas.target, "functions": functions, "triggers": triggers}
        for signature, name in connection.execute(_SIGNATURES, parameters).fetchall():
            log.info("Making %s work on schema %s", name, schemas.target)
            statement = sql.SQL("ALTER FUNCTION {} SET search_path = {}")
            connection.execute(statement.format(sql.SQL(signature), path))
        for trigger, table, function, definition in connection.execute(_TRIGGERS, parameters).fetchall():
            log.info("Making trigger %s of %s call the function of schema %s", trigger, table, schemas.target)
            on = sql.Identifier(schemas.target, table)
            connection.execute(sql.SQL("DROP TRIGGER {} ON {}").format(sql.Identifier(trigger), on))
            own = sql.Identifier(schemas.target, function).as_string()
            begin, _, end = definition.rpartition(" EXECUTE FUNCTION ")
            connection.execute(f"{begin} EXECUTE FUNCTION {own}({end.partition('(')[2]}".encode())
    return [*functions, *triggers]


def _build_deferred(connection: Connection, schema: str, execute: _Execute) -> list[str]:
    """Build the indexes that a load has dropped and not built again; return their names."""
    from ragschema.publishing.deferral import DEFERRED, index_definition  # SQLAlchemy, for this only

    catalogue = read_fingerprints().get(read_current(connection, schema) or "", {})
    expected = {object_.rpartition(".")[2] for object_ in catalogue if object_.startswith("index ")}
    missing = [name for name in DEFERRED if name in expected and not _exists(connection, schema, name)]
    for name in missing:
        log.info("Building %s", name)
        execute(_without(schema, name), sql.SQL(index_definition(name)))
    return missing


def _build_missing(
    connection: Connection, schema: str, models: Sequence[RegisteredModel], execute: _Execute
) -> list[str]:
    """Build the indexes that embedding models are searched by and do not have; return their names."""
    missing = [
        model
        for model in models
        if not model.is_column and model.needs_index and not _exists(connection, schema, model.index)
    ]
    for model in missing:
        log.info("Building %s", model.index)
        execute(_without(schema, model.index), sql.SQL(concurrent_index(model)))
    return [model.index for model in missing]


def _without(schema: str, index: str) -> sql.Composable:
    """Return the statement that removes what a first attempt at an index left."""
    return sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(sql.Identifier(schema, index))


def _exists(connection: Connection, schema: str, name: str) -> bool:
    names = sql.Identifier(schema, name).as_string()
    return connection.execute("SELECT to_regclass(%s)", (names,)).fetchone() != (None,)
