"""Cluster of Citus that a schema is in: nodes that do not answer, and what loses rows or notifications there."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from ragschema.database.citus import Place, find_place, has_citus, is_distributed
from ragschema.database.members import members
from ragschema.database.server import VERSION_TABLE, Connection
from ragschema.errors import NodeUnreachable, RevisionRefused, TenantRefused
from ragschema.state.status import has_our_tables
from ragschema.words import counted

_UNREACHABLE = """
SELECT nodename || ':' || nodeport FROM pg_catalog.pg_dist_node
WHERE isactive AND NOT coalesce(pg_catalog.citus_check_connection_to_node(nodename, nodeport), false)
ORDER BY 1
"""
# Its name, where another node is asked.
_COORDINATOR = """
SELECT (SELECT nodename || ':' || nodeport FROM pg_catalog.pg_dist_node WHERE groupid = 0 AND noderole = 'primary')
FROM pg_catalog.pg_dist_local_group WHERE groupid <> 0
"""
_OUT_OF_REACH = """
SELECT s.nspname::text, n.nodename || ':' || n.nodeport
FROM pg_catalog.pg_dist_partition p JOIN pg_catalog.pg_class c ON c.oid = p.logicalrelid
JOIN pg_catalog.pg_namespace s ON s.oid = c.relnamespace
JOIN pg_catalog.pg_dist_shard d ON d.logicalrelid = p.logicalrelid
JOIN pg_catalog.pg_dist_placement a ON a.shardid = d.shardid
JOIN pg_catalog.pg_dist_node n ON n.groupid = a.groupid AND n.noderole = 'primary'
WHERE c.relname = %s AND n.nodename || ':' || n.nodeport = ANY (%s)
"""
_SET_TO = """
SELECT nodename || ':' || nodeport
FROM pg_catalog.run_command_on_all_nodes(pg_catalog.format('SELECT pg_catalog.current_setting(%%L)', %s::text)) r
JOIN pg_catalog.pg_dist_node n USING (nodeid)
WHERE r.success AND r.result = ANY (%s) ORDER BY 1
"""
_TRIGGERS = f"""
SELECT t.tgname::text FROM pg_catalog.pg_trigger t
JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
WHERE NOT t.tgisinternal AND c.oid IN ({members("pg_class", "%s")}) AND c.relname::text LIKE 'rag\\_%%'
AND t.tgname::text LIKE 'rag\\_%%' ORDER BY 1
"""
_LISTENERS = """
SELECT count(*) FROM pg_catalog.pg_stat_activity
WHERE datname = current_database() AND pg_catalog.regexp_replace(query, '^LISTEN\\s+|\\s*;\\s*$', '', 'gi')
    = pg_catalog.quote_ident(CAST('rag_jobs_' || %s::text AS name)::text)
"""

LAST_WAY_BACK = "20261128170100"
"""The revision whose downgrade drops a trigger, as those before it do: a tenant of a node has none."""


@dataclass(frozen=True)
class ClusterFault:
    """What was found in a cluster.

    Attributes:
        verdict: ``ok``; ``warning``: something is lost or not kept; ``refused``: no migration can run.
        finding: What was found.
        remedy: What to do about it.
    """

    verdict: Literal["ok", "warning", "refused"]
    finding: str
    remedy: str = ""


def find_unreachable(connection: Connection) -> list[str]:
    """Return the nodes of Citus that do not answer, as HOST:PORT; none where there is no Citus."""
    if not has_citus(connection):
        return []
    return [str(row[0]) for row in connection.execute(_UNREACHABLE).fetchall()]


def find_out_of_reach(connection: Connection) -> dict[str, str]:
    """Return the tenants whose node of Citus does not answer, each with that node as HOST:PORT.

    A node that hangs is waited for once, and not for each of its tenants.
    """
    away = find_unreachable(connection)
    return dict(connection.execute(_OUT_OF_REACH, (VERSION_TABLE, away)).fetchall()) if away else {}


def find_asynchronous(connection: Connection) -> list[str]:
    """Return the nodes of Citus whose commits are acknowledged before they are kept, as HOST:PORT."""
    return _find_set_to(connection, "synchronous_commit", ["off"])


def find_without_replication(connection: Connection) -> list[str]:
    """Return the nodes of Citus that no tenant can be copied from while it is written to, as HOST:PORT."""
    return _find_set_to(connection, "wal_level", ["minimal", "replica"])


def _find_set_to(connection: Connection, setting: str, values: list[str]) -> list[str]:
    return [str(row[0]) for row in connection.execute(_SET_TO, (setting, values)).fetchall()]


def refuse_unreachable(connection: Connection, schema: str, *, is_altered: bool = False) -> None:
    """Refuse to change a schema of Citus, or to make one there, while a node is away: that is done on every node.

    Tables that are ordinary ones, and there already, are changed all the same.

    Args:
        connection: A connection.
        schema: The schema of our tables; it need not be there yet.
        is_altered: Whether the tables themselves are to change, which only the coordinator does on every node.

    Raises:
        NodeUnreachable: One does not answer.
        TenantRefused: The tables are to change, and the database is on another node than the coordinator.
    """
    if has_citus(connection) and _is_on_every_node(connection, schema):
        refuse_away(connection)
        if is_altered:
            refuse_any_node(connection)


def refuse_away(connection: Connection) -> None:
    """Refuse what is done on every node of Citus while one is away: to make, to hand over, to drop a schema.

    Raises:
        NodeUnreachable: One does not answer.
    """
    if away := find_unreachable(connection):
        raise NodeUnreachable(
            f"No tenant of Citus can be made, changed or dropped while a node is away: {', '.join(away)}.",
            "Nothing was changed. Bring the node back, or take it out of the cluster, then run this again.",
        )


def refuse_node(connection: Connection, schema: str) -> None:
    """Refuse to change a schema of Citus on another node than the coordinator, which alone changes it on every node.

    Raises:
        TenantRefused: The database is on such a node.
    """
    if has_citus(connection) and _is_on_every_node(connection, schema):
        refuse_any_node(connection)


def refuse_any_node(connection: Connection) -> None:
    """Refuse what only the coordinator of Citus does: to place a tenant, to change its tables.

    Raises:
        TenantRefused: The database is on another node.
    """
    if (row := connection.execute(_COORDINATOR).fetchone()) is not None:
        raise TenantRefused(
            "The database is on a node of a cluster, and not on its coordinator.",
            f"Nothing was changed. Name the coordinator: {row[0] or 'the node of the group 0'}.",
        )


def _is_on_every_node(connection: Connection, schema: str) -> bool:
    """Whether a change of a schema's tables reaches the nodes of Citus: they are on one, or are still to be made."""
    return is_distributed(connection, schema) or not has_our_tables(connection, schema)


def refuse_way_back(connection: Connection, schema: str, reversed_revisions: Iterable[str]) -> None:
    """Refuse to reverse revisions of a schema of Citus that take triggers away.

    Raises:
        RevisionRefused: One of them does.
    """
    if any(each <= LAST_WAY_BACK for each in reversed_revisions) and is_distributed(connection, schema):
        raise RevisionRefused(
            f"A tenant on a node of Citus cannot go back past {LAST_WAY_BACK}: its tables have no triggers, and"
            " earlier revisions take some away.",
            f"Nothing was changed. Roll back to {LAST_WAY_BACK} at most; or, at head, run"
            f" `rag tenants undistribute {shlex.quote(schema)}`: an ordinary schema goes back farther.",
        )


def find_cluster_faults(connection: Connection, schema: str) -> Iterator[ClusterFault]:
    """Yield what is wrong with the cluster that a schema is in, and what is not kept there; nothing without Citus."""
    if not has_citus(connection):
        return
    if away := find_unreachable(connection):
        yield ClusterFault(
            "refused" if _is_on_every_node(connection, schema) else "warning",
            f"{counted(len(away), 'node')} of Citus {'does' if len(away) == 1 else 'do'} not answer: {', '.join(away)}",
            "Bring it back: until then nobody can make a tenant, or change the tables or functions of one.",
        )
    if (place := find_place(connection, schema)) is None:
        return
    yield ClusterFault(
        "ok",
        f"the tables are on {place.host}:{place.port}, without triggers: our functions keep is_current, updated_at and"
        " the jobs right, and SQL that somebody writes by hand does so itself",
    )
    if found := [str(row[0]) for row in connection.execute(_TRIGGERS, (schema,)).fetchall()]:
        yield ClusterFault(
            "warning",
            f"{counted(len(found), 'trigger')} on tables that are on a node of Citus: {', '.join(found)}",
            "Drop them: Citus runs none of them, or runs them on another node than the rows are on.",
        )
    if nodes := find_asynchronous(connection):
        yield ClusterFault(
            "warning",
            f"synchronous_commit is off on {', '.join(nodes)}: a move of this tenant loses commits that were"
            " acknowledged",
            "ALTER SYSTEM SET synchronous_commit = on on every node, before a tenant is moved.",
        )
    if not place.is_here:
        yield from _find_listeners(connection, schema, place)


def _find_listeners(connection: Connection, schema: str, place: Place) -> Iterator[ClusterFault]:
    row = connection.execute(_LISTENERS, (schema,)).fetchone()
    if row is not None and row[0]:
        yield ClusterFault(
            "warning",
            f"{counted(row[0], 'worker')} listens here, and hears of no job that is enqueued on"
            f" {place.host}:{place.port}",
            "Enqueue and work through one node: the tenant's own, by create_engine(tenant=...), or this one.",
        )
