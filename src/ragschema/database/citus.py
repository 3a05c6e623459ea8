"""Citus: what differs where a tenant's schema is on one node of several, and statements reach it through another.

Found by the extension, not by a setting. There a schema has no triggers, and a statement that reads or writes tables is
carried out by the tenant's node as a whole: settings and types that it asks for are those of that node.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

if TYPE_CHECKING:
    from ragschema.database.server import Connection

HAS_CITUS = "EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = 'citus')"
"""Whether a database has Citus, as an expression of SQL."""

_KEY = "ragschema.is_on_citus"
_IS_DISTRIBUTED = """
SELECT FROM pg_catalog.pg_dist_partition p JOIN pg_catalog.pg_class c ON c.oid = p.logicalrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = 'rag_documents'
"""


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
