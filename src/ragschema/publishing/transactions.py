"""Transactions that publishing takes part in."""

from __future__ import annotations

import sqlalchemy as sa

from ragschema.database.atomicity import refuse_autocommit
from ragschema.models import Document
from ragschema.publishing.errors import PublishingError
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
