"""Readiness of a database for a change: it may write, every row is seen, every function works on its own schema."""

from __future__ import annotations

from ragschema.database.row_security import refuse_hidden
from ragschema.database.server import Connection
from ragschema.database.write_access import check_writable
from ragschema.state.cluster import refuse_node, refuse_unreachable
from ragschema.state.soundness import find_soundness


def check_ready(connection: Connection, schema: str) -> None:
    """Refuse to begin a change that would act on a part of the rows, on another schema, or not at all.

    Reads the catalogue only, in four statements; on Citus it asks each node whether it is there.

    Args:
        connection: The connection that will change the database.
        schema: The schema of our tables; it need not be there yet.

    Raises:
        ConfigurationError: The server is a standby, or the session may only read, or the encoding is SQL_ASCII.
        NodeUnreachable: A node of Citus is away.
        RowsHidden: Row security hides rows of our tables.
        DriftFound: A function works on another schema than its own.
    """
    check_writable(connection)
    refuse_unreachable(connection, schema)
    refuse_hidden(connection, schema)
    find_soundness(connection, schema, None).refuse()


def check_alterable(connection: Connection, schema: str) -> None:
    """Refuse to begin a change of the tables themselves: as `check_ready`, and on Citus by its coordinator alone.

    Raises:
        TenantRefused: The database is on another node of Citus.
    """
    check_ready(connection, schema)
    refuse_node(connection, schema)
