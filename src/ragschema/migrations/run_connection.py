"""The connection of a run: an open one handed to SQLAlchemy, which tells the run what a revision commits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
import sqlalchemy as sa
from psycopg import sql

from ragschema.database.citus import has_citus
from ragschema.database.drivers import engine_on
from ragschema.database.server import Connection
from ragschema.migrations.run import Run
from ragschema.planning.effects import is_framing

_HAS_CHANGED = "SELECT pg_current_xact_id_if_assigned() IS NOT NULL"


@contextmanager
def run_connection(driver: Connection, run: Run) -> Iterator[sa.Connection]:
    """Hand an open connection to SQLAlchemy, and tell the run of what a revision commits before its end.

    In an autocommit block lock_timeout is 0: it would end a concurrent index build that waits for an older
    transaction, which holds nobody up, and leave the index INVALID. On Citus it is told to the nodes, too.
    """
    is_there = has_citus(driver)
    driver.autocommit = False
    engine = engine_on(driver)
    if is_there:
        _hand_lock_timeout_on(engine, driver)

    before: list[str] = []

    @sa.event.listens_for(engine, "set_connection_execution_options")
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

    @sa.event.listens_for(engine, "commit")
    def _note_commit(_connection: sa.Connection) -> None:
        if (attempt := run.at_work) is not None and attempt.is_in_revision:
            with suppress(psycopg.Error):  # the COMMIT that follows says so
                if driver.execute(_HAS_CHANGED).fetchone() == (True,):
                    attempt.has_left_transaction = True

    @sa.event.listens_for(engine, "after_cursor_execute")
    def _note_statement(_connection: sa.Connection, cursor: Any, statement: str, *_: object) -> None:
        is_look = is_framing(statement) or statement.lstrip()[:6].upper() == "SELECT" or cursor.rowcount == 0
        attempt = run.at_work
        if attempt is not None and attempt.is_in_revision and driver.autocommit and not is_look:
            attempt.has_left_transaction = True

    with engine.connect() as connection:
        yield connection


def _hand_lock_timeout_on(engine: sa.Engine, driver: Connection) -> None:
    """Tell the nodes of Citus lock_timeout in each transaction: a setting of the session holds on this node alone.

    An ALTER through the coordinator waited 6.6 s for a reader on the tenant's node where 1 s was set, and 1.4 s so.
    """

    @sa.event.listens_for(engine, "begin")
    def _begin(_connection: sa.Connection) -> None:
        if driver.autocommit:
            return
        row = driver.execute("SELECT current_setting('lock_timeout')").fetchone()
        driver.execute("SET LOCAL citus.propagate_set_commands = 'local'")
        driver.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(*(row or ())))
