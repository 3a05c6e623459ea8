"""Connections whose statements are committed together, or one by one."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from sqlalchemy import Connection

from ragschema.errors import RagSchemaError


def refuse_autocommit(connection: Connection, what: str, error: type[RagSchemaError]) -> None:
    """Refuse a connection in autocommit mode, by the engine's isolation level for one.

    Args:
        connection: Whose transaction several statements are to be.
        what: Takes them.
        error: Raised.
    """
    if _is_autocommit(connection):
        raise error(
            f"{what} takes several statements, and this connection is in autocommit mode.",
            "Give it a connection with transactions: one of an engine without isolation_level='AUTOCOMMIT'.",
        )


def savepoint(connection: Connection) -> AbstractContextManager[object]:
    """Let the transaction go on where a statement of the block fails; in autocommit mode there is none to save."""
    return nullcontext() if _is_autocommit(connection) else connection.begin_nested()


def _is_autocommit(connection: Connection) -> bool:
    return connection.connection.dbapi_connection.autocommit  # type: ignore[union-attr,no-any-return]  # of every driver
