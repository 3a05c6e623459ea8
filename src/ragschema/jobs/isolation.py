"""The isolation of claims: transactions that look again where another worker was faster."""

from __future__ import annotations

from psycopg.pq import TransactionStatus
from sqlalchemy import Connection, text
from sqlalchemy.orm import Session

from ragschema.models import Job
from ragschema.schema.base import Executor


def begin_read_committed(session: Executor) -> Connection:
    """Put a transaction that has not begun into READ COMMITTED, where a role or a database says otherwise.

    A stricter one cannot claim beside others: each job that somebody else took first would end it.

    Returns:
        The connection of the transaction.
    """
    connection = (
        session.connection(bind_arguments={"mapper": Job}) if isinstance(session, Session) else session
    )
    pooled = connection.connection
    status = getattr(getattr(pooled.dbapi_connection, "info", None), "transaction_status", None)
    if status != TransactionStatus.IDLE:
        return connection  # not the first statement, or another driver
    # asked once for each connection of the pool, and each level that SQLAlchemy has set it to: two engines may share it
    asked = ("rag_isolation", getattr(pooled.dbapi_connection, "isolation_level", None))
    if asked not in pooled.info:
        pooled.info[asked] = connection.execute(text("SHOW transaction_isolation")).scalar_one()
    if pooled.info[asked] != "read committed" and not _is_autocommit(connection):
        connection.execute(text("SET TRANSACTION ISOLATION LEVEL READ COMMITTED"))
    return connection


def _is_autocommit(connection: Connection) -> bool:
    return bool(connection.connection.dbapi_connection.autocommit)  # type: ignore[union-attr]  # of every driver
