"""Transactions that publishing takes part in."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa

from ragschema.database.atomicity import refuse_autocommit
from ragschema.models import Document
from ragschema.publishing.errors import PublishingError, in_a_transaction
from ragschema.schema.base import Executor


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


def check_batches(session: Executor, what: str) -> None:
    """Refuse a session or connection that cannot be committed batch by batch.

    Raises:
        PublishingError: It is in a transaction, or in autocommit mode.
    """
    if session.in_transaction():
        raise in_a_transaction(what, "session")
    check_atomic(session, what)
    session.rollback()


def check_time(name: str, time: datetime) -> None:
    """Refuse a time that is another one in another zone.

    Raises:
        PublishingError: It is none, or has no zone.
    """
    if not isinstance(time, datetime):
        raise PublishingError(
            f"The time {name}={time!r} is {type(time).__name__}, not a datetime.",
            "Use datetime.now(UTC) - timedelta(days=N), for example.",
        )
    if time.tzinfo is None:
        raise PublishingError(
            f"The time {name}={time} has no zone.",
            "Use datetime.now(UTC) - timedelta(days=N), for example.",
        )
