"""A connection of the caller's, lent for a migration or a look, and given back as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import psycopg
import sqlalchemy as sa
from psycopg.pq import TransactionStatus
from sqlalchemy.engine.interfaces import DBAPIConnection

from ragschema.database.options import Options
from ragschema.database.server import Connection
from ragschema.database.settings import Database, database_of_url
from ragschema.database.urls import Setting
from ragschema.errors import UsageError

_SETTINGS = (
    "SELECT name, setting FROM pg_settings WHERE context IN ('user', 'superuser')"
    " AND name NOT LIKE 'transaction\\_%'"  # of one transaction, not of the session
    " UNION ALL SELECT 'role', current_setting('role')"
)
_ADVISORY_LOCKS = (
    "SELECT classid::bigint << 32 | objid::bigint FROM pg_locks"
    " WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND pid = pg_backend_pid()"
)


def options_of(given: object, *, source: str = "the caller", schema: str | None = None) -> Options:
    """Return options for a database as SQLAlchemy has it.

    Args:
        given: An ``Engine`` or ``Connection`` on psycopg, which is used itself, or a ``URL``.
        source: Where it came from, in words.
        schema: The schema of the tables; RAG_SCHEMA, else the first of its search_path, by default.

    Raises:
        UsageError: It is something else, has another driver, or is in a transaction.
        ConfigurationError: The URL cannot be used.
    """
    from ragschema.database.options import find_options

    if isinstance(given, sa.URL):
        url = Setting(given.render_as_string(hide_password=False), source)
        return find_options(database_of_url(url), schema=schema)
    if isinstance(given, sa.Engine):
        lend = partial(_checked_out, given)
    elif isinstance(given, sa.Connection):
        _refuse_transaction(given)
        lend = partial(_lent, given.connection.driver_connection)
    else:
        raise UsageError(
            f"A database cannot be a {type(given).__name__}.",
            "Give a URL, an Engine or a Connection of SQLAlchemy's (not its async ones), a Database or Options.",
        )
    with lend() as driver:
        parameters = driver.info.get_parameters()
        if driver.info.password:
            parameters["password"] = driver.info.password
    return find_options(Database(parameters, f"{source}'s connection"), schema=schema, lend=lend)


@contextmanager
def _checked_out(engine: sa.Engine) -> Iterator[Connection]:
    pooled = engine.raw_connection()
    try:
        with _lent(pooled.driver_connection) as driver:
            yield driver
    finally:
        pooled.close()


@contextmanager
def _lent(driver: DBAPIConnection | None) -> Iterator[Connection]:
    """Lend a driver connection in autocommit mode; its settings and locks are then as they were.

    Raises:
        UsageError: It is not psycopg's, or in a transaction: each revision commits by itself.
    """
    if not isinstance(driver, psycopg.Connection):
        raise UsageError(
            f"The connection is one of {type(driver).__module__.partition('.')[0]}, and migrations run on psycopg.",
            "Make its engine with postgresql+psycopg://, or give the engine's url instead.",
        )
    if driver.info.transaction_status != TransactionStatus.IDLE:
        raise _in_transaction()
    was_autocommit = driver.autocommit
    driver.autocommit = True
    settings = dict(driver.execute(_SETTINGS).fetchall())
    locks = set(driver.execute(_ADVISORY_LOCKS).fetchall())
    try:
        yield driver
    finally:
        if not driver.closed:
            driver.rollback()
            driver.autocommit = True
            for key in set(driver.execute(_ADVISORY_LOCKS).fetchall()) - locks:
                driver.execute("SELECT pg_advisory_unlock(%s)", key)
            changed = set(driver.execute(_SETTINGS).fetchall()) - {*settings.items()}
            for name, _ in sorted(
                changed, key=lambda each: str(each[0]) != "role"
            ):  # first the login's own rights
                if name in settings:  # pgvector brings its own with its first call
                    driver.execute("SELECT set_config(%s, %s, false)", (name, settings[name]))
            driver.autocommit = was_autocommit


def _refuse_transaction(connection: sa.Connection) -> None:
    driver = connection.connection.driver_connection
    if connection.in_transaction() and not getattr(driver, "autocommit", False):
        raise _in_transaction()


def _in_transaction() -> UsageError:
    return UsageError(
        "The connection is in a transaction, and each revision commits by itself.",
        "Commit or roll back first: `with engine.connect() as connection`, not `engine.begin()`; or give the engine.",
    )
