"""Handing an open connection to SQLAlchemy: what looks with psycopg may then use what takes a Connection."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from ragschema.server import Connection


def engine_on(driver: Connection) -> sa.Engine:
    """Return an engine whose one connection is this one, which it closes after use."""
    return sa.create_engine("postgresql+psycopg://", creator=lambda: driver, poolclass=NullPool)
