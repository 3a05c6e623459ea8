"""Readiness of a database for a change: it may write, every row is seen, every function works on its own schema."""

from __future__ import annotations

from ragschema.database.row_security import refuse_hidden
from ragschema.database.server import Connection
from ragschema.database.write_access import check_writable
from ragschema.state.cluster import refuse_unreachable
from ragschema.state.soundness import find_soundness


def check_ready(connection: Connection, schema: str, *, is_altered: bool = False) -> None:
    """Refuse to begin a change that would act on a part of the rows, on another schema, or not at all.

    Reads the catalogue only, in four statements; on Citus it asks each node whether it is there.

    Args:
        connection: The connection that will change the database.
        schema: The schema of our tables; it need not be there yet.
        is_altered: Whether the tables themselves are to change, and not only rows.

    Raises:
        ConfigurationError: The server is a standby, or the session may only read, or the encoding is SQL_ASCII.
        NodeUnreachable: A node of Citus is away.
        TenantRefused: The tables are to change, and the database is on a node of Citus that is not its coordinator.
        RowsHidden: Row security hides rows of our tables.
        DriftFound: A function works on another schema than its own.
    """
    check_writable(connection)
    refuse_unreachable(connection, schema, is_altered=is_altered)
    refuse_hidden(connection, schema)
    find_soundness(connection, schema, None).refuse()
