"""A tenant on Citus: made, distributed, used through the coordinator and on its own node, and moved.

By ``RAG_CITUS_URL=... pytest -m citus``, which names the coordinator of a cluster of two nodes or more with pgvector,
as a superuser; each run makes a tenant of its own there and drops it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from citus_clusters import connect_to
from publishing import assert_consistent, publish_texts
from ragschema import chat, create_engine, jobs, migrations
from ragschema.database.options import Options
from ragschema.database.settings import find_database
from ragschema.embedding_models import add_model, drop_model
from ragschema.errors import LockNotObtained, TenantRefused
from ragschema.migrations.health import check_health
from ragschema.tenants import (
    create_tenant,
    distribute_tenant,
    drop_tenant,
    locate,
    move_tenant,
)
from tenant_steps import STEPS, run

URL = os.environ.get("RAG_CITUS_URL", "")
SCHEMA = f"rag_tests_{os.getpid()}"

pytestmark = pytest.mark.citus

_WAITERS = sa.text("SELECT count(*) FROM pg_stat_activity WHERE cardinality(pg_blocking_pids(pid)) > 0")


@pytest.fixture(scope="module")
def options() -> Iterator[Options]:
    """A tenant that is on a node."""
    assert URL, "RAG_CITUS_URL names no coordinator of Citus"
    options = Options(find_database(URL), schema=SCHEMA)
    create_tenant(SCHEMA, URL)
    assert distribute_tenant(SCHEMA, URL, dry_run=True).is_dry_run
    assert locate(SCHEMA, URL) is None
    assert distribute_tenant(SCHEMA, URL).after
    yield options
    drop_tenant(SCHEMA, URL, allow_data_loss=True)


@pytest.fixture(scope="module")
def engine(options: Options) -> Iterator[sa.Engine]:
    engine = create_engine(URL, schema=SCHEMA)
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def near(options: Options) -> Iterator[sa.Engine]:
    """Connections to the tenant's own node."""
    engine = create_engine(URL, tenant=SCHEMA)
    yield engine
    engine.dispose()


@pytest.mark.parametrize("step", STEPS)
def test_each_step_leaves_the_data_right(engine: sa.Engine, options: Options, step: str) -> None:
    run(STEPS[step], engine, options)
    assert migrations.verify_data(options) == []


def test_verify_misses_no_trigger_and_health_says_what_is_not_kept(options: Options) -> None:
    assert migrations.verify(options).is_clean
    checks = [check for check in check_health(options) if check.name == "Citus"]
    assert [check.verdict for check in checks] == ["ok"]
    assert "without triggers" in checks[0].finding


def test_an_engine_of_a_tenant_speaks_to_its_node(near: sa.Engine, engine: sa.Engine) -> None:
    place = locate(SCHEMA, URL)
    assert place is not None
    with near.connect() as connection:
        assert connection.connection.dbapi_connection.info.port == place.port  # type: ignore[union-attr]
    with Session(near) as session:
        publish_texts(session, "near", ["a", "b"])
        session.commit()
        jobs.enqueue(session, "near", {})
        session.commit()
        (job,) = jobs.claim(session, "w", ["near"])
        session.commit()
        assert jobs.complete(session, job)
        session.commit()
        assert_consistent(session)


def test_what_only_the_coordinator_changes_is_refused_on_a_node(options: Options) -> None:
    place = locate(SCHEMA, URL)
    assert place is not None
    at = {"host": place.host, "port": str(place.port)}
    node = replace(options.database, parameters={**options.database.parameters, **at})
    there = Options(node, schema=SCHEMA)
    changes: list[Callable[[], object]] = [
        lambda: add_model(there, "there", 8),
        lambda: migrations.downgrade(there, "-1"),
        lambda: create_tenant(f"{SCHEMA}_there", node),
        lambda: drop_tenant(SCHEMA, node, allow_data_loss=True),
    ]
    for change in changes:
        with pytest.raises(TenantRefused, match="on a node of a cluster, and not on its coordinator"):
            change()


def test_a_conversation_goes_on_through_any_node(near: sa.Engine, engine: sa.Engine) -> None:
    """Of which each has numbers of its own for an identity column; also where several write at once."""
    with Session(near) as session, session.begin():
        talk = chat.create_session(session, "ann")
        first = chat.add_message(session, talk.id, chat.NewMessage("user", "On the node."))
    with Session(engine) as session, session.begin():
        second = chat.add_message(session, talk.id, chat.NewMessage("assistant", "Through the coordinator."))
    with Session(near) as session, session.begin():
        other = chat.branch(session, second.id, chat.NewMessage("assistant", "Beside it."))
        assert (first.position, second.position, other.position) == (1, 2, 3)
        assert (second.parent_id, other.parent_id) == (first.id, first.id)

    def write(through: sa.Engine) -> None:
        for number in range(5):
            with Session(through) as session, session.begin():
                chat.add_message(session, talk.id, chat.NewMessage("user", f"{number}"))

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(write, each) for each in (near, engine, near, engine)]:
            done.result()
    with Session(engine) as session:
        said = chat.messages(session, talk.id, limit=100)
        assert [each.position for each in said] == [*range(1, 24)]
        parents = {each.id: each.position for each in said}
        assert all(parents[each.parent_id] == each.position - 1 for each in said[3:] if each.parent_id)


@pytest.mark.parametrize("through", ["near", "engine"])
def test_a_place_that_somebody_takes_meanwhile_is_left_to_them(
    through: str, engine: sa.Engine, near: sa.Engine, request: pytest.FixtureRequest
) -> None:
    """As one does whose lock on the conversation is on the node that the tenant has just left."""
    with Session(engine) as session, session.begin():
        talk = chat.create_session(session, "ann")
        first = chat.add_message(session, talk.id, chat.NewMessage("user", "First."))

    def answer() -> chat.StoredMessage:
        with Session(request.getfixturevalue(through)) as session, session.begin():
            return chat.add_message(session, talk.id, chat.NewMessage("assistant", "Third."))

    with ThreadPoolExecutor(1) as pool, near.connect() as other:
        other.execute(
            sa.text(
                "INSERT INTO rag_chat_messages (session_id, position, parent_position, role, content)"
                " VALUES (:talk, 2, 1, 'assistant', 'Second.')"
            ),
            {"talk": talk.id},
        )
        waiting = pool.submit(answer)
        while not other.execute(_WAITERS).scalar_one():
            assert not waiting.done()
        other.commit()
        third = waiting.result()
    with Session(engine) as session:
        path = chat.message_path(session, third.id)
    assert [(each.position, each.content) for each in path] == [(1, "First."), (2, "Second."), (3, "Third.")]
    assert path[0].id == first.id


def test_a_revision_gives_way_to_readers_on_the_node(options: Options, engine: sa.Engine) -> None:
    """lock_timeout reaches the node: a table that is read there is waited for no longer than was said."""
    with engine.connect() as reader, connect_to() as connection, connection.transaction():
        reader.execute(sa.text("SELECT count(*) FROM rag_collections"))
        connection.execute("SET LOCAL citus.propagate_set_commands = 'local'")
        connection.execute("SET LOCAL lock_timeout = '300ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            connection.execute(f'ALTER TABLE "{SCHEMA}".rag_collections ADD COLUMN tried integer'.encode())


def test_a_model_gives_way_to_readers_on_the_node(options: Options, near: sa.Engine) -> None:
    add_model(options, "read", 8, index_type="none")
    with near.connect() as reader:
        reader.execute(sa.text("SELECT count(*) FROM rag_chunk_embeddings"))
        with pytest.raises(LockNotObtained):
            drop_model(replace(options, lock_timeout=0.2, retries=0), "read", allow_data_loss=True)
    drop_model(options, "read", allow_data_loss=True)


def test_a_writer_loses_nothing_while_its_tenant_moves(
    options: Options, engine: sa.Engine, near: sa.Engine
) -> None:
    """Nor do those who talk, whose lock on the conversation stays behind on the node that it leaves."""
    before = locate(SCHEMA, URL)
    assert before is not None
    with connect_to() as connection:
        nodes = connection.execute(
            "SELECT nodename::text, nodeport FROM pg_dist_node WHERE isactive AND shouldhaveshards"
        ).fetchall()
    host, port = next(node for node in nodes if node != (before.host, before.port))
    stop, written = threading.Event(), list[str]()
    with Session(engine) as session, session.begin():
        talk = chat.create_session(session, "ann").id

    def speak(through: sa.Engine) -> int:
        said = 0
        while not stop.is_set():
            with Session(through) as session, session.begin():
                chat.add_message(session, talk, chat.NewMessage("user", f"{said}"))
            said += 1
        return said

    def write() -> None:
        with Session(engine) as session:
            while not stop.is_set():
                article = f"moving {len(written)}"
                publish_texts(session, article, ["a", article])
                session.commit()
                written.append(article)

    with ThreadPoolExecutor(5) as pool:
        writer = pool.submit(write)
        speakers = [pool.submit(speak, each) for each in (near, engine, near, engine)]
        try:
            assert move_tenant(SCHEMA, host, port, URL).after == f"{host}:{port}"
        finally:
            stop.set()
    writer.result()
    said = sum(each.result() for each in speakers)
    with Session(engine) as session:
        found = session.scalars(
            sa.text("SELECT article_id FROM rag_documents WHERE article_id LIKE 'moving %' ORDER BY 1")
        ).all()
        assert sorted(found) == sorted(written)
        counted = "SELECT count(*), max(position) FROM rag_chat_messages WHERE session_id = :talk"
        assert session.execute(sa.text(counted), {"talk": talk}).one() == (said, said)
        assert_consistent(session)
    with pytest.raises(TenantRefused, match="already"):
        move_tenant(SCHEMA, host, port, URL)
