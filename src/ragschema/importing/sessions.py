"""Sessions of an import on the database that it writes to, and the lock that keeps a second one out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from ragschema.database.connections import Opened
from ragschema.database.drivers import engine_on
from ragschema.errors import LockNotObtained
from ragschema.migrations.deployer_lock import deployer_lock_key


def engine_on_url(at: Opened) -> sa.Engine:
    """Return an engine of several connections to an open database."""
    engine = sa.create_engine(at.database.url())
    path = at.schemas.search_path

    @sa.event.listens_for(engine, "connect")
    def _set_search_path(driver: Any, record: object) -> None:
        driver.execute("SELECT set_config('search_path', %s, false)", (path,))
        if at.options.role is not None:
            driver.execute("SELECT set_config('role', %s, false)", (at.options.role,))
        driver.commit()

    return engine


def lock(at: Opened, name: str) -> None:
    """Let no second import of the same name run; held until the connection closes.

    Raises:
        LockNotObtained: One does.
    """
    key = deployer_lock_key(f"{at.schemas.target} {name}")
    if at.connection.execute("SELECT pg_try_advisory_lock(%s)", (key,)).fetchone() != (True,):
        raise LockNotObtained(f"The {name} is running already.", "Wait for it, or end it, then run it again.")


@contextmanager
def connected(at: Opened) -> Iterator[sa.Connection]:
    """Yield SQLAlchemy's connection on an open one, in transactions instead of autocommit mode."""
    at.connection.autocommit = False
    try:
        with engine_on(at.connection).connect() as connection:
            yield connection
    finally:
        if not at.connection.closed:
            at.connection.rollback()
            at.connection.autocommit = True
