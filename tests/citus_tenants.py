"""Tenants on Citus in the place of databases: the tests of the corpus run in them by ``pytest --citus``.

    RAG_CITUS_URL=... uv run pytest --citus tests/test_chat.py

names the coordinator of a cluster of two nodes or more with pgvector, as a superuser; its nodes trust one another. A
database at head, a clone of the template, is then a tenant's schema there, which the search_path of a user of its own
begins with; every other database is an ordinary one. A tenant whose catalogue a test has left as it was is emptied and
lent again: making one takes seconds.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from ragschema.database.settings import Database, find_database
from ragschema.tenants import create_tenant, distribute_tenant

URL = os.environ.get("RAG_CITUS_URL", "")
SOURCE = "a tenant on Citus"

_TABLES = (
    "SELECT oid::regclass::text FROM pg_class WHERE relnamespace = %s::regnamespace AND relkind IN ('r', 'p')"
)
_CATALOGUE = """
SELECT array_agg(each ORDER BY each) FROM (
    SELECT concat(c.oid, c.relname, c.relrowsecurity, c.reloptions, attname, atttypmod, attnotnull, attisdropped)
    FROM pg_class c LEFT JOIN pg_attribute a ON a.attrelid = c.oid WHERE c.relnamespace = %(name)s::regnamespace
    UNION ALL SELECT concat(oid, conname, convalidated) FROM pg_constraint WHERE connamespace = %(name)s::regnamespace
    UNION ALL SELECT concat(oid, md5(prosrc), proconfig) FROM pg_proc WHERE pronamespace = %(name)s::regnamespace
) of (each)
"""
_idle: list[tuple[str, Any]] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--citus", action="store_true", help="give tests tenants of RAG_CITUS_URL: citus_tenants.py"
    )


def is_tenant(database: Database) -> bool:
    return database.source == SOURCE


@contextmanager
def made_tenant(name: str) -> Iterator[Database]:
    """Lend an empty tenant on a node, with a superuser whose search_path begins with it."""
    with psycopg.connect(URL, autocommit=True) as connection:
        name, catalogue = _idle.pop() if _idle else _make(connection, name)
        yield Database({**find_database(URL).parameters, "user": name}, SOURCE)
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", (name,)
        )
        if _read_catalogue(connection, name) == catalogue:
            _empty(connection, name)
            _idle.append((name, catalogue))
        else:
            _drop(connection, name)


@pytest.fixture(scope="session", autouse=True)
def _tenants_end_with_the_session() -> Iterator[None]:
    yield
    if _idle:
        with psycopg.connect(URL, autocommit=True) as connection:
            for name, _ in _idle:
                _drop(connection, name)


def _make(connection: psycopg.Connection[Any], name: str) -> tuple[str, Any]:
    create_tenant(name, URL)
    distribute_tenant(name, URL)
    for statement in (
        f"CREATE ROLE {name} LOGIN SUPERUSER",
        f"ALTER ROLE {name} SET search_path = {name}, public",
        f"CREATE SCHEMA kept_{name}",
    ):
        connection.execute(statement.encode())
    for table in _tables(connection, name):
        if connection.execute(f"SELECT 1 FROM {table} LIMIT 1".encode()).fetchone():
            kept = f"kept_{table}"
            connection.execute(f"CREATE TABLE {kept} AS SELECT * FROM {table}".encode())
    return name, _read_catalogue(connection, name)


def _read_catalogue(connection: psycopg.Connection[Any], name: str) -> Any:
    return connection.execute(_CATALOGUE, {"name": name}).fetchone()


def _tables(connection: psycopg.Connection[Any], name: str) -> list[str]:
    return [table for (table,) in connection.execute(_TABLES, (name,)).fetchall()]


def _empty(connection: psycopg.Connection[Any], name: str) -> None:
    connection.execute(f"TRUNCATE {', '.join(_tables(connection, name))} RESTART IDENTITY".encode())
    for kept in _tables(connection, f"kept_{name}"):
        table = kept.removeprefix("kept_")
        connection.execute(f"INSERT INTO {table} OVERRIDING SYSTEM VALUE SELECT * FROM {kept}".encode())


def _drop(connection: psycopg.Connection[Any], name: str) -> None:
    connection.execute(f"DROP SCHEMA {name}, kept_{name} CASCADE".encode())
    connection.execute(f"DROP ROLE {name}".encode())
