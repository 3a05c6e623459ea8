"""The connection of a run: an open one handed to SQLAlchemy, which tells the run what a revision commits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
import sqlalchemy as sa

from ragschema.database.citus import hand_lock_timeout_on, has_citus
from ragschema.database.drivers import engine_on
from ragschema.database.server import Connection
from ragschema.migrations.run import Run
from ragschema.planning.effects import is_framing

_ENGINE = "_ragschema_engine"  # an attribute of the driver's connection, and gone with it

_HAS_CHANGED = "SELECT pg_current_xact_id_if_assigned() IS NOT NULL"


def _engine_of(driver: Connection) -> sa.Engine:
    """Return the engine on a connection: one asks five questions of a server, and the connection may be lent again."""
    engine: sa.Engine | None = getattr(driver, _ENGINE, None)
    if engine is None:
        engine = engine_on(driver)
        setattr(driver, _ENGINE, engine)
    return engine


@contextmanager
def run_connection(driver: Connection, run: Run) -> Iterator[sa.Connection]:
    """Hand an open connection to SQLAlchemy, and tell the run of what a revision commits before its end.

    In an autocommit block lock_timeout is 0: it would end a concurrent index build that waits for an older
    transaction, which holds nobody up, and leave the index INVALID. On Citus it is told to the nodes, too.
    """
    is_there = has_citus(driver)
    driver.autocommit = False
    engine = _engine_of(driver)

    before: list[str] = []

    def _set_lock_timeout(_connection: sa.Connection, told: dict[str, Any]) -> None:
        if not (level := told.get("isolation_level")):
            return
        with suppress(psycopg.Error):  # the connection is lost: the next statement says so
            if level == "AUTOCOMMIT":
                row = driver.execute("SELECT current_setting('lock_timeout')").fetchone()
                before.extend(row or ())
                driver.execute("SET lock_timeout = 0")
            elif before:
                driver.execute("SELECT set_config('lock_timeout', %s, false)", (before.pop(),))
            driver.commit()

    def _note_commit(_connection: sa.Connection) -> None:
        if (attempt := run.at_work) is not None and attempt.is_in_revision:
            with suppress(psycopg.Error):  # the COMMIT that follows says so
                if driver.execute(_HAS_CHANGED).fetchone() == (True,):
                    attempt.has_left_transaction = True

    def _note_statement(_connection: sa.Connection, cursor: Any, statement: str, *_: object) -> None:
        is_look = is_framing(statement) or statement.lstrip()[:6].upper() == "SELECT" or cursor.rowcount == 0
        attempt = run.at_work
        if attempt is not None and attempt.is_in_revision and driver.autocommit and not is_look:
            attempt.has_left_transaction = True

    listeners: dict[str, Callable[..., None]] = {
        "set_connection_execution_options": _set_lock_timeout,
        "commit": _note_commit,
        "after_cursor_execute": _note_statement,
    }
    if is_there:
        listeners["begin"] = lambda _: None if driver.autocommit else hand_lock_timeout_on(driver)
    for name, listener in listeners.items():
        sa.event.listen(engine, name, listener)
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        for name, listener in listeners.items():
            sa.event.remove(engine, name, listener)
