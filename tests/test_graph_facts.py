"""Facts of the graph: recorded once, current while a current chunk mentions them, and gone with the last one."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from conftest import connect
from publishing import NAMES, publish_texts, publishing_database
from ragschema import aio
from ragschema.database.settings import Database
from ragschema.graph import (
    GraphError,
    NewEntity,
    NewRelation,
    RecordedExtraction,
    UnknownChunk,
    pending_extraction,
    record_extraction,
)
from ragschema.publishing import (
    BulkDocument,
    activate_version,
    delete_document,
    prune_versions,
    publish_many,
    purge_document,
    purge_documents,
    retire_document,
    undelete_document,
)
from ragschema.schema.fact_rules import broken_facts

__all__ = ["publishing_database"]

BOTH = ("Ada wrote to Bob.", "Bob lives in Paris.")


@pytest.fixture
def session(publishing_database: Database) -> Iterator[Session]:
    """A session of the module's database, with triggers and without; what it leaves is sound, and rolled back."""
    engine = sa.create_engine(publishing_database.url())
    with Session(engine) as session:
        yield session
        session.execute(sa.text("SET CONSTRAINTS ALL IMMEDIATE"))
        assert_sound(session)
        session.rollback()
    engine.dispose()


@pytest.fixture
def engine(database: Database) -> Iterator[sa.Engine]:
    engine = sa.create_engine(database.url())
    yield engine
    with engine.connect() as connection:
        assert_sound(connection)
    engine.dispose()


def assert_sound(session: Session | sa.Connection) -> None:
    assert session.execute(broken_facts()).all() == []


def person(name: str, **said: Any) -> NewEntity:
    return NewEntity("person", name, **said)


def knows(source: str, target: str, **said: Any) -> NewRelation:
    return NewRelation(("person", source), "knows", ("person", target), **said)


def current_chunks(session: Session, article_id: str) -> dict[str, UUID]:
    """Return the current chunks of an article by their texts."""
    rows = session.execute(
        sa.text(
            "SELECT c.content, c.id FROM rag_chunks c JOIN rag_document_versions v ON v.id = c.version_id"
            " JOIN rag_documents d ON d.id = v.document_id WHERE d.article_id = :article_id AND c.is_current"
        ),
        {"article_id": article_id},
    )
    return {row.content: row.id for row in rows}


def names(session: Session) -> set[str]:
    """Return the names of the current entities."""
    return {*session.execute(sa.text("SELECT name FROM rag_entities WHERE is_current")).scalars()}


def relations(session: Session) -> set[tuple[str, str]]:
    """Return the ends of the current relations."""
    rows = session.execute(
        sa.text(
            "SELECT s.name, t.name FROM rag_relations r JOIN rag_entities s ON s.id = r.source_id"
            " JOIN rag_entities t ON t.id = r.target_id WHERE r.is_current"
        )
    )
    return {(row[0], row[1]) for row in rows}


def record(
    session: Session, chunk_id: UUID, *entities: str, said: Sequence[NewRelation] = (), by: str = "x1"
) -> RecordedExtraction:
    return record_extraction(session, chunk_id, by, [person(name) for name in entities], said)


def publish_both(session: Session, article_id: str = "letters") -> None:
    """Publish a document of two chunks: of Ada who knows Bob, and of Bob."""
    publish_texts(session, article_id, BOTH)
    chunks = current_chunks(session, article_id)
    record(session, chunks[BOTH[0]], "Ada", "Bob", said=[knows("Ada", "Bob")])
    record(session, chunks[BOTH[1]], "Bob")


def test_an_extraction_is_recorded_once(session: Session) -> None:
    publish_texts(session, "a", BOTH)
    chunk_id = current_chunks(session, "a")[BOTH[0]]
    found = [
        person("Ada", description="a countess", properties={"born": 1815}),
        person("ada "),
        person("Bob"),
    ]
    first = record_extraction(session, chunk_id, "x1", found, [knows("ADA", "Bob"), knows("Ada", "Eve")])
    assert first.is_new
    assert first.entity_ids[0] == first.entity_ids[1] != first.entity_ids[2]
    assert record_extraction(session, chunk_id, "x1", found) == RecordedExtraction(is_new=False)
    assert names(session) == {"Ada", "Bob", "Eve"}
    assert relations(session) == {("Ada", "Bob"), ("Ada", "Eve")}
    row = session.execute(
        sa.text("SELECT description, properties FROM rag_entities WHERE name = 'Ada'")
    ).one()
    assert tuple(row) == ("a countess", {"born": 1815})


def test_what_is_known_stays_and_what_is_new_is_added(session: Session) -> None:
    publish_texts(session, "a", BOTH)
    first, second = current_chunks(session, "a").values()
    one = record_extraction(
        session, first, "x", [person("Ada")], [knows("Ada", "Bob", weight=3, properties={"a": 1})]
    )
    two = record_extraction(
        session,
        second,
        "x",
        [person("ADA", description="late", properties={"b": 2}), person("Ada", description="later")],
        [knows("Ada", "Bob", weight=2, description="since 1833", properties={"a": 2, "b": 2})],
    )
    assert two.entity_ids == (one.entity_ids[0],) * 2
    assert one.relation_ids == two.relation_ids
    row = session.execute(sa.text("SELECT weight, description, properties FROM rag_relations")).one()
    assert tuple(row) == (3.0, "since 1833", {"a": 1, "b": 2})
    row = session.execute(
        sa.text("SELECT name, description, properties FROM rag_entities WHERE name_key = 'ada'")
    ).one()
    assert tuple(row) == ("Ada", "late", {"b": 2})


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("  Ada\t Lovelace ", "ada lovelace"),
        ("ÉCOLE ﬁne", "école fine"),
        ("\uff21da\u3000L", "ada l"),
        ("A\u200bda", "ada"),
    ],
)
def test_spellings_of_a_name_are_one_key(session: Session, name: str, key: str) -> None:
    assert session.scalar(sa.text("SELECT rag_name_key(:name)"), {"name": name}) == key


def test_an_alias_leads_to_its_entity_and_goes_with_its_document(session: Session) -> None:
    publish_texts(session, "a", BOTH)
    publish_texts(session, "b", ["The Countess."])
    first, second = current_chunks(session, "a").values()
    [ada] = record_extraction(
        session, first, "x", [person("Ada", aliases=["The Countess", "ADA"])]
    ).entity_ids
    [again] = record(session, current_chunks(session, "b")["The Countess."], "the countess").entity_ids
    assert again == ada
    [own] = record_extraction(session, second, "x", [NewEntity("ship", "The Countess")]).entity_ids
    assert own != ada
    purge_document(session, "a")
    assert names(session) == {"Ada"}
    assert session.scalar(sa.text("SELECT count(*) FROM rag_entity_aliases")) == 0


def test_facts_of_a_replaced_version_vanish_with_it(session: Session) -> None:
    publish_both(session)
    publish_texts(session, "letters", [BOTH[1]])
    assert (names(session), relations(session)) == ({"Bob"}, set())
    publish_texts(session, "letters", ["Nobody writes."])
    assert names(session) == set()
    activate_version(session, "letters", 1)
    assert (names(session), relations(session)) == ({"Ada", "Bob"}, {("Ada", "Bob")})
    activate_version(session, "letters", 2)
    assert names(session) == {"Bob"}
    publish_texts(session, "letters", [*BOTH, "And more."])  # which takes up the rows of the first version
    assert names(session) == {"Ada", "Bob"}
    assert [chunk.content for chunk in pending_extraction(session, "x1")] == ["And more."]
    retire_document(session, "letters")
    assert names(session) == set()


def test_facts_of_a_deleted_document_come_back_with_it(session: Session) -> None:
    publish_both(session)
    publish_both(session, "copies")
    delete_document(session, "letters")
    assert names(session) == {"Ada", "Bob"}
    delete_document(session, "copies")
    assert (names(session), relations(session)) == (set(), set())
    undelete_document(session, "letters")
    assert (names(session), relations(session)) == ({"Ada", "Bob"}, {("Ada", "Bob")})
    delete_document(session, "letters")
    publish_texts(session, "letters", BOTH, undelete=True)
    assert names(session) == {"Ada", "Bob"}
    delete_document(session, "letters")
    publish_texts(session, "letters", [BOTH[1], "More."], undelete=True)
    assert names(session) == {"Bob"}


def test_new_rows_of_the_same_text_inherit_what_was_read(session: Session) -> None:
    publish_both(session)
    record(session, current_chunks(session, "letters")[BOTH[1]], "Paris", by="x2")
    before = {*current_chunks(session, "letters").values()}
    publish_texts(session, "letters", [*BOTH, "New."], copy_unchanged=True)
    assert not before & {*current_chunks(session, "letters").values()}
    assert (names(session), relations(session)) == ({"Ada", "Bob", "Paris"}, {("Ada", "Bob")})
    assert [chunk.content for chunk in pending_extraction(session, "x1")] == ["New."]
    publish_texts(session, "letters", [BOTH[1]], embedder_version="e2")  # embedded again: a row of its own
    assert names(session) == {"Bob", "Paris"}
    assert pending_extraction(session, "x1") == []
    assert {each.content for each in pending_extraction(session, "x3")} == {BOTH[1]}


def test_a_chunk_that_is_not_current_makes_nothing_current(session: Session) -> None:
    publish_texts(session, "a", ["Old."])
    old = current_chunks(session, "a")["Old."]
    publish_texts(session, "a", ["New."])
    record(session, old, "Ada", "Bob", said=[knows("Ada", "Bob")])
    assert (names(session), relations(session)) == (set(), set())
    activate_version(session, "a", 1)
    assert (names(session), relations(session)) == ({"Ada", "Bob"}, {("Ada", "Bob")})


def test_what_was_imported_is_current_without_a_mention(session: Session) -> None:
    session.execute(
        sa.text(
            "INSERT INTO rag_entities (entity_type, name, is_current, is_imported)"
            " VALUES ('person', 'Ada', true, true), ('person', 'Bob', true, true)"
        )
    )
    publish_both(session)
    purge_document(session, "letters")
    assert (names(session), relations(session)) == ({"Ada", "Bob"}, set())


def test_a_purge_takes_what_nobody_else_says(session: Session) -> None:
    publish_both(session)
    publish_texts(session, "b", ["Bob again."])
    record(session, current_chunks(session, "b")["Bob again."], "Bob", "Cy", said=[knows("Bob", "Cy")])
    purge_document(session, "letters")
    left = session.execute(sa.text("SELECT name FROM rag_entities")).scalars().all()
    assert sorted(left) == ["Bob", "Cy"]
    assert relations(session) == {("Bob", "Cy")}
    purged = purge_documents(session, ["b"], erase=True)
    assert purged.left == ()
    for table in ("entities", "relations", "entity_mentions", "relation_mentions", "extractions"):
        assert session.scalar(sa.text(f"SELECT count(*) FROM rag_{table}")) == 0


def test_an_erasure_says_which_facts_may_repeat_the_document(session: Session) -> None:
    publish_texts(session, "a", ["A secret."])
    publish_texts(session, "b", ["Known."])
    described = [person("Ada", description="whose secret it is")]
    record_extraction(session, current_chunks(session, "a")["A secret."], "x", described)
    record(session, current_chunks(session, "b")["Known."], "Ada")
    purged = purge_documents(session, ["a"], erase=True)
    assert purged.left == ("1 row of rag_entities that others mention too, whose description may repeat one",)


def test_pruning_takes_what_only_pruned_versions_said(publishing_database: Database) -> None:
    article_id = f"pruned {uuid4()}"
    engine = sa.create_engine(publishing_database.url())
    with Session(engine) as session:
        publish_texts(session, article_id, ["Old.", "Both."])
        chunks = current_chunks(session, article_id)
        record(session, chunks["Old."], f"old {article_id}", by=article_id)
        record(session, chunks["Both."], f"both {article_id}", by=article_id)
        publish_texts(session, article_id, ["Both.", "New."])
        session.commit()
        prune_versions(session, keep=0, article_ids=[article_id])
        left = session.execute(
            sa.text("SELECT name FROM rag_entities WHERE name LIKE :like"), {"like": f"%{article_id}"}
        )
        assert left.scalars().all() == [f"both {article_id}"]
        assert_sound(session)
        purge_document(session, article_id)
        session.commit()
    engine.dispose()


def test_a_bulk_load_settles_facts(publishing_database: Database) -> None:
    first, second = (f"bulk {place} {uuid4()}" for place in (1, 2))
    engine = sa.create_engine(publishing_database.url())
    with Session(engine) as session:
        for article_id in (first, second):
            publish_texts(session, article_id, [article_id])
            record(session, current_chunks(session, article_id)[article_id], article_id, "everywhere")
        session.commit()
    documents = [BulkDocument(first, ["new"], None, "2", NAMES["chunker_version"], NAMES["embedder_version"])]
    with engine.connect() as connection:
        publish_many(connection, documents)
    with Session(engine) as session:
        assert names(session) == {second, "everywhere"}
        assert_sound(session)
        for article_id in (first, second):
            purge_document(session, article_id)
        session.commit()
    engine.dispose()


# SQL of others


def test_triggers_follow_the_sql_of_others(engine: sa.Engine) -> None:
    with Session(engine) as session, session.begin():
        publish_both(session)
    with engine.begin() as connection:
        connection.execute(
            sa.text("UPDATE rag_chunks SET is_current = false WHERE content = :c"), {"c": BOTH[0]}
        )
    with Session(engine) as session, session.begin():
        assert (names(session), relations(session)) == ({"Bob"}, set())
        session.execute(sa.text("UPDATE rag_chunks SET is_current = true"))
    with Session(engine) as session, session.begin():
        assert relations(session) == {("Ada", "Bob")}
        session.execute(sa.text("DELETE FROM rag_relation_mentions"))
        assert relations(session) == set()
        chunk_id = current_chunks(session, "letters")[BOTH[1]]
        session.execute(
            sa.text("INSERT INTO rag_relation_mentions SELECT :chunk_id, id FROM rag_relations"),
            {"chunk_id": chunk_id},
        )
        assert relations(session) == {("Ada", "Bob")}
        session.execute(
            sa.text(
                "UPDATE rag_entity_mentions SET entity_id = (SELECT id FROM rag_entities WHERE name = 'Ada')"
                " WHERE chunk_id = :chunk_id"
            ),
            {"chunk_id": chunk_id},
        )
        session.execute(sa.text("DELETE FROM rag_entity_mentions WHERE chunk_id <> :id"), {"id": chunk_id})
        assert names(session) == {"Ada"}
    with engine.begin() as connection:
        connection.execute(sa.text("DELETE FROM rag_documents"))
        assert connection.scalar(sa.text("SELECT count(*) FROM rag_entities WHERE is_current")) == 0


# Races


def in_parallel(*tasks: Any) -> None:
    """Run functions at once; raise what one of them raises."""
    with ThreadPoolExecutor(len(tasks)) as pool:
        for each in [pool.submit(task) for task in tasks]:
            each.result(timeout=60)


def test_workers_that_find_the_same_make_each_once_and_never_deadlock(engine: sa.Engine) -> None:
    people = [f"person {number}" for number in range(30)]
    with Session(engine) as session, session.begin():
        publish_texts(session, "a", [f"text {number}" for number in range(24)])
        chunks = [*current_chunks(session, "a").values()]
    barrier = Barrier(4)

    def work(worker: int) -> None:
        order = random.Random(worker)
        barrier.wait()
        for chunk_id in chunks:
            found = [person(name, aliases=[f"{name} again"]) for name in order.sample(people, 20)]
            said = [knows(*order.sample(people, 2)) for _ in range(20)]
            with Session(engine) as session, session.begin():
                record_extraction(session, chunk_id, f"x{worker % 2}", found, said)

    in_parallel(*(lambda worker=worker: work(worker) for worker in range(4)))
    with Session(engine) as session:
        assert session.scalar(sa.text("SELECT count(*) FROM rag_extractions")) == 48
        assert names(session) <= {*people}
        doubles = "SELECT name_key FROM rag_entities GROUP BY 1 HAVING count(*) > 1"
        assert session.execute(sa.text(doubles)).all() == []


def test_recording_races_publishing_and_purging(engine: sa.Engine) -> None:
    """Whatever comes first: the flags are right when all have committed."""
    articles = ["a", "b", "c"]
    people = [f"person {number}" for number in range(6)]
    with Session(engine) as session, session.begin():
        for article_id in articles:
            publish_texts(session, article_id, ["one", "two"])
    barrier = Barrier(4)

    def extract(worker: int) -> None:
        order = random.Random(worker)
        barrier.wait()
        for turn in range(25):
            with Session(engine) as session:
                pending = pending_extraction(session, f"x{worker} {turn % 5}")
            for chunk in order.sample(pending, min(3, len(pending))):
                found = order.sample(people, 3)
                try:
                    with Session(engine) as session, session.begin():
                        record(
                            session,
                            chunk.id,
                            *found,
                            said=[knows(found[0], found[1])],
                            by=f"x{worker} {turn % 5}",
                        )
                except UnknownChunk:
                    continue

    def publish(worker: int) -> None:
        order = random.Random(worker)
        barrier.wait()
        for turn in range(25):
            article_id = f"{articles[order.randrange(3)]}{worker}"
            with Session(engine) as session, session.begin():
                if turn % 6 == 5 and current_chunks(session, article_id):
                    purge_document(session, article_id)
                else:
                    publish_texts(session, article_id, [f"text {order.randrange(4)}" for _ in range(3)])

    in_parallel(lambda: extract(1), lambda: extract(2), lambda: publish(3), lambda: publish(4))


# Arguments


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NewEntity("", "Ada"), "entity_type is ''"),
        (lambda: NewEntity("person", "\u200b"), "name is "),
        (lambda: NewEntity("person", "x" * 1001), "which is no name of 1 to 1,000 bytes"),
        (lambda: NewEntity("person", "Ada", aliases="Countess"), "aliases is one str"),
        (lambda: knows("Ada", "Bob", weight=-1), "weight of a relation is -1"),
        (lambda: knows("Ada", "Bob", weight=float("nan")), "weight of a relation is nan"),
        (lambda: NewRelation("Ada", "knows", ("person", "Bob")), "source is 'Ada'"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_kept_is_refused_before_it_is_sent(make: Any, message: str) -> None:
    with pytest.raises(GraphError, match=message.replace("(", r"\(")):
        make()


def test_a_weight_is_any_number_that_is_not_refused(session: Session) -> None:
    """Of whatever library, and however small: the server refuses what is between 0 and the least that it can say."""
    publish_texts(session, "a", ["weights"])
    [chunk_id] = current_chunks(session, "a").values()
    weights: list[Any] = [1e-300, 1e-45, 1.5e-45, 1e-40, np.float32(0.5), np.float64(0.25), np.int32(7), 3e38]
    record_extraction(
        session, chunk_id, "x", [], [knows("Ada", f"B{at}", weight=each) for at, each in enumerate(weights)]
    )
    kept = session.scalars(sa.text("SELECT weight FROM rag_relations ORDER BY weight")).all()
    assert kept == pytest.approx(sorted(float(each) for each in weights), rel=1e-5, abs=2e-45)


def test_a_chunk_that_is_gone_is_said_to_be(session: Session) -> None:
    with pytest.raises(UnknownChunk, match="There is no chunk"):
        record_extraction(session, uuid4(), "x")


def test_pages_of_pending_chunks_come_to_an_end(session: Session) -> None:
    publish_texts(session, "a", [f"text {number}" for number in range(7)])
    seen: list[str] = []
    page = pending_extraction(session, "x", limit=3)
    while page:
        seen += [chunk.content for chunk in page]
        page = pending_extraction(session, "x", after=page[-1].id, limit=3)
    assert sorted(seen) == [f"text {number}" for number in range(7)]
    with pytest.raises(GraphError, match="limit of a page is 0"):
        pending_extraction(session, "x", limit=0)


def test_async_code_records(database: Database) -> None:
    async def run() -> None:
        engine = create_async_engine(database.url())
        async with AsyncSession(engine) as session, session.begin():
            await session.run_sync(partial(publish_texts, article_id="a", contents=["one"]))
            [chunk] = await aio.graph.pending_extraction(session, "x")
            done = await aio.graph.record_extraction(session, chunk.id, "x", [person("Ada"), person("Bob")])
            [merge] = await aio.graph.merge_entities(session, *done.entity_ids)
            assert await aio.graph.undo_merge(session, merge.merged_id) == merge
        await engine.dispose()

    asyncio.run(run())


def test_verify_tells_flags_that_are_wrong(engine: sa.Engine, database: Database) -> None:
    with Session(engine) as session, session.begin():
        publish_both(session)
    with connect(database) as connection:
        connection.execute("UPDATE rag_entities SET is_current = false WHERE name = 'Ada'")
        connection.execute("UPDATE rag_relations SET is_imported = true, is_current = false")
    with engine.begin() as connection:
        found = {(row.kind, row.problem, len(row.ids)) for row in connection.execute(broken_facts())}
        assert found == {("entity", "wrongly not current", 1), ("relation", "wrongly not current", 1)}
        connection.execute(sa.text("UPDATE rag_relations SET is_current = true"))
        connection.execute(sa.text("UPDATE rag_entities SET is_current = true"))
