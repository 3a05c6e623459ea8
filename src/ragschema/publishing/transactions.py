"""Transactions that publishing takes part in."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import async_scoped_session, async_sessionmaker
from sqlalchemy.orm import scoped_session, sessionmaker

from ragschema.database.atomicity import refuse_autocommit
from ragschema.models import Document
from ragschema.publishing.errors import PublishingError, in_a_transaction
from ragschema.schema.base import Executor
from ragschema.values import find_problem_of_time


def connection_of(session: Executor) -> sa.Connection:
    """Return the connection of a session's transaction; unlike ``session.execute`` it flushes nothing."""
    if isinstance(session, sa.Connection):
        return session
    return session.connection(bind_arguments={"mapper": Document})


def check_atomic(session: Executor, what: str) -> None:
    """Refuse a connection in autocommit mode, where each of several statements would be committed by itself.

    Raises:
        PublishingError: It is in autocommit mode.
    """
    refuse_autocommit(connection_of(session), what, PublishingError)


def check_factory(sessions: object, *, is_async: bool = False) -> None:
    """Refuse what makes no session for each transaction: before anything is embedded, which costs money.

    Raises:
        PublishingError: It is a session, an engine, or a registry of sessions, or makes sessions of the other kind.
    """
    other = sessionmaker if is_async else async_sessionmaker
    if not callable(sessions) or isinstance(sessions, scoped_session | async_scoped_session | other):
        made = "async_session_factory" if is_async else "session_factory"
        raise PublishingError(
            f"sessions is {type(sessions).__name__}, not a factory of sessions.", f"Pass one of {made}()."
        )


def check_batches(session: Executor, what: str) -> None:
    """Refuse a session or connection that cannot be committed batch by batch.

    Raises:
        PublishingError: It is in a transaction, or in autocommit mode.
    """
    if session.in_transaction():
        raise in_a_transaction(what, "session")
    check_atomic(session, what)
    session.rollback()


def check_connection(connection: sa.Connection, what: str) -> None:
    """Refuse what is no connection that can be committed batch by batch.

    Raises:
        PublishingError: It is a session, say, or in a transaction, or in autocommit mode.
    """
    if not isinstance(connection, sa.Connection):
        raise PublishingError(
            f"{what} takes a Connection, not {type(connection).__name__}.", "Pass engine.connect()."
        )
    if connection.in_transaction():
        raise in_a_transaction(what, "connection")
    check_atomic(connection, what)


def check_time(name: str, time: object) -> None:
    """Refuse what is no time, or another one in another zone.

    Raises:
        PublishingError: It is no datetime, or has no zone.
    """
    if problem := find_problem_of_time(time):
        raise PublishingError(
            f"The time {name}={time} {problem}.", "Use datetime.now(UTC) - timedelta(days=N), for example."
        )
