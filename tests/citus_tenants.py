"""Tenants on Citus in the place of databases: the tests of the corpus run in them by ``pytest --citus``.

    RAG_CITUS_URL=... uv run pytest --citus tests/test_chat.py

names the coordinator of a cluster of two nodes or more with pgvector, as a superuser; its nodes trust one another. A
database at head, a clone of the template, is then a tenant's schema there, which the search_path of a user of its own
begins with; every other database is an ordinary one. A tenant whose catalogue a test has left as it was is emptied and
lent again: making one takes seconds. Each process of a run has a database of its own for its tenants on every node:
tests cut all connections to theirs, and look for tables in all schemas of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import psycopg
import pytest

from citus_clusters import connect_to, made_cluster_database
from ragschema.database.settings import Database
from ragschema.tenants import create_tenant, distribute_tenant

SOURCE = "a tenant on Citus"

FAMILIES = {
    *(
        "publishing",
        "publishing_concurrency",
        "publishing_models",
        "up_to_date",
        "bulk",
        "ingesting",
        "sources",
    ),
    *("queries", "query_plans", "filters", "model_searches", "jobs", "jobs_cli", "schedules"),
    *(
        "embedding_models",
        "pending_models",
        "change_model",
        "deleting",
        "purging",
        "collections",
        "importing",
    ),
    *("chat", "graph_facts", "graph_merges", "graph_search", "graph_walks", "graph_neo4j", "graph_cli"),
}
"""Modules whose tests run there: publishing, search, jobs, models, corpus, chat, graph."""
UNFIT: dict[str, tuple[str, ...]] = {
    "is of triggers, and of what SQL by hand leaves to them": (
        "test_triggers_follow_the_sql_of_others",
        "test_a_release_that_knows_no_deletion",
        "test_hand_written_sql_deletes",
        "test_a_chunk_that_comes_while_its_document_is_being_deleted",
        "test_updated_at_follows_our_changes_and_those_of_sql",
        "test_what_somebody_else_has_published_is_left_alone",
    ),
    "goes back to revisions whose triggers a tenant of a node does not have": (
        "test_a_downgrade_that_would_show_deleted_documents",
        "test_a_rollback_destroys_no_collection_unasked",
    ),
    "looks for who waits on its own server, which is not the tenant's node": (
        "test_a_plan_is_stale_when_somebody_hides_a_chunk_without_a_lock",
        "test_no_embedding_is_stale_whoever_is_first",
    ),
    "sets by SET what stays on the coordinator": (
        "test_what_the_key_did_not_keep_is_found",
        "test_candidates_that_are_set_in_sql_stay_but_for_what_is_the_default",
    ),
    "explains a search by its values, which Citus leaves out of what it explains, and not of what it runs": (
        "test_each_search_reads_the_index_made_for_it[nearest of one document]",
    ),
    "counts the statements of plain PostgreSQL, or forces one plan on all values": (
        "test_planning_and_publishing_take_four_statements",
        "test_only_other_models_take_another_statement",
        "test_a_set_of_documents_is_destroyed_with_every_row_and_no_other_row",
        "test_a_search_of_a_collection_is_full_and_finds_the_nearest[1-force_generic_plan]",
        "test_a_search_of_a_collection_is_full_and_finds_the_nearest[10-force_generic_plan]",
        "test_a_search_of_a_collection_is_full_and_finds_the_nearest[200-force_generic_plan]",
        "test_words_of_few_chunks_are_worked_out_once",
        "test_no_generic_plan_serves_a_narrow_filter[1-False]",
        "test_no_generic_plan_serves_a_narrow_filter[20-False]",
    ),
    "is of the lock of the schema public": ("test_a_deployer_and_a_model_wait_for_each_other",),
    "inserts by hand what Citus makes no statement of, or counts the keys of Citus or of all tenants with ours": (
        "test_no_write_reads_a_table_from_end_to_end[writing a version by hand]",
        "test_every_foreign_key_has_an_index_on_its_columns",
        "test_every_foreign_key_of_a_conversation_has_an_index",
    ),
}
"""Tests that cannot run there, by why: the beginnings of their names."""

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
_made = ExitStack()
_of_the_process: list[Database] = []
_idle: list[tuple[str, Any]] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--citus", action="store_true", help="give tests tenants of RAG_CITUS_URL: citus_tenants.py"
    )


def keep_fit(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave of `FAMILIES` what can run in tenants, where that is asked for; each test once, without triggers."""
    if not config.option.citus:
        return
    unfit = tuple(name for names in UNFIT.values() for name in names)
    fit: list[pytest.Item] = []
    left: list[pytest.Item] = []
    for item in items:
        is_fit = item.path.stem.removeprefix("test_") in FAMILIES and not item.name.startswith(unfit)
        (fit if is_fit and "[triggers" not in item.name else left).append(item)
    items[:] = fit
    config.hook.pytest_deselected(items=left)


def is_tenant(database: Database) -> bool:
    return database.source == SOURCE


@contextmanager
def made_tenant(name: str) -> Iterator[Database]:
    """Lend an empty tenant on a node, with a superuser whose search_path begins with it."""
    if not _of_the_process:
        _of_the_process.append(_made.enter_context(made_cluster_database("tenants")))
    (database,) = _of_the_process
    name, catalogue = _idle.pop() if _idle else _make(database, name)
    yield Database({**database.parameters, "user": name}, SOURCE)
    with _connect(database) as connection:  # a test may have cut any earlier one
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
    for database in _of_the_process:
        with _connect(database) as connection:
            for name, _ in _idle:
                _drop(connection, name)
    _made.close()


def _connect(database: Database) -> psycopg.Connection[Any]:
    return connect_to(dbname=database.parameters["dbname"])


def _make(database: Database, name: str) -> tuple[str, Any]:
    create_tenant(name, database)
    distribute_tenant(name, database)
    with _connect(database) as connection:
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
