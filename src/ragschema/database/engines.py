"""Engines and sessions for services, on the database that the settings find."""

from __future__ import annotations

import atexit
from contextlib import ExitStack
from typing import Any

import psycopg
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.ext.asyncio import create_async_engine as sa_create_async_engine
from sqlalchemy.orm import Session, sessionmaker

import ragschema.embeddings.column_type  # noqa: F401  first: engines made after it bind embeddings in binary
from ragschema.database.citus import HAS_CITUS, database_at, find_place, remember_citus
from ragschema.database.connecting import explain_timeout
from ragschema.database.connections import reachable
from ragschema.database.options import find_schema
from ragschema.database.session import FORMATS
from ragschema.database.settings import Database, find_database
from ragschema.database.tenants import choose_at_begin, set_search_path
from ragschema.errors import ConfigurationError

_IS_SHARED = "ragschema.is_shared"  # by a pooler, among its clients
_until_exit = ExitStack()
atexit.register(_until_exit.close)


def create_engine(
    database_url: str | None = None,
    *,
    schema: str | None = None,
    tenant: str | None = None,
    pooler: bool | None = None,
    **options: Any,
) -> sa.Engine:
    """Create an engine for the database that `find_database` finds.

    Where that is the embedded server, it is started and runs until the process ends. Its connections read
    dates, intervals and texts whatever the role's or the database's settings are.

    Args:
        database_url: A PostgreSQL URL; the settings decide by default.
        schema: The schema of the tables; ``RAG_SCHEMA`` by default, as `rag` reads it, else the connection's own
            search_path. Each connection's search_path is then this schema and pgvector's; behind a pooler it is
            set in each transaction. For one session at a time see `use_schema`.
        tenant: A schema too, and on Citus the node that its tables are on is spoken to, which is nearer and wakes the
            workers that listen there. It is looked up once: where the tenant has moved since, any node still leads to
            its tables.
        pooler: Whether a pooler such as pgbouncer stands before the server: then nothing is prepared, because
            the next transaction may be another server connection's. By default each new connection finds out.
        options: Passed to `sqlalchemy.create_engine`.

    Raises:
        ConfigurationError: No database is set, or a setting cannot be used, or schema and tenant differ. A schema
            without our tables is refused by the first connection.
    """
    found = find_schema(_schema_of(schema, tenant))
    database = _nearest(_reachable_until_exit(database_url), tenant)
    engine = sa.create_engine(database.url(), **options)
    _prepare_connections_of(engine, database, pooler, found)
    return engine


def create_async_engine(
    database_url: str | None = None,
    *,
    schema: str | None = None,
    tenant: str | None = None,
    pooler: bool | None = None,
    **options: Any,
) -> AsyncEngine:
    """Create an async engine; see `create_engine`."""
    found = find_schema(_schema_of(schema, tenant))
    database = _nearest(_reachable_until_exit(database_url), tenant)
    engine = sa_create_async_engine(database.url(), **options)
    _prepare_connections_of(engine.sync_engine, database, pooler, found)
    return engine


def session_factory(
    database_url: str | None = None,
    *,
    schema: str | None = None,
    pooler: bool | None = None,
    **options: Any,
) -> sessionmaker[Session]:
    """Return a factory of sessions on `create_engine`: ``with session_factory().begin() as session: ...``."""
    return sessionmaker(create_engine(database_url, schema=schema, pooler=pooler, **options))


def async_session_factory(
    database_url: str | None = None, *, schema: str | None = None, **options: Any
) -> async_sessionmaker[AsyncSession]:
    """Return a factory of async sessions on `create_async_engine`; what they have loaded stays after a commit."""
    return async_sessionmaker(
        create_async_engine(database_url, schema=schema, **options), expire_on_commit=False
    )


def _schema_of(schema: str | None, tenant: str | None) -> str | None:
    if None not in (schema, tenant) and schema != tenant:
        raise ConfigurationError(
            f"The engine is asked for the tenant {tenant} and the schema {schema}.",
            "A tenant is its schema: leave out one of the two.",
        )
    return tenant if schema is None else schema


def _nearest(database: Database, tenant: str | None) -> Database:
    """Return the database on the node of Citus that has a tenant; the same where there is no Citus."""
    if tenant is None:
        return database
    with psycopg.connect(database.libpq_url(), autocommit=True) as connection:
        place = find_place(connection, tenant)
    return database if place is None or place.is_here else database_at(database, place)


def _reachable_until_exit(database_url: str | None) -> Database:
    return _until_exit.enter_context(reachable(find_database(database_url)))


def _prepare_connections_of(
    engine: sa.Engine, database: Database, pooler: bool | None, schema: str | None
) -> None:
    """Make each new connection of an engine one that our code can read, and a pooler can share."""
    if schema is not None:
        choose_at_begin(engine, schema, lambda connection: bool(connection.info.get(_IS_SHARED)))

    @sa.event.listens_for(engine, "connect", insert=True)  # before the first questions of SQLAlchemy's own
    def _prepare_or_explain(connection: Any, record: Any) -> None:
        driver = connection.driver_connection if hasattr(connection, "driver_connection") else connection
        version, startup = driver.info.server_version, driver.info.options
        try:
            record.info[_IS_SHARED] = _prepare(connection, driver, pooler, schema, record.info)
        except Exception as exc:
            if (error := explain_timeout(exc, database, version, startup)) is not None:
                raise error from exc
            raise


def _prepare(
    connection: Any, driver: Any, pooler: bool | None, schema: str | None, info: dict[str, object]
) -> bool:
    """Prepare a connection, and note what its database has; return whether a pooler shares it among its clients."""
    cursor = connection.cursor()
    cursor.execute(f"SELECT pg_backend_pid(), current_setting('array_nulls'), {HAS_CITUS}")
    pid, array_nulls, is_there = cursor.fetchone()
    remember_citus(info, is_there)
    is_shared = pooler or (pooler is None and pid != driver.info.backend_pid)  # it tells another number
    if is_shared:
        driver.prepare_threshold = None
    elif schema is not None:
        set_search_path(connection, schema, is_local=False)
    odd = {name: value for name, value in FORMATS.items() if not _is_so(driver, name, value)}
    if array_nulls == "off":
        odd["array_nulls"] = "on"
    for name, value in odd.items():  # a pooler keeps what the server reports for each of its clients
        cursor.execute(f"SET {name} = '{value}'")
    cursor.close()
    connection.commit()
    return bool(is_shared)


def _is_so(driver: Any, name: str, value: str) -> bool:
    return (driver.info.parameter_status(name) or "").startswith(value)
