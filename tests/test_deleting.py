"""Documents that are deleted: search finds nothing of them whoever writes, until they are undeleted."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session, sessionmaker

import publishing
from conftest import DatabaseAt, connect
from publishing import (
    assert_consistent,
    consistent_connection,
    drop_triggers,
    embed,
    make_plan,
    publish_texts,
    publishing_database,
    read_current,
)
from ragschema import aio, migrations
from ragschema.database.settings import Database
from ragschema.embedding_models import add_model
from ragschema.errors import DataLossRefused
from ragschema.publishing import (
    BulkDocument,
    BulkLoad,
    DocumentDeleted,
    Ingestion,
    PublishingError,
    StalePlan,
    UnknownDocument,
    VersionPlan,
    activate_version,
    delete_document,
    delete_documents,
    ingest,
    ingest_many,
    plan_version,
    prune_versions,
    publish,
    publish_many,
    retire_document,
    store_embeddings,
    undelete_document,
    undelete_documents,
)
from ragschema.publishing.document_locks import lock_as_planned, lock_document
from ragschema.publishing.plans import plan_versions
from ragschema.publishing.texts import CheckedContents
from ragschema.queries import pending_embeddings
from test_publishing_concurrency import start_waiting

NAMES: dict[str, Any] = publishing.NAMES
shared = publishing_database
connection = consistent_connection


@pytest.fixture
def sessions(shared: Database) -> Iterator[sessionmaker[Session]]:
    engine = sa.create_engine(shared.url())
    yield sessionmaker(engine)
    with engine.connect() as connection:
        assert_consistent(connection)
    engine.dispose()


def contents(session: Session | sa.Connection, article: str) -> list[str]:
    """Return what search finds of a document."""
    return [row.content for row in read_current(session, article)]


def bulk(article_id: str, *texts: str, source_hash: str = "h") -> BulkDocument:
    return BulkDocument(article_id, texts, [embed(text) for text in texts], source_hash, **NAMES)


def never(texts: list[str]) -> list[Any]:
    raise AssertionError(f"embedded {texts}")


def test_a_deleted_document_is_found_no_more_and_comes_back_as_it_was(
    connection: sa.Connection, article: str
) -> None:
    """The chunk too that its current version shares with an older one."""
    publish_texts(connection, article, ["a", "b"])
    publish_texts(connection, article, ["b", "c"])
    before = read_current(connection, article)
    deletion = delete_document(connection, article)
    assert (deletion.documents, deletion.chunks, deletion.already, deletion.unknown) == (1, 2, 0, ())
    assert read_current(connection, article) == []
    assert_consistent(connection)
    undeleted = undelete_document(connection, article)
    assert undeleted.chunks == 2
    assert undeleted.deleted_at is not None
    assert read_current(connection, article) == before


def test_deleting_twice_keeps_the_time_and_undeleting_twice_does_nothing(
    connection: sa.Connection, article: str
) -> None:
    publish_texts(connection, article, ["a"])
    time = sa.text("SELECT deleted_at, updated_at FROM rag_documents WHERE article_id = :article")
    connection.execute(
        sa.text("UPDATE rag_documents SET deleted_at = '2020-01-01 00:00Z' WHERE article_id = :article"),
        {"article": article},
    )
    before = connection.execute(time, {"article": article}).one()
    assert delete_document(connection, article).already == 1
    assert connection.execute(time, {"article": article}).one() == before
    assert undelete_document(connection, article).deleted_at == before.deleted_at
    again = undelete_document(connection, article)
    assert (again.deleted_at, again.chunks) == (None, 0)
    assert contents(connection, article) == ["a"]


def test_documents_are_deleted_as_one_set(connection: sa.Connection, article: str) -> None:
    """In two statements, however many; what no document has is said, and a document without a version is one too."""
    names = [f"{article} {number}" for number in range(5)]
    for name in names[:4]:
        publish_texts(connection, name, ["a", "b"])
    connection.execute(sa.text("INSERT INTO rag_documents (article_id) VALUES (:id)"), {"id": names[4]})
    delete_document(connection, names[0])
    statements = []
    sa.event.listen(connection, "before_cursor_execute", lambda *args: statements.append(args[2]))
    deletion = delete_documents(connection, [*names, "nobody's", names[1], "nobody's"])
    assert len(statements) == 3  # its rows, their chunks, and the facts of these
    assert (deletion.documents, deletion.chunks, deletion.already) == (4, 6, 1)
    assert deletion.unknown == ("nobody's",)
    assert [contents(connection, name) for name in names] == [[]] * 5
    assert delete_documents(connection, []).documents == 0


@pytest.mark.parametrize("call", [delete_document, undelete_document])
def test_what_is_not_there_is_neither_deleted_nor_undeleted(
    connection: sa.Connection, article: str, call: Callable[..., object]
) -> None:
    with pytest.raises(UnknownDocument, match=article):
        call(connection, article)


def test_nobody_publishes_a_deleted_document_unknowingly(connection: sa.Connection, article: str) -> None:
    """Neither by a plan from before, nor one that is up to date; nor is it activated or retired."""
    publish_texts(connection, article, ["a"])
    publish_texts(connection, article, ["b"])
    plans = [make_plan(connection, article, texts) for texts in (["c"], ["b"])]
    assert [plan.is_up_to_date for plan in plans] == [False, True]
    delete_document(connection, article)
    acts: list[Callable[[], object]] = [
        partial(make_plan, connection, article, ["c"]),
        *(partial(publish, connection, plan, [embed("c")][: len(plan.texts_to_embed)]) for plan in plans),
        partial(activate_version, connection, article, 1),
        partial(activate_version, connection, article, 2),
        partial(retire_document, connection, article),
    ]
    for act in acts:
        with pytest.raises(DocumentDeleted, match=f"Article '{article}' has been deleted since"):
            act()
    assert connection.scalar(sa.text("SHOW plan_cache_mode")) == "auto"  # for whoever goes on
    assert contents(connection, article) == []
    numbers = "SELECT count(*) FROM rag_document_versions v JOIN rag_documents d ON d.id = v.document_id"
    assert connection.scalar(sa.text(f"{numbers} WHERE d.article_id = :id"), {"id": article}) == 2


@pytest.mark.parametrize("texts", [["a", "b"], ["b", "c"], []], ids=["as it was", "changed", "emptied"])
def test_who_says_so_publishes_a_deleted_document_and_it_is_found_again(
    connection: sa.Connection, article: str, texts: list[str]
) -> None:
    publish_texts(connection, article, ["a", "b"])
    delete_document(connection, article)
    version = publish_texts(connection, article, texts, undelete=True)
    assert version.undeleted
    assert version.is_new is (texts != ["a", "b"])
    assert contents(connection, article) == texts
    assert_consistent(connection)
    assert not publish_texts(connection, article, ["d"]).undeleted


def test_a_plan_from_before_the_deletion_that_undeletes_is_published(
    connection: sa.Connection, article: str
) -> None:
    publish_texts(connection, article, ["a", "b"])
    plan = make_plan(connection, article, ["b", "a", "c"], undelete=True)
    delete_document(connection, article)
    assert publish(connection, plan, [embed("c")]).undeleted
    assert contents(connection, article) == ["a", "b", "c"]


def test_a_load_leaves_deleted_documents_out_and_says_how_many(
    sessions: sessionmaker[Session], article: str
) -> None:
    """Also those that are up to date; never as skipped."""
    names = [f"{article} {number}" for number in range(4)]
    with sessions() as session, session.connection().engine.connect() as connection:
        publish_many(connection, [bulk(name, "a") for name in names[:3]])
        with connection.begin():
            delete_documents(connection, names[:2])
        documents = [bulk(names[0], "a"), bulk(names[1], "b"), bulk(names[2], "a"), bulk(names[3], "a")]
        documents[1] = bulk(names[1], "b", source_hash="h2")
        assert publish_many(connection, documents) == BulkLoad(added=1, skipped=1, chunks=1, deleted=2)
        assert [contents(connection, name) for name in names] == [[], [], ["a"], ["a"]]
        connection.rollback()
        done = publish_many(connection, documents, undelete=True)
        assert done == BulkLoad(changed=1, skipped=2, chunks=1, undeleted=2)
        assert [contents(connection, name) for name in names] == [["a"], ["b"], ["a"], ["a"]]


def test_ingesting_embeds_nothing_of_deleted_documents(sessions: sessionmaker[Session], article: str) -> None:
    names = [f"{article} {number}" for number in range(2)]
    documents = [BulkDocument(name, ["a"], None, "h", **NAMES) for name in names]
    embed_all = lambda texts: [embed(text) for text in texts]  # noqa: E731
    ingest_many(sessions, documents, embed_all)
    with sessions.begin() as session:
        delete_document(session, names[0])
    with pytest.raises(DocumentDeleted):
        ingest(sessions, names[0], ["b"], never, source_hash="h2", **NAMES)
    changed = [BulkDocument(names[0], ["b"], None, "h2", **NAMES), documents[1]]
    assert ingest_many(sessions, changed, never) == Ingestion(up_to_date=1, deleted=1)
    done = ingest_many(sessions, changed, embed_all, undelete=True)
    assert done == Ingestion(published=1, up_to_date=1, embedded=1, undeleted=1)
    with sessions.begin() as session:
        assert contents(session, names[0]) == ["b"]
        delete_document(session, names[0])
    assert ingest(sessions, names[0], ["b"], never, source_hash="h2", undelete=True, **NAMES).undeleted


def test_a_document_deleted_while_its_text_is_embedded_is_counted_as_deleted(
    sessions: sessionmaker[Session], article: str
) -> None:
    def embed_slowly(texts: list[str]) -> list[Any]:
        with sessions.begin() as session:
            delete_document(session, article)
        return [embed(text) for text in texts]

    with sessions.begin() as session:
        publish_texts(session, article, ["a"])
    document = BulkDocument(article, ["b"], None, "h2", **NAMES)
    assert ingest_many(sessions, [document], embed_slowly) == Ingestion(embedded=1, deleted=1)


# Yesterday's release plans, publishes and activates by the same statements, and knows nothing of deleted_at.


@pytest.fixture
def yesterday(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let publishing be what it was before documents could be deleted."""

    def unaware(row: sa.Row[Any] | None) -> Any:
        return None if row is None else SimpleNamespace(**(row._asdict() | {"deleted_at": None}))

    for name, function in (
        ("lifecycle.lock_document", lock_document),
        ("writing.lock_as_planned", lambda s, plan: lock_as_planned(s, replace(plan, undelete=True))),
    ):
        monkeypatch.setattr(
            f"ragschema.publishing.{name}", lambda s, what, function=function: unaware(function(s, what))
        )


def plan_unaware(session: Session | sa.Connection, article: str, texts: list[str]) -> VersionPlan:
    asked = VersionPlan(article, repr(texts), "c1", "e1", None, None, None)
    return plan_versions(session, [(asked, CheckedContents(texts))])[0]


@pytest.mark.usefixtures("yesterday")
def test_a_release_that_knows_no_deletion_shows_nothing_of_a_deleted_document(
    database: Database, article: str
) -> None:
    """Whatever it does, after each of its transactions."""
    engine = sa.create_engine(database.url())
    with Session(engine) as session:
        publish_texts(session, article, ["a", "b"])
        publish_texts(session, article, ["b", "c"])
        publish_texts(session, article, ["c", "d"])
        early = plan_unaware(session, article, ["a", "c", "e"])
        session.commit()
        delete_document(session, article)
        session.commit()

        def embedded(plan: VersionPlan, **options: Any) -> object:
            return publish(session, plan, [embed(text) for text in plan.texts_to_embed], **options)

        acts: list[Callable[[], object]] = [
            lambda: activate_version(
                session, article, 3
            ),  # which is current: the document's row is not written
            lambda: embedded(early),
            lambda: activate_version(session, article, 1),
            lambda: embedded(plan_unaware(session, article, ["c", "f", "a"])),
            lambda: embedded(plan_unaware(session, article, ["f", "a"]), copy_unchanged=True),
            lambda: embedded(plan_unaware(session, article, ["f", "a"])),
            lambda: prune_versions(session, keep=1, article_ids=[article]),
            lambda: retire_document(session, article),
            lambda: embedded(plan_unaware(session, article, ["z", "a"])),
        ]
        for number, act in enumerate(acts):
            act()
            session.commit()
            assert contents(session, article) == [], number
            assert_consistent(session)
            session.commit()
        assert undelete_document(session, article).chunks == 2
        session.commit()
        assert contents(session, article) == ["a", "z"]
        assert_consistent(session)
    engine.dispose()


def test_hand_written_sql_deletes_and_undeletes_and_shows_nothing_of_a_deleted_document(
    database: Database,
) -> None:
    """At the commit; a chunk, an event and a pointer that come later too."""
    with connect(database) as connection:
        version, later = uuid4(), uuid4()
        add_version = (
            "INSERT INTO rag_document_versions (id, document_id, version_number, source_hash, chunker_version,"
            " embedder_version) SELECT %s, id, %s, 'h', 'c', 'e' FROM rag_documents"
        )
        add_chunk = "INSERT INTO rag_chunks (version_id, ordinal, content) VALUES (%s, %s, 'text')"
        point = "UPDATE rag_documents SET current_version_id = %s"
        count = "SELECT count(*) FROM rag_chunks WHERE is_current"

        def current() -> int:
            row = connection.execute(count).fetchone()
            assert row is not None
            return int(row[0])

        connection.execute("INSERT INTO rag_documents (article_id) VALUES ('a')")
        connection.execute(add_version, (version, 1))
        connection.execute(add_chunk, (version, 0))
        connection.execute(point, (version,))
        assert current() == 1
        connection.execute("UPDATE rag_documents SET deleted_at = now()")
        assert current() == 0
        connection.execute(add_chunk, (version, 1))
        connection.execute(add_version, (later, 2))
        connection.execute(add_chunk, (later, 0))
        assert current() == 0
        with connection.transaction():  # as if its chunks were marked
            connection.execute("UPDATE rag_chunks SET is_current = true")
            connection.execute(point, (later,))
            connection.execute("SELECT set_config('ragschema.marked', %s, true)", (str(later),))
        connection.execute(
            "INSERT INTO rag_chunk_events (version_id, chunk_id, ordinal, event_type)"
            " SELECT version_id, id, ordinal, 'added' FROM rag_chunks WHERE version_id = %s",
            (later,),
        )
        assert current() == 0
        with connection.transaction():
            connection.execute("SELECT set_config('ragschema.marked', %s, true)", (str(later),))
            connection.execute("UPDATE rag_documents SET deleted_at = NULL")
        assert current() == 1
        connection.execute(point, (version,))
        assert current() == 2


def test_a_chunk_that_comes_while_its_document_is_being_deleted_is_not_found(
    database: Database, article: str
) -> None:
    """By a service with its own SQL, into a version that is current and has no events: one waits for the other."""
    engine = sa.create_engine(database.url())
    with ThreadPoolExecutor(1) as threads, Session(engine) as session:
        session.execute(
            sa.text(
                "WITH d AS (INSERT INTO rag_documents (article_id) VALUES (:article) RETURNING id)"
                " INSERT INTO rag_document_versions (document_id, version_number, source_hash, chunker_version,"
                " embedder_version) SELECT id, 1, 'h', 'c', 'e' FROM d"
            ),
            {"article": article},
        )
        session.execute(
            sa.text("UPDATE rag_documents d SET current_version_id = v.id FROM rag_document_versions v")
        )
        session.commit()
        add = sa.text(
            "INSERT INTO rag_chunks (version_id, ordinal, content)"
            " SELECT id, :place, 'text' FROM rag_document_versions"
        )
        delete_document(session, article)
        waiting = start_waiting(engine, threads, lambda other: other.execute(add, {"place": 0}))
        session.commit()
        waiting.result()
        assert contents(session, article) == []
        assert undelete_document(session, article).chunks == 1
        session.commit()
        session.execute(add, {"place": 1})
        waiting = start_waiting(engine, threads, lambda other: delete_document(other, article))
        session.commit()
        assert waiting.result().chunks == 2
        assert_consistent(session)
    engine.dispose()


def test_of_a_publisher_and_who_deletes_each_waits_for_the_other(
    sessions: sessionmaker[Session], article: str
) -> None:
    with ThreadPoolExecutor(1) as threads, sessions() as session:
        engine = session.connection().engine
        publish_texts(session, article, ["a"])
        session.commit()
        plan = make_plan(session, article, ["a", "b"])
        session.commit()
        delete_document(session, article)
        waiting = start_waiting(engine, threads, lambda other: publish(other, plan, [embed("b")]))
        session.commit()
        with pytest.raises(DocumentDeleted):
            waiting.result()
        undelete_document(session, article)
        session.commit()
        publish(session, plan, [embed("b")])
        waiting = start_waiting(engine, threads, lambda other: delete_document(other, article))
        session.commit()
        assert waiting.result().chunks == 2
        assert contents(session, article) == []


def test_publishing_beside_deletions_leaves_every_document_right(shared: Database) -> None:
    articles = [str(uuid4()) for _ in range(3)]
    engine = sa.create_engine(shared.url(), pool_size=6)
    with Session(engine) as session:
        for article in articles:
            publish_texts(session, article, ["a", "b"])
        session.commit()

    def work(seed: int) -> int:
        rng = random.Random(seed)
        refused = 0
        for number in range(25):
            article = rng.choice(articles)
            with Session(engine) as session:
                act = rng.random()
                try:
                    if act < 0.45:
                        texts = rng.choices("abcdef", k=4)
                        undelete = rng.random() < 0.3
                        publish_texts(
                            session, article, texts, source_hash=f"{seed} {number}", undelete=undelete
                        )
                    elif act < 0.65:
                        delete_documents(session, rng.sample(articles, 2))
                    elif act < 0.85:
                        undelete_document(session, article)
                    elif act < 0.95:
                        activate_version(session, article, 1)
                    else:
                        retire_document(session, article)
                except (StalePlan, DocumentDeleted):
                    refused += 1
                    session.rollback()
                session.commit()
        return refused

    with ThreadPoolExecutor(4) as threads:
        assert sum(threads.map(work, range(4))) > 0
    with engine.connect() as connection:
        assert_consistent(connection)
    engine.dispose()


def test_a_chunk_of_a_deleted_document_that_is_current_is_found_by_verification(
    database: Database, article: str
) -> None:
    drop_triggers(database)
    engine = sa.create_engine(database.url())
    with Session(engine) as session:
        publish_texts(session, article, ["a", "b"])
        delete_document(session, article)
        session.commit()
        assert migrations.verify_data(database) == []
        session.execute(sa.text("UPDATE rag_chunks SET is_current = true WHERE content = 'a'"))
        session.commit()
        assert [str(each) for each in migrations.verify_data(database)] == [
            f"{article}: 1 chunk wrongly current"
        ]
        session.execute(sa.text("UPDATE rag_chunks SET is_current = false"))
        session.execute(sa.text("UPDATE rag_documents SET deleted_at = NULL"))
        session.commit()
        assert [each.problem for each in migrations.verify_data(database)] == ["wrongly not current"]
    engine.dispose()


def test_data_is_verified_at_a_revision_that_knows_no_deletion(database_at: DatabaseAt) -> None:
    assert migrations.verify_data(database_at("20261128130910")) == []


@pytest.mark.parametrize("has_triggers", [True, False])
def test_embeddings_of_other_models_go_and_come_with_their_document(
    database: Database, article: str, has_triggers: bool
) -> None:
    """And its chunks wait for none while it is deleted."""
    add_model(database, "small", 4)
    if not has_triggers:
        drop_triggers(database)
    engine = sa.create_engine(database.url())
    current = sa.text("SELECT count(*) FROM rag_chunk_embeddings WHERE is_current")
    with Session(engine) as session:
        plan = plan_version(session, article, ["a", "b"], source_hash="h", chunker_version="c1")
        session.rollback()
        vectors = {"a": [1.0, 0, 0, 0], "b": None}
        publish(session, plan, vectors)
        waiting = session.execute(pending_embeddings()).all()
        assert [row.content for row in waiting] == ["b"]
        assert session.scalar(current) == 1
        delete_document(session, article)
        assert session.scalar(current) == 0
        assert session.execute(pending_embeddings()).all() == []
        stored = store_embeddings(session, [waiting[0].chunk_id], [[0, 1.0, 0, 0]])
        assert len(stored.stored) == 1
        session.commit()
        assert session.scalar(current) == 0
        assert_consistent(session)
        undelete_document(session, article)
        session.commit()
        assert session.scalar(current) == 2
        assert_consistent(session)
    engine.dispose()


REVISION = "20261128130910"


def test_a_downgrade_that_would_show_deleted_documents_is_refused(database: Database, article: str) -> None:
    """Until it is told that it may; then they are found, as the revision before says."""
    engine = sa.create_engine(database.url(), poolclass=sa.NullPool)
    with Session(engine) as session, session.begin():
        publish_texts(session, article, ["a", "b"])
        delete_document(session, article)
    with pytest.raises(DataLossRefused, match="destroy") as refused:
        migrations.downgrade(database, REVISION)
    assert "rag_documents.deleted_at" in str(refused.value)
    assert migrations.verify_data(database) == []
    migrations.downgrade(database, REVISION, allow_data_loss=True)
    with Session(engine) as session:
        assert contents(session, article) == ["a", "b"]
    assert migrations.verify_data(database) == []
    migrations.upgrade(database)
    assert migrations.verify_data(database) == []
    migrations.downgrade(database, REVISION)  # nothing is deleted: nothing is lost


def test_documents_are_undeleted_in_one_set(connection: sa.Connection) -> None:
    names = [str(uuid4()) for _ in range(4)]
    for name in names:
        publish_texts(connection, name, ["a", "b"])
    retire_document(connection, names[1])
    delete_documents(connection, names[:3])
    gone = str(uuid4())
    statements = []
    sa.event.listen(connection, "before_cursor_execute", lambda *called: statements.append(called[2]))
    done = undelete_documents(connection, [*names, gone, gone])
    assert len(statements) == 3  # the documents, the chunks, the facts that these mention
    assert {*done.undeleted} == {*names[:3]}
    assert (done.chunks, done.already, done.unknown) == (4, 1, (gone,))
    for name, texts in zip(names, (["a", "b"], [], ["a", "b"], ["a", "b"]), strict=True):
        assert [row.content for row in read_current(connection, name)] == texts
    assert undelete_documents(connection, names).already == 4
    with pytest.raises(PublishingError, match="article_ids"):
        undelete_documents(connection, names[0])


def test_async_code_deletes_and_undeletes(database: Database, article: str) -> None:
    async def run() -> None:
        engine = create_async_engine(database.url())
        async with engine.begin() as connection:
            await connection.run_sync(lambda sync: publish_texts(sync, article, ["a"]))
            assert (await aio.delete_document(connection, article)).chunks == 1
            assert (await aio.delete_documents(connection, [article])).already == 1
            with pytest.raises(DocumentDeleted):
                await aio.plan_version(connection, article, ["a"], source_hash="h", **NAMES)
            assert (await aio.undelete_document(connection, article)).chunks == 1
            assert (await aio.undelete_documents(connection, [article])).already == 1
        await engine.dispose()

    asyncio.run(run())
