"""Places of tenants on Citus: on which node one is, to a node, and from one node to another."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from psycopg import sql

from ragschema.database.citus import Place, find_place, has_citus
from ragschema.database.connections import Opened, opened, opened_database
from ragschema.database.schemas import check_schema_name
from ragschema.database.server import Connection
from ragschema.errors import TenantRefused
from ragschema.migrations.deployer_lock import take_deployer_lock
from ragschema.migrations.interruption import interruptible
from ragschema.migrations.readiness import check_ready
from ragschema.migrations.request import DatabaseArgument, resolve_options
from ragschema.state.cluster import find_asynchronous, find_without_replication, refuse_any_node, refuse_away
from ragschema.state.status import require_current
from ragschema.tenants.counting import TenantRows

_TRIGGERS = """
SELECT t.tgname::text, c.relname::text FROM pg_trigger t
JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE NOT t.tgisinternal AND n.nspname = %s ORDER BY 1
"""
_TABLES = """
SELECT format('%%I.%%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relkind IN ('r', 'p') AND NOT c.relispartition ORDER BY 1
"""
_NODES = """
SELECT nodename::text, nodeport FROM pg_dist_node
WHERE isactive AND noderole = 'primary' AND shouldhaveshards ORDER BY 1, 2
"""
# A function of a table's row type is known to no node until the table is: created anew, it is made on each.
_LEFT_BEHIND = """
SELECT pg_get_functiondef(p.oid) FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname = %s AND p.prokind IN ('f', 'p') AND NOT EXISTS (
    SELECT FROM pg_dist_object d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid
)
"""
_DISTRIBUTE = "SELECT citus_schema_distribute(quote_ident(%s)::regnamespace)"
_MOVE = "SELECT citus_schema_move(quote_ident(%s)::regnamespace, %s, %s)"
_FREE = "SELECT truncate_local_data_after_distributing_table(%s::regclass)"


@dataclass(frozen=True)
class PlacedTenant:
    """A tenant that was placed, or that would be.

    Attributes:
        schema: Its name.
        is_dry_run: Whether nothing was changed.
        before: The node it was on, as HOST:PORT; None: its tables are ordinary ones of the database that was asked.
        after: The node it is on now, likewise; None of a dry run of distribute too: Citus chooses it.
        triggers: The triggers that go; of undistribute those that are made again.
        rows: What is copied, of undistribute.
        bytes: The size of its tables with indexes and TOAST on the node, likewise.
    """

    schema: str
    is_dry_run: bool
    before: str | None
    after: str | None
    triggers: tuple[str, ...] = ()
    rows: TenantRows | None = None
    bytes: int | None = None


def locate(name: str, database: DatabaseArgument = None) -> Place | None:
    """Return the node of Citus that a tenant's tables are on; None where they are on none. Reads only.

    An answer that is no longer true still works: every node leads to every tenant.

    Args:
        name: The schema.
        database: A database, its URL, or `Options`; the settings decide by default.
    """
    check_schema_name(name, "The tenant's name")
    with opened_database(resolve_options(database, None)) as (connection, _):
        return find_place(connection, name)


def distribute_tenant(name: str, database: DatabaseArgument = None, *, dry_run: bool = False) -> PlacedTenant:
    """Hand a tenant's tables, with their rows, to a node that Citus chooses; in one transaction.

    Our triggers are dropped before, as Citus allows none: see docs/citus.md for what SQL by hand keeps itself then.
    ACCESS EXCLUSIVE on all of its tables, for as long as their rows are copied.

    Args:
        name: The schema, with our tables.
        database: A database, its URL, or `Options`: the coordinator.
        dry_run: Change nothing.

    Raises:
        TenantRefused: There is no Citus, the tenant is on a node already, or has triggers that are not ours.
        LockNotObtained: Another deployer held the lock for too long.
    """
    with placing(name, database) as at:
        connection, schema = at.connection, at.schemas.target
        if (place := find_place(connection, schema)) is not None:
            raise _there_already(schema, said(place))
        found = connection.execute(_TRIGGERS, (schema,)).fetchall()
        _refuse_strangers(schema, [name for name, _ in found if not name.startswith("rag_")])
        triggers = tuple(name for name, _ in found)
        if dry_run:
            return PlacedTenant(schema, True, None, None, triggers)
        with connection.transaction():
            for trigger, table in found:
                names = sql.Identifier(trigger), sql.Identifier(schema, table)
                connection.execute(sql.SQL("DROP TRIGGER {} ON {}").format(*names))
            connection.execute(_DISTRIBUTE, (schema,))
            for (function,) in connection.execute(_LEFT_BEHIND, (schema,)).fetchall():
                connection.execute(function.encode())
            for (table,) in connection.execute(_TABLES, (schema,)).fetchall():
                connection.execute(_FREE, (table,))  # the copies that the move left behind here
        return PlacedTenant(schema, False, None, said(find_place(connection, schema)), triggers)


def move_tenant(
    name: str, host: str, port: int, database: DatabaseArgument = None, *, dry_run: bool = False
) -> PlacedTenant:
    """Take a tenant to another node while its service goes on: writers wait only for the end of it.

    Args:
        name: The schema.
        host: Of the node, as the cluster names it.
        port: Of the node.
        database: A database, its URL, or `Options`: the coordinator.
        dry_run: Change nothing.

    Raises:
        TenantRefused: The tenant is on no node, or on that one; that is none of the cluster's; or synchronous_commit
            is off, so that commits would be lost, or wal_level not logical.
        LockNotObtained: Another deployer held the lock for too long.
    """
    with placing(name, database) as at:
        connection, schema = at.connection, at.schemas.target
        before = require_place(connection, schema)
        after = f"{host}:{port}"
        nodes = [f"{each}:{number}" for each, number in connection.execute(_NODES).fetchall()]
        _refuse_move(connection, schema, said(before), after, nodes)
        if not dry_run:
            connection.execute(_MOVE, (schema, host, port))
            after = said(find_place(connection, schema))
        return PlacedTenant(schema, dry_run, said(before), after)


@contextmanager
def placing(name: str, database: DatabaseArgument) -> Iterator[Opened]:
    """Open a tenant that is to be placed, and hold its deployer lock.

    Raises:
        TenantRefused: The database has no Citus, or is not the cluster's coordinator.
        NodeUnreachable: A node is away.
    """
    check_schema_name(name, "The tenant's name")
    options = replace(resolve_options(database, None), schema=name, application_name="rag tenants")
    with interruptible(), opened(options) as at:
        if not has_citus(at.connection):
            raise TenantRefused(
                "The database has no Citus, which would place tenants on nodes.",
                "Nothing was changed. Name the coordinator of a cluster.",
            )
        take_deployer_lock(at.connection, at.schemas.target, wait=options.lock_wait)
        refuse_away(at.connection)
        refuse_any_node(at.connection)
        require_current(at.connection, at.schemas.target)
        check_ready(at.connection, at.schemas.target)
        yield at


def require_place(connection: Connection, schema: str) -> Place:
    """Return the node that a tenant is on.

    Raises:
        TenantRefused: It is on none.
    """
    if (place := find_place(connection, schema)) is None:
        raise TenantRefused(
            f"The tenant {schema} is on no node of Citus: its tables are ordinary ones.",
            f"Nothing was changed. `rag tenants distribute {shlex.quote(schema)}` hands them to a node.",
        )
    return place


def _refuse_strangers(schema: str, names: Sequence[str]) -> None:
    if names:
        raise TenantRefused(
            f"Tables of the tenant {schema} have triggers that are not ours: {', '.join(names)}.",
            "Nothing was changed. Drop them first: Citus allows none on the tables of a node.",
        )


def _there_already(schema: str, node: str) -> TenantRefused:
    return TenantRefused(
        f"The tenant {schema} is on the node {node} already.",
        f"Nothing was changed. `rag tenants move {shlex.quote(schema)} HOST:PORT` takes it to another.",
    )


def _refuse_move(connection: Connection, schema: str, before: str, after: str, nodes: Sequence[str]) -> None:
    if after == before:
        raise _there_already(schema, after)
    if after not in nodes:
        raise TenantRefused(
            f"The cluster has no node {after} that takes tenants.", f"Name one of: {', '.join(nodes)}."
        )
    if found := find_asynchronous(connection):
        raise TenantRefused(
            f"With synchronous_commit off, as on {', '.join(found)}, a move loses commits that were acknowledged.",
            "Nothing was changed. ALTER SYSTEM SET synchronous_commit = on on every node, then run this again.",
        )
    if before in find_without_replication(connection):
        raise TenantRefused(
            f"A move copies a tenant by logical replication, and wal_level is not logical on {before}.",
            "Nothing was changed. ALTER SYSTEM SET wal_level = logical on every node, restart them, then run this"
            " again.",
        )


def said(place: Place | None) -> str:
    """Return a node as HOST:PORT."""
    return "" if place is None else f"{place.host}:{place.port}"
