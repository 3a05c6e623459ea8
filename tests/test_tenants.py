"""Tenants of one database: each has a schema, and one connection serves them in turn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session, sessionmaker

from conftest import ROOT, connect, made_database
from documents import assert_printed, code_blocks, run_blocks
from ragschema import (
    Chunk,
    ChunkEvent,
    Document,
    Job,
    JobStatus,
    aio,
    async_session_factory,
    chunk_history,
    create_engine,
    hybrid_search,
    jobs,
    migrations,
    nearest_chunks,
    pending_embeddings,
    session_factory,
    tenants,
    use_schema,
    version_chunks,
    version_diff,
)
from ragschema.database.settings import Database
from ragschema.errors import ConfigurationError
from ragschema.jobs.reports import list_jobs
from ragschema.publishing import (
    activate_version,
    plan_version,
    prune_versions,
    publish,
    purge_document,
    retire_document,
    skip_embeddings,
    store_embeddings,
)
from ragschema.schema.row_rules import broken_documents
from test_poolers import PGBOUNCER, pgbouncer

TENANTS = ("one", 'the "second"')
ROUNDS = 12  # psycopg prepares a statement when it comes the sixth time
VECTOR = np.ones(768, dtype=np.float32)

Enter = Callable[[Session, str], None]


@pytest.fixture(scope="module")
def database(server: Mapping[str, str]) -> Iterator[Database]:
    with made_database(server) as database:
        for schema in TENANTS:
            migrations.upgrade(database, schema=schema)
        yield database


def serve(session: Session, enter: Enter, schema: str, number: int) -> None:
    """Run every kind of statement in a tenant's schema, and look that it met that tenant's rows."""
    version: dict[str, Any] = {"source_hash": str(number), "chunker_version": "c", "embedder_version": "e"}
    article_id = f"{schema} {number}"
    enter(session, schema)
    plan = plan_version(session, article_id, ["first", f"second of {schema}"], **version)
    first = publish(session, plan, [VECTOR, None])
    session.commit()

    enter(session, schema)
    (waiting,) = session.execute(pending_embeddings()).all()
    assert waiting.content == f"second of {schema}"
    skip_embeddings(session, {waiting.chunk_id: "not now"})
    assert store_embeddings(session, [waiting.chunk_id], [VECTOR]).stored == (waiting.chunk_id,)
    changed = plan_version(session, article_id, ["first", "third"], **version)
    second = publish(session, changed, [VECTOR])
    hits = session.execute(nearest_chunks(VECTOR, article_ids=[article_id])).all()
    assert {hit.content for hit in hits} == {"first", "third"}
    (hit,) = session.execute(hybrid_search(VECTOR, "third", limit=1, article_ids=[article_id]))
    assert hit.content == "third"
    assert len(session.execute(version_chunks(first.id)).all()) == 2
    assert {row.change for row in session.execute(version_diff(first.id, second.id))} == {
        "unchanged",
        "updated",
    }
    history = session.execute(chunk_history(article_id)).all()
    assert [row.event_type.value for row in history] == ["added", "added", "unchanged", "updated"]
    assert session.execute(broken_documents([article_id])).all() == []
    activate_version(session, article_id, 1)
    retire_document(session, article_id)
    assert session.scalars(sa.select(ChunkEvent.event_type).limit(1)).one().value
    session.commit()

    enter(session, schema)
    job_id = jobs.enqueue(session, "embed", {"schema": schema})
    (job,) = jobs.claim(session, "worker", ["embed"])
    assert (job.id, job.payload) == (job_id, {"schema": schema})
    assert jobs.heartbeat(session, job)
    assert jobs.fail(session, job, "again", retry_in=timedelta(0)) is JobStatus.new
    assert [each.status for each in list_jobs(session, status=JobStatus.new)] == [JobStatus.new]
    assert [each.waiting for each in jobs.stats(session)] == [1]
    session.add(Job(job_type="other", payload={}, status=JobStatus.new))
    session.flush()
    assert (
        session.scalars(sa.select(Job.status).where(Job.status == JobStatus.new)).all() == [JobStatus.new] * 2
    )
    jobs.cancel(session, job_id)
    assert jobs.prune(session, timedelta(0), status=JobStatus.failed) == 1
    session.execute(sa.delete(Job))
    documents = session.scalars(sa.select(Document.article_id)).all()
    assert documents == [article_id]
    session.rollback()

    enter(session, schema)
    session.execute(sa.delete(Job))
    session.commit()


def forget(session: Session, enter: Enter, schema: str, number: int) -> None:
    enter(session, schema)
    purge_document(session, f"{schema} {number}")
    session.commit()


@pytest.fixture
def engine(database: Database) -> Iterator[sa.Engine]:
    engine = create_engine(database.libpq_url(), pool_size=1, max_overflow=0)
    yield engine
    engine.dispose()


def search_path(connection: Session | sa.Connection) -> str:
    return str(connection.execute(sa.text("SHOW search_path")).scalar_one())


def test_one_connection_serves_two_tenants_in_turn(engine: sa.Engine) -> None:
    for number in range(ROUNDS):
        for schema in TENANTS:
            with Session(engine) as session:
                serve(session, use_schema, schema, number)
                prune_versions(session, keep=1)
                forget(session, use_schema, schema, number)
    with engine.connect() as connection:
        assert search_path(connection) == '"$user", public'


def test_one_session_goes_from_tenant_to_tenant(engine: sa.Engine) -> None:
    with Session(engine) as session:
        for number in range(ROUNDS):
            for schema in TENANTS:
                serve(session, use_schema, schema, number)
                forget(session, use_schema, schema, number)


def test_our_statements_bear_a_search_path_that_others_set(engine: sa.Engine) -> None:
    def enter(session: Session, schema: str) -> None:
        path = psycopg.sql.Identifier(schema).as_string() + ", public"
        session.execute(sa.text("SELECT set_config('search_path', :path, false)"), {"path": path})

    version: dict[str, Any] = {"source_hash": "h", "chunker_version": "c", "embedder_version": "e"}
    with Session(engine) as session:
        for _ in range(ROUNDS):
            for schema in TENANTS:
                enter(session, schema)
                publish(session, plan_version(session, schema, ["text"], **version), [VECTOR])
                assert [row.event_type.value for row in session.execute(chunk_history(schema))] == ["added"]
                jobs.enqueue(session, "embed", {})
                (job,) = jobs.claim(session, "worker")
                jobs.fail(session, job, "for good", permanent=True)
                assert len(list_jobs(session, status=JobStatus.failed)) == 1
                assert jobs.prune(session, timedelta(0), status=JobStatus.failed) == 1
                purge_document(session, schema)


@pytest.mark.parametrize("end", [Session.commit, Session.rollback])
def test_a_session_keeps_its_schema_from_transaction_to_transaction(
    engine: sa.Engine, end: Callable[[Session], None]
) -> None:
    with Session(engine) as session:
        use_schema(session, "one")
        for _ in range(2):
            assert search_path(session) == "one, public"
            end(session)
        with session.begin_nested() as savepoint:
            savepoint.rollback()
        assert search_path(session) == "one, public"


def test_a_connection_keeps_it_too_and_leaves_nothing_in_the_pool(engine: sa.Engine) -> None:
    with engine.connect() as connection:
        use_schema(connection, "one")
        for _ in range(2):
            assert search_path(connection) == "one, public"
            connection.commit()
        use_schema(connection, TENANTS[1])
        assert search_path(connection) == '"the ""second""", public'
        connection.commit()
        assert search_path(connection) == '"the ""second""", public'
    with engine.connect() as connection:
        assert search_path(connection) == '"$user", public'


def test_a_schema_that_cannot_be_used_is_refused(database: Database, engine: sa.Engine) -> None:
    with connect(database) as raw:
        raw.execute("CREATE SCHEMA IF NOT EXISTS bare")
    with Session(engine) as session:
        for schema in ("bare", "missing"):
            with pytest.raises(ConfigurationError, match=f"Schema {schema} has none of our tables"):
                use_schema(session, schema)
        session.rollback()
        use_schema(session, "one")
        with session.begin_nested(), pytest.raises(ConfigurationError, match="A savepoint is open"):
            use_schema(session, "one")
    with (
        engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection,
        pytest.raises(ConfigurationError, match="autocommit"),
    ):
        use_schema(connection, "one")
    with pytest.raises(ConfigurationError, match="Schema missing"):
        create_engine(database.libpq_url(), schema="missing").connect()


@pytest.mark.parametrize("by_setting", [False, True])
def test_an_engine_has_a_schema(
    database: Database, monkeypatch: pytest.MonkeyPatch, *, by_setting: bool
) -> None:
    if by_setting:
        monkeypatch.setenv("RAG_SCHEMA", "one")
    sessions = session_factory(database.libpq_url(), schema=None if by_setting else "one")
    with sessions() as session:
        assert search_path(session) == "one, public"
        session.rollback()
        assert search_path(session) == "one, public"
        use_schema(session, TENANTS[1])
        assert search_path(session) == '"the ""second""", public'
    with sessions() as session:
        assert search_path(session) == "one, public"
    sessions.kw["bind"].dispose()


def test_async_sessions_go_from_tenant_to_tenant(database: Database) -> None:
    async def main() -> None:
        sessions = async_session_factory(database.libpq_url(), schema="one", pool_size=1, max_overflow=0)
        for number in range(ROUNDS):
            for schema in TENANTS:
                async with sessions() as session:
                    await aio.use_schema(session, schema)
                    await session.run_sync(serve, lambda *_: None, schema, number)
                    await aio.prune_versions(session, keep=1)
                    await session.run_sync(forget, lambda *_: None, schema, number)
        async with sessions() as session:
            assert await session.run_sync(search_path) == "one, public"
            assert (await session.scalars(sa.select(Chunk.id))).all() == []
        await sessions.kw["bind"].dispose()

    asyncio.run(main())


@pytest.mark.skipif(PGBOUNCER is None, reason="pgbouncer is not installed")
def test_a_pooler_of_transactions_keeps_tenants_apart(database: Database) -> None:
    with pgbouncer(database.parameters, "transaction", 1) as parameters:
        url = Database({**parameters, "dbname": database.parameters["dbname"]}, "the tests").libpq_url()
        engines = [create_engine(url, schema=schema) for schema in TENANTS]
        both = [sessionmaker(engine) for engine in engines]
        for number in range(3):
            for sessions, schema in zip(both, TENANTS, strict=True):
                with sessions() as session:
                    serve(session, lambda *_: None, schema, number)
                    forget(session, lambda *_: None, schema, number)
        for sessions in both:
            with sessions() as session:
                use_schema(session, "one")
                assert search_path(session) == "one, public"
        for engine in engines:
            engine.dispose()


@pytest.mark.parametrize("schema", [None, 7, b"one"])
def test_a_tenant_that_was_not_said_is_refused(database: Database, schema: Any) -> None:
    """As by a request without its header: it is not taken for the schema of the search_path."""
    engine = create_engine(database.libpq_url())
    with Session(engine) as session, pytest.raises(ConfigurationError, match=r"schema's name is .*, not str"):
        use_schema(session, schema)
    with pytest.raises(ConfigurationError, match=r"tenant's name is .*, not str"):
        tenants.create_tenant(schema, database)
    engine.dispose()


def test_the_page_on_tenants_prints_what_it_says(empty_database: Database, tmp_path: Path) -> None:
    blocks = code_blocks((ROOT / "docs" / "tenants.md").read_text())
    expected, printed = run_blocks(blocks, tmp_path, {"DATABASE_URL": empty_database.libpq_url()})
    assert_printed(expected, printed)
