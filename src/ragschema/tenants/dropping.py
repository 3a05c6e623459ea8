"""Dropping of tenants: what would be lost is counted first, and nothing goes that is not ours."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import psycopg
from psycopg import sql

from ragschema.database.citus import hand_lock_timeout_to, lock_tables
from ragschema.database.connections import Opened, opened
from ragschema.database.poolers import find_backend_pid
from ragschema.database.row_security import refuse_hidden
from ragschema.database.schemas import check_schema_name
from ragschema.database.server import BOOKKEEPING, Connection
from ragschema.database.write_access import check_writable
from ragschema.errors import DataLossRefused, RagSchemaError, TenantRefused
from ragschema.migrations.deployer_lock import take_deployer_lock
from ragschema.migrations.interruption import find_interruption, interruptible
from ragschema.migrations.request import DatabaseArgument, resolve_options
from ragschema.migrations.retries import retrying
from ragschema.migrations.watch import Watch, watch_connection, watching
from ragschema.state.cluster import refuse_away, refuse_node
from ragschema.state.expected import our_tables, read_fingerprints
from ragschema.state.status import has_our_tables, read_current
from ragschema.tenants.counting import TenantRows, count_rows, find_tables
from ragschema.words import counted

BATCH = 20  # partitions of embeddings that a transaction drops: with their indexes it locks some 100 objects

_PARTITIONS = """
SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relkind = 'r' AND c.relispartition ORDER BY 1
"""
# What a schema contains depends on it; what belongs to a table of ours goes with that.
_STRANGERS = """
SELECT pg_describe_object(d.classid, d.objid, 0)
FROM pg_namespace n JOIN pg_depend d ON d.refclassid = 'pg_namespace'::regclass AND d.refobjid = n.oid
LEFT JOIN pg_class c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid
WHERE n.nspname = %(schema)s AND d.classid <> 'pg_default_acl'::regclass
AND coalesce(c.relname <> ALL (%(tables)s), true)
AND NOT EXISTS (SELECT FROM pg_proc p
    WHERE d.classid = 'pg_proc'::regclass AND p.oid = d.objid AND p.proname = ANY (%(functions)s))
AND NOT EXISTS (SELECT FROM pg_type t
    WHERE d.classid = 'pg_type'::regclass AND t.oid = d.objid AND t.typname = ANY (%(types)s))
AND NOT EXISTS (SELECT FROM pg_depend o JOIN pg_class t ON t.oid = o.refobjid
    WHERE o.classid = d.classid AND o.objid = d.objid AND o.refclassid = 'pg_class'::regclass
    AND o.deptype IN ('a', 'i', 'P', 'S') AND t.relnamespace = n.oid AND t.relname = ANY (%(tables)s))
ORDER BY 1
"""
_SHOWN = 5


@dataclass(frozen=True)
class DroppedTenant:
    """A tenant that was dropped.

    Attributes:
        schema: Its name.
        rows: What was in it.
    """

    schema: str
    rows: TenantRows


def count_tenant(name: str, database: DatabaseArgument = None) -> TenantRows:
    """Count what `drop_tenant` would destroy; reads only, and reads every table of the tenant once.

    Args:
        name: The schema.
        database: A database, its URL, or `Options`; the settings decide by default.

    Raises:
        TenantRefused: There is no such tenant, or its schema has something that is not ours.
        RowsHidden: Row security hides rows of it from this role.
    """
    with _opened(name, database) as at:
        refuse_strangers(at.connection, at.schemas.target)
        return count_rows(at.connection, at.schemas.target)


def drop_tenant(
    name: str, database: DatabaseArgument = None, *, allow_data_loss: bool = False
) -> DroppedTenant:
    """Drop a tenant: its tables, functions and types, and then its schema.

    ACCESS EXCLUSIVE on all of its tables; partitions of embeddings go first, `BATCH` in a transaction, so that the
    server's table of locks does not run out. Interrupted, it goes on when it is called again.

    Args:
        name: The schema.
        database: A database, its URL, or `Options`; the settings decide by default.
        allow_data_loss: Whether rows may be destroyed; without it only a tenant without any is dropped.

    Raises:
        DataLossRefused: It has rows; nothing was changed.
        TenantRefused: There is no such tenant, or its schema has something that is not ours, or something of
            others depends on its tables.
        NodeUnreachable: A node of Citus is away; nothing was changed.
        LockNotObtained: A deployer of it held the lock for too long, or sessions its tables.
    """
    with interruptible(), _opened(name, database) as at:
        connection, schema, options = at.connection, at.schemas.target, at.options
        take_deployer_lock(connection, schema, wait=options.lock_wait)
        check_writable(connection)
        refuse_away(connection)
        refuse_node(connection, schema)
        refuse_strangers(connection, schema)
        refuse_dependents(connection, schema)
        rows = count_rows(connection, schema)
        _refuse_loss(rows, allow_data_loss)
        pid = find_backend_pid(connection)
        with watching(lambda: watch_connection(at), pid, every=options.lock_timeout / 4) as watch:
            dropped: list[str] = []
            with _explained(schema, dropped, watch):
                while batch := _find_partitions(connection, schema)[:BATCH] if allow_data_loss else []:
                    retrying(options)(_drop_tables, connection, schema, batch)
                    dropped += batch
                retrying(options)(_drop_schema, connection, schema, allow_data_loss)
        if _exists(connection, schema):
            raise RagSchemaError(
                f"The schema {schema} was dropped, but the database still has it.",
                "Report this, with the command you ran.",
            )
        return DroppedTenant(schema, rows)


def refuse_strangers(connection: Connection, schema: str) -> None:
    """Refuse a schema that is no tenant, or that has something which is not ours; reads the catalogue only.

    Raises:
        TenantRefused: That is so.
    """
    has_table = any(table in BOOKKEEPING for table in find_tables(connection, schema))
    if not has_table and not has_our_tables(connection, schema):
        raise TenantRefused(
            f"There is no tenant {schema}: it is no schema of this database, or one without our tables.",
            "Nothing was changed. `rag tenants list` names those there are.",
        )
    names = {name for catalogue in read_fingerprints().values() for name in catalogue}
    found = connection.execute(
        _STRANGERS.encode(),
        {
            "schema": schema,
            "tables": [*our_tables(), *BOOKKEEPING],
            "functions": _named(names, "function "),
            "types": _named(names, "type "),
        },
    ).fetchall()
    if found:
        raise TenantRefused(
            f"In the schema {schema} not everything is ours: {counted(len(found), 'object')} of others.",
            "Nothing was changed. Drop them, or move them to another schema, first.",
            _shown([description for (description,) in found]),
        )


def refuse_dependents(connection: Connection, schema: str) -> None:
    """Refuse to drop tables that something of others depends on; reads the catalogue only.

    Raises:
        TenantRefused: Something does.
    """
    from ragschema.planning.dependents import find_dependents  # with Alembic

    if found := find_dependents(connection, schema, read_current(connection, schema)):
        raise TenantRefused(
            f"Objects that are not ours depend on what is in the schema {schema}.",
            "Nothing was changed. Drop them first, or ask their owner to.",
            _shown([f"{each.description} depends on {each.on}" for each in found]),
        )


@contextmanager
def _opened(name: str, database: DatabaseArgument) -> Iterator[Opened]:
    check_schema_name(name, "The tenant's name")
    with opened(replace(resolve_options(database, None), schema=name)) as at:
        refuse_hidden(at.connection, at.schemas.target)
        yield at


def _refuse_loss(rows: TenantRows, allow_data_loss: bool) -> None:
    if rows.total and not allow_data_loss:
        raise DataLossRefused(
            f"This would destroy the rows of the tenant {rows.schema}, so nothing was changed.",
            f"Have a backup. To destroy them all the same, run `rag tenants drop {shlex.quote(rows.schema)}"
            " --allow-data-loss` (allow_data_loss=True).",
            "\n".join(rows.lines()),
        )


def _drop_tables(connection: Connection, schema: str, tables: list[str]) -> None:
    names = sql.SQL(", ").join(sql.Identifier(schema, table) for table in tables)
    with connection.transaction():
        hand_lock_timeout_to(connection, schema)
        connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(names))


def _drop_schema(connection: Connection, schema: str, allow_data_loss: bool) -> None:
    """Drop all that is left, in one transaction; what has come since it was looked at is seen under the locks."""
    with connection.transaction():
        if tables := find_tables(connection, schema):
            lock_tables(connection, schema, tables)
            refuse_strangers(connection, schema)
            refuse_dependents(connection, schema)
            if not allow_data_loss:
                _refuse_loss(count_rows(connection, schema), allow_data_loss)
        connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(schema)))


@contextmanager
def _explained(schema: str, dropped: list[str], watch: Watch) -> Iterator[None]:
    """Say of a failure, and of an interruption, what is gone and what is not."""

    def outcome() -> str:
        gone = f"{counted(len(dropped), 'partition')} of embeddings" if dropped else "nothing"
        return f"dropped: {gone}; not dropped: the schema {schema}"

    try:
        yield
    except KeyboardInterrupt as exc:
        exc.add_note(outcome())
        raise
    except psycopg.Error as exc:
        if (
            stopped := find_interruption(exc)
        ) is not None:  # a rollback fails while a statement is on its way
            stopped.add_note(outcome())
            raise stopped from None
        from ragschema.migrations.failure_report import explain  # with SQLAlchemy

        raise explain(exc, f"The tenant {schema} was not dropped", outcome(), watch.blockers) from exc


def _find_partitions(connection: Connection, schema: str) -> list[str]:
    return [name for (name,) in connection.execute(_PARTITIONS.encode(), (schema,)).fetchall()]


def _exists(connection: Connection, schema: str) -> bool:
    statement = "SELECT FROM pg_namespace WHERE nspname = %s"
    return connection.execute(statement, (schema,)).fetchone() is not None


def _named(names: set[str], kind: str) -> list[str]:
    return sorted({name.removeprefix(kind).partition("(")[0] for name in names if name.startswith(kind)})


def _shown(lines: list[str]) -> str:
    return "\n".join(lines[:_SHOWN] + ["..."] * (len(lines) > _SHOWN))
