"""Connections whose statements are committed together, or one by one."""

from __future__ import annotations

from sqlalchemy import Connection

from ragschema.errors import RagSchemaError


def refuse_autocommit(connection: Connection, what: str, error: type[RagSchemaError]) -> None:
    """Refuse a connection in autocommit mode, by the engine's isolation level for one.

    Args:
        connection: Whose transaction several statements are to be.
        what: Takes them.
        error: Raised.
    """
    if connection.connection.dbapi_connection.autocommit:  # type: ignore[union-attr]  # of every driver
        raise error(
            f"{what} takes several statements, and this connection is in autocommit mode.",
            "Give it a connection with transactions: one of an engine without isolation_level='AUTOCOMMIT'.",
        )
