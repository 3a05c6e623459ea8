"""Engines and sessions for services, on the database that the settings find."""

from __future__ import annotations

import atexit
from contextlib import ExitStack
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.ext.asyncio import create_async_engine as sa_create_async_engine
from sqlalchemy.orm import Session, sessionmaker

import ragschema.embeddings.column_type  # noqa: F401  first: engines made after it bind embeddings in binary
from ragschema.database.connections import reachable
from ragschema.database.settings import Database, find_database

_until_exit = ExitStack()
atexit.register(_until_exit.close)


def create_engine(database_url: str | None = None, **options: Any) -> sa.Engine:
    """Create an engine for the database that `find_database` finds.

    Where that is the embedded server, it is started and runs until the process ends.

    Args:
        database_url: A PostgreSQL URL; the settings decide by default.
        options: Passed to `sqlalchemy.create_engine`.

    Raises:
        ConfigurationError: No database is set, or a setting cannot be used.
    """
    return sa.create_engine(_reachable_until_exit(database_url).url(), **options)


def create_async_engine(database_url: str | None = None, **options: Any) -> AsyncEngine:
    """Create an async engine; see `create_engine`."""
    return sa_create_async_engine(_reachable_until_exit(database_url).url(), **options)


def session_factory(database_url: str | None = None, **options: Any) -> sessionmaker[Session]:
    """Return a factory of sessions on `create_engine`: ``with session_factory().begin() as session: ...``."""
    return sessionmaker(create_engine(database_url, **options))


def _reachable_until_exit(database_url: str | None) -> Database:
    return _until_exit.enter_context(reachable(find_database(database_url)))
