"""Driver connections: psycopg's handed to SQLAlchemy, and taken out of it again."""

from __future__ import annotations

from typing import cast

import sqlalchemy as sa
from sqlalchemy.pool import StaticPool

from ragschema.database.server import Connection


def engine_on(driver: Connection) -> sa.Engine:
    """Return an engine whose one connection is this one; whoever opened it closes it."""
    return sa.create_engine("postgresql+psycopg://", creator=lambda: driver, poolclass=StaticPool)


def driver_of(connection: sa.Connection) -> Connection:
    """Return psycopg's own connection below SQLAlchemy's."""
    return cast(Connection, connection.connection.driver_connection)


def as_written(sql: str) -> sa.TextClause:
    """Return a statement without parameters, whatever colons and percent signs are in it."""
    return sa.text(sql.replace(":", "\\:"))
