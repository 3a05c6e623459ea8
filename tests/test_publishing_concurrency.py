"""Publishers side by side: one wins, the others are told, and no chunk is marked wrongly."""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from publishing import (
    assert_consistent,
    embed,
    make_plan,
    publish_texts,
    publishing_database,
    read_current,
)
from ragschema.collections import add_documents, create_collection
from ragschema.database.settings import Database
from ragschema.publishing import (
    PublishedVersion,
    StalePlan,
    UnknownDocument,
    VersionPlan,
    activate_version,
    prune_versions,
    publish,
    retire_document,
)
from ragschema.schema.ids import uuid7s

THREADS = 8
DOCUMENTS = 20
PUBLISHES = 500


database = publishing_database


@pytest.fixture(scope="module")
def engine(database: Database) -> Iterator[sa.Engine]:
    engine = sa.create_engine(database.url(), pool_size=THREADS + 2)
    yield engine
    engine.dispose()


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(THREADS) as threads:
        yield threads


def start_waiting(
    engine: sa.Engine, threads: ThreadPoolExecutor, work: Callable[[Session], Any]
) -> Future[Any]:
    """Start work in a thread, and return when its session waits for a lock."""

    def run() -> Any:
        with Session(engine) as session, session.begin():
            return work(session)

    with engine.connect() as connection:
        before = count_waiting(connection)
        future = threads.submit(run)
        deadline = time.monotonic() + 60
        while count_waiting(connection) == before:
            assert not future.done(), future.result()
            assert time.monotonic() < deadline
            time.sleep(0.01)
    return future


def count_waiting(connection: sa.Connection) -> int:
    connection.rollback()
    sessions = connection.scalar(
        sa.text("SELECT coalesce(to_regclass('citus_stat_activity'), 'pg_stat_activity')")
    )
    return (
        connection.scalar(
            sa.text(
                f"SELECT count(*) FROM {sessions}"
                " WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
        )
        or 0
    )


def make_two_plans(session: Session, article: str, *, is_new: bool) -> tuple[VersionPlan, VersionPlan]:
    """Plan two next versions of a document, which has one already or is new."""
    if not is_new:
        publish_texts(session, article, ["a"])
        session.commit()
    plans = make_plan(session, article, ["mine"]), make_plan(session, article, ["theirs"])
    session.commit()
    return plans


def test_what_the_session_had_set_holds_after_publishing_and_after_waiting(
    engine: sa.Engine, threads: ThreadPoolExecutor, article: str
) -> None:
    """publish lets its own statement be planned once, and leaves the choice for everybody else's to the session."""

    def publish_and_look(session: Session, text: str) -> str:
        session.execute(sa.text("SET LOCAL plan_cache_mode = force_custom_plan"))
        publish(session, make_plan(session, article, [text]), [embed(text)])
        return str(session.scalar(sa.text("SHOW plan_cache_mode")))

    named = {"article": article}
    with Session(engine) as session:
        assert publish_and_look(session, "a") == "force_custom_plan"
        session.commit()
        session.execute(sa.text("SELECT FROM rag_documents WHERE article_id = :article FOR UPDATE"), named)
        waiting = start_waiting(engine, threads, lambda other: publish_and_look(other, "b"))
        session.execute(
            sa.text("UPDATE rag_documents SET updated_at = now() WHERE article_id = :article"), named
        )
        session.commit()
        assert waiting.result(30) == "force_custom_plan"


@pytest.mark.parametrize("is_new", [True, False])
def test_of_two_publishers_one_wins_and_the_other_is_told(
    engine: sa.Engine, threads: ThreadPoolExecutor, article: str, is_new: bool
) -> None:
    with Session(engine) as session:
        mine, theirs = make_two_plans(session, article, is_new=is_new)
        won = publish(session, mine, [embed("mine")])
        waiting = start_waiting(engine, threads, lambda other: publish(other, theirs, [embed("theirs")]))
        session.commit()
        with pytest.raises(StalePlan, match=f"version {won.version_number} is current now"):
            waiting.result()
        assert [row.content for row in read_current(session, article)] == ["mine"]
        assert_consistent(session)


def test_who_waits_to_publish_is_passed_by_nobody_who_links_the_document(
    engine: sa.Engine, threads: ThreadPoolExecutor, article: str
) -> None:
    """Otherwise those who link it one after another, such as workers that ingest, keep it waiting without end."""
    with Session(engine) as session:
        publish_texts(session, article, ["a"])
        first, second = (create_collection(session, f"{article} {n}", "Linked").id for n in range(2))
        session.commit()
        add_documents(session, first, [article])
        publishing = start_waiting(engine, threads, lambda other: publish_texts(other, article, ["b"]))
        linking = start_waiting(engine, threads, lambda other: add_documents(other, second, [article]))
        session.commit()
        publishing.result(30)
        assert linking.result(30).added == 1
        assert [row.content for row in read_current(session, article)] == ["b"]


@pytest.mark.parametrize("isolation", ["REPEATABLE READ", "SERIALIZABLE"])
def test_under_a_stricter_isolation_the_one_who_lost_is_told_too(
    engine: sa.Engine, article: str, isolation: str
) -> None:
    with Session(engine) as session:
        first, second = make_two_plans(session, article, is_new=False)
    strict = engine.execution_options(isolation_level=isolation)
    with Session(strict) as late:
        late.execute(sa.text("SELECT count(*) FROM rag_documents"))  # what it sees is settled from here on
        with Session(engine) as session:
            publish(session, first, [embed("mine")])
            session.commit()
        with pytest.raises(StalePlan, match="was changed by another transaction since this one began"):
            publish(late, second, [embed("theirs")])


def test_a_publisher_that_a_deadlock_ends_is_told_too(
    engine: sa.Engine, threads: ThreadPoolExecutor, article: str
) -> None:
    """It is ended, and not the other: it looks for a deadlock first, and began last, whom Citus itself would end."""
    lock = sa.text("SELECT id FROM rag_documents WHERE article_id = :article FOR UPDATE")
    other_article = f"{article} too"

    def wait_for(session: Session, patience: str) -> None:
        session.execute(
            sa.text("SET LOCAL citus.propagate_set_commands = 'local'")
        )  # its nodes are told the next
        session.execute(sa.text(f"SET LOCAL deadlock_timeout = '{patience}'"))

    with Session(engine) as session, Session(engine) as other:
        publish_texts(session, other_article, ["a"])
        plan, _ = make_two_plans(session, article, is_new=False)
        wait_for(other, "1min")
        other.execute(lock, {"article": article})
        wait_for(session, "10ms")
        session.execute(lock, {"article": other_article})
        waiting = start_waiting(engine, threads, lambda _: other.execute(lock, {"article": other_article}))
        with pytest.raises(StalePlan, match="was changed by another transaction"):
            publish(session, plan, [embed("mine")])
        session.rollback()
        waiting.result()


@pytest.mark.parametrize("is_new", [True, False])
def test_the_second_publisher_wins_when_the_first_rolls_back(
    engine: sa.Engine, threads: ThreadPoolExecutor, article: str, is_new: bool
) -> None:
    with Session(engine) as session:
        mine, theirs = make_two_plans(session, article, is_new=is_new)
        publish(session, mine, [embed("mine")])
        waiting = start_waiting(engine, threads, lambda other: publish(other, theirs, [embed("theirs")]))
        session.rollback()
        assert waiting.result().version_number == (1 if is_new else 2)
        assert [row.content for row in read_current(session, article)] == ["theirs"]
        assert_consistent(session)


def test_a_version_that_another_service_adds_meanwhile_takes_no_number_twice(
    engine: sa.Engine, threads: ThreadPoolExecutor, article: str
) -> None:
    """A service with its own SQL has written version 2, and not yet pointed the document at it."""
    with Session(engine) as session:
        first = publish_texts(session, article, ["a"])
        plan = make_plan(session, article, ["b"])
        session.commit()
        session.execute(
            sa.text(
                "INSERT INTO rag_document_versions"
                " (id, document_id, version_number, source_hash, chunker_version, embedder_version)"
                " VALUES (:id, :document_id, 2, 'h', 'c', 'e')"
            ),
            {"id": uuid7s(1)[0], "document_id": first.document_id},
        )
        waiting = start_waiting(engine, threads, lambda other: publish(other, plan, [embed("b")]))
        session.commit()
        assert waiting.result().version_number == 3


def test_a_prune_waits_for_the_publisher_that_reuses_what_it_would_remove(
    engine: sa.Engine, threads: ThreadPoolExecutor, article: str
) -> None:
    with Session(engine) as session:
        publish_texts(session, article, ["a"])
        publish_texts(session, article, ["b"])
        session.commit()
        plan = make_plan(session, article, ["a"])
        session.commit()
        publish(session, plan)

        def prune() -> Any:
            with engine.connect() as connection:
                return prune_versions(connection, keep=1, article_ids=[article])

        waiting = start_waiting(engine, threads, lambda _: prune())
        session.commit()
        pruned = waiting.result()
        assert (pruned.versions, pruned.rehomed, pruned.chunks) == (2, 1, 1)
        assert [row.content for row in read_current(session, article)] == ["a"]
        assert_consistent(session)


def test_five_hundred_publishes_by_eight_threads_leave_every_document_right(
    engine: sa.Engine, threads: ThreadPoolExecutor
) -> None:
    articles = [str(uuid4()) for _ in range(DOCUMENTS)]

    def work(seed: int) -> list[tuple[str, PublishedVersion, int, list[str]]]:
        rng = random.Random(seed)
        done = []
        for number in range(PUBLISHES // THREADS + 1):
            article = rng.choice(articles)
            texts = rng.choices("abcdefghijkl", k=rng.randrange(1, 8))
            with Session(engine) as session:
                plan = make_plan(session, article, texts, source_hash=f"{seed} {number}")
                session.commit()
                embeddings = [embed(text) for text in plan.texts_to_embed]
                try:
                    version = publish(session, plan, embeddings, copy_unchanged=rng.random() < 0.2)
                except StalePlan:
                    session.rollback()
                    continue
                if rng.random() < 0.25:
                    session.rollback()
                else:
                    session.commit()
                    done.append((article, version, plan.base_version_number, texts))
        return done

    published = [item for result in threads.map(work, range(THREADS)) for item in result]
    assert len(published) > PUBLISHES / 4
    with engine.connect() as connection:
        assert_consistent(connection)
        numbers = defaultdict(list)
        for article, version, base, texts in published:
            numbers[article].append(version.version_number)
            assert version.version_number == base + 1
            manifest = connection.execute(
                sa.text(
                    "SELECT c.content, c.embedding::text FROM rag_chunk_events e"
                    " JOIN rag_chunks c ON c.id = e.chunk_id"
                    " WHERE e.version_id = :id AND e.event_type <> 'deleted' ORDER BY e.ordinal"
                ),
                {"id": version.id},
            ).all()
            assert [row.content for row in manifest] == texts
        for article, given in numbers.items():
            assert sorted(given) == list(range(1, len(given) + 1)), article


def test_publishing_beside_rollbacks_tombstones_and_prunes_leaves_every_document_right(
    engine: sa.Engine, threads: ThreadPoolExecutor
) -> None:
    articles = [str(uuid4()) for _ in range(5)]
    with Session(engine) as session:
        for article in articles:
            publish_texts(session, article, ["a", "b"])
        session.commit()

    def work(seed: int) -> int:
        rng = random.Random(seed)
        stale = 0
        for number in range(25):
            article = rng.choice(articles)
            with Session(engine) as session:
                act = rng.random()
                try:
                    if act < 0.6:
                        texts = rng.choices("abcdef", k=4)
                        publish_texts(session, article, texts, source_hash=f"{seed} {number}")
                    elif act < 0.75:
                        retire_document(session, article)
                    elif act < 0.9:
                        kept = session.scalar(
                            sa.text(
                                "SELECT max(version_number) FROM rag_document_versions v JOIN rag_documents d"
                                " ON d.id = v.document_id WHERE d.article_id = :article_id"
                            ),
                            {"article_id": article},
                        )
                        assert kept is not None
                        activate_version(session, article, kept)
                    else:
                        prune_versions(session, keep=2, article_ids=[article])
                except (StalePlan, UnknownDocument):  # the version to activate may have been pruned meanwhile
                    stale += 1
                    session.rollback()
                session.commit()
        return stale

    assert sum(threads.map(work, range(THREADS))) > 0
    with engine.connect() as connection:
        assert_consistent(connection)
