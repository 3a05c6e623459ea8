"""Citus: what differs where a tenant's schema is on one node of several, and statements reach it through another.

Found by the extension, not by a setting. There a schema has no triggers, and a statement that reads or writes tables is
carried out by the tenant's node as a whole: settings and types that it asks for are those of that node.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import sqlalchemy as sa

    from ragschema.database.server import Connection
    from ragschema.database.settings import Database

HAS_CITUS = "EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = 'citus')"
"""Whether a database has Citus, as an expression of SQL."""

_KEY = "ragschema.is_on_citus"
_IS_DISTRIBUTED = """
SELECT FROM pg_catalog.pg_dist_partition p JOIN pg_catalog.pg_class c ON c.oid = p.logicalrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = 'rag_documents'
"""
_PLACE = """
SELECT n.nodename::text, n.nodeport, n.groupid = (SELECT groupid FROM pg_catalog.pg_dist_local_group)
FROM pg_catalog.pg_dist_partition p JOIN pg_catalog.pg_class c ON c.oid = p.logicalrelid
JOIN pg_catalog.pg_namespace s ON s.oid = c.relnamespace
JOIN pg_catalog.pg_dist_shard d ON d.logicalrelid = p.logicalrelid
JOIN pg_catalog.pg_dist_placement a ON a.shardid = d.shardid
JOIN pg_catalog.pg_dist_node n ON n.groupid = a.groupid AND n.noderole = 'primary'
WHERE s.nspname = %s AND c.relname = 'rag_documents'
"""
_SHARDS = """
SELECT c.oid::int8, pg_catalog.shard_name(d.logicalrelid, d.shardid), d.logicalrelid::text
FROM pg_catalog.pg_dist_shard d JOIN pg_catalog.pg_class c ON c.oid = d.logicalrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relkind IN ('r', 'p')
"""
# What reads a table of the tenant is carried out by its node, in the transaction that is open there.
_DELETIONS = """
SELECT shard.oid, pg_catalog.pg_stat_get_xact_tuples_deleted(pg_catalog.to_regclass(shard.name)),
    pg_catalog.current_setting('track_counts') = 'on'
FROM unnest(%(oids)s::int8[], %(names)s::text[]) AS shard (oid, name),
    (SELECT count(*) FROM (SELECT FROM {table} LIMIT 1) one) there
"""

_INDEX_SHARD = """
SELECT pg_catalog.shard_name(x.indexrelid, d.shardid), x.indrelid::regclass::text
FROM pg_catalog.pg_index x JOIN pg_catalog.pg_dist_shard d ON d.logicalrelid = x.indrelid
WHERE x.indexrelid = pg_catalog.to_regclass(%s)
"""
_INDEX_SIZE = """
SELECT coalesce(pg_catalog.pg_relation_size(pg_catalog.to_regclass(shard.name)), 0)
FROM (VALUES (%(name)s::text)) AS shard (name), (SELECT count(*) FROM (SELECT FROM {table} LIMIT 1) one) there
"""


@dataclass(frozen=True)
class Place:
    """The node that a schema's tables are on.

    Attributes:
        host: By which the nodes reach it.
        port: Its port.
        is_here: Whether the connection that was asked is to it.
    """

    host: str
    port: int
    is_here: bool


@dataclass(frozen=True)
class NodeCount:
    """What the node of a table knows of the rows that an open transaction has deleted.

    Attributes:
        deleted: How many; only the difference of two looks in one transaction tells something.
        is_counted: Whether the node counts them.
    """

    deleted: int
    is_counted: bool


def database_at(database: Database, place: Place) -> Database:
    """Return the same database on a node of Citus."""
    given = {name: value for name, value in database.parameters.items() if name != "hostaddr"}
    parameters = {**given, "host": place.host, "port": str(place.port)}
    return replace(database, parameters=parameters, source="the cluster of Citus")


def is_on_citus(connection: sa.Connection) -> bool:
    """Whether a connection's database has Citus: asked once for each connection to the server.

    Args:
        connection: A connection in its transaction, of any engine.
    """
    found = connection.info.get(_KEY)
    if found is None:
        found = connection.exec_driver_sql(f"SELECT {HAS_CITUS}").scalar_one()
        connection.info[_KEY] = found
    return bool(found)


def remember_citus(info: dict[str, object], is_there: bool) -> None:
    """Note whether a connection's database has Citus, where it was asked with something else.

    Args:
        info: Of the pool's record of the connection.
        is_there: Whether it has.
    """
    info[_KEY] = is_there


def is_distributed(connection: Connection, schema: str) -> bool:
    """Whether a schema's tables are on a node of Citus, and so have no triggers; reads only."""
    if not has_citus(connection):
        return False
    return connection.execute(_IS_DISTRIBUTED, (schema,)).fetchone() is not None


def has_citus(connection: Connection) -> bool:
    """Whether a database has Citus, asked through psycopg."""
    row = connection.execute(f"SELECT {HAS_CITUS}".encode()).fetchone()
    return row is not None and bool(row[0])


def find_place(connection: Connection, schema: str) -> Place | None:
    """Return the node that a schema's tables are on; None where they are on no node of Citus. Reads only."""
    if not has_citus(connection):
        return None
    row = connection.execute(_PLACE, (schema,)).fetchone()
    return None if row is None else Place(*row)


def hand_lock_timeout_on(connection: Connection) -> None:
    """Tell the nodes lock_timeout in a transaction that is open: a setting of the session holds on this node alone.

    An ALTER through the coordinator waited 6.6 s for a reader on the tenant's node where 1 s was set, and 1.4 s so.
    """
    connection.execute("SET LOCAL citus.propagate_set_commands = 'local'")
    told = "SELECT format('SET LOCAL lock_timeout = %L', current_setting('lock_timeout'))"
    for (statement,) in connection.execute(told).fetchall():
        connection.execute(statement.encode())


def hand_lock_timeout_to(connection: Connection, schema: str) -> None:
    """Tell the nodes lock_timeout, in a transaction that is open, if a schema is on one of them."""
    if is_distributed(connection, schema):
        hand_lock_timeout_on(connection)


def lock_tables(
    connection: Connection, schema: str, tables: Sequence[str], *, with_partitions: bool = True
) -> None:
    """Take ACCESS EXCLUSIVE on tables of a schema, wherever they are.

    Args:
        connection: In a transaction.
        schema: The schema.
        tables: Their names.
        with_partitions: On their partitions, too.

    Raises:
        psycopg.errors.LockNotAvailable: A session has one of them. Of one on a node Citus only warns, and fails with an
            internal error.
    """
    import psycopg  # what a service loads of this module needs no driver
    from psycopg import sql

    from ragschema.database.sqlstates import LOCK_CONFLICTS

    hand_lock_timeout_to(connection, schema)
    warned: list[str | None] = []

    def hear(diagnostic: psycopg.errors.Diagnostic) -> None:
        if diagnostic.sqlstate in LOCK_CONFLICTS:
            warned.append(diagnostic.message_primary)

    names = sql.SQL(", ").join(sql.Identifier(schema, table) for table in tables)
    connection.add_notice_handler(hear)
    try:
        only = sql.SQL("" if with_partitions else "ONLY ")
        connection.execute(sql.SQL("LOCK TABLE {}{} IN ACCESS EXCLUSIVE MODE").format(only, names))
    except psycopg.errors.InternalError_ as exc:
        if warned:
            raise psycopg.errors.LockNotAvailable(f"{warned[0]}\n{exc}") from exc
        raise
    finally:
        connection.remove_notice_handler(hear)


def count_deletions(connection: Connection, schema: str) -> dict[int, NodeCount]:
    """Return what has been deleted of a schema's tables, by their oids here, as their node counts it; reads only."""
    shards = connection.execute(_SHARDS, (schema,)).fetchall()
    if not shards:
        return {}
    oids, names, tables = zip(*shards, strict=True)
    statement = _DELETIONS.format(table=tables[0].replace("%", "%%"))
    rows = connection.execute(statement.encode(), {"oids": [*oids], "names": [*names]}).fetchall()
    return {oid: NodeCount(deleted or 0, bool(is_counted)) for oid, deleted, is_counted in rows}


def find_index_size(connection: Connection, index: str) -> int | None:
    """Return the bytes of an index on a node, as that node says; None where its table is on none. Reads only.

    Args:
        connection: A connection.
        index: Its name, with the schema and quoted as SQL does.
    """
    if not has_citus(connection) or (row := connection.execute(_INDEX_SHARD, (index,)).fetchone()) is None:
        return None
    name, table = row
    statement = _INDEX_SIZE.format(table=table.replace("%", "%%")).encode()
    found = connection.execute(statement, {"name": name}).fetchone()
    return None if found is None else int(found[0])
