"""Merges of entities: what one has is the other's, for what comes as well, and every merge can be taken back."""

from __future__ import annotations

import random
from threading import Barrier
from uuid import UUID, uuid4

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from publishing import publish_texts, publishing_database
from ragschema.graph import (
    EntityMerge,
    GraphError,
    NewEntity,
    NewRelation,
    UnknownEntity,
    merge_entities,
    record_extraction,
    undo_merge,
)
from ragschema.publishing import purge_document
from test_graph_facts import (
    assert_sound,
    current_chunks,
    engine,
    in_parallel,
    knows,
    names,
    person,
    record,
    relations,
    session,
)

__all__ = ["engine", "publishing_database", "session"]

TABLES = ("entities", "relations", "entity_mentions", "relation_mentions", "entity_aliases")


@pytest.fixture
def people(session: Session) -> dict[str, UUID]:
    """Ada and the Countess, who are one, with what texts say of each; by their names."""
    publish_texts(session, "a", ["one", "two", "three"])
    chunks = current_chunks(session, "a")
    record(
        session,
        chunks["one"],
        "Ada",
        "Countess",
        said=[knows("Ada", "Bob"), knows("Countess", "Bob"), knows("Countess", "Ada")],
    )
    countess = person("Countess", aliases=["Lady L"], description="a title")
    record_extraction(
        session, chunks["two"], "x1", [countess], [knows("Cy", "Countess"), knows("Countess", "Bob")]
    )
    record(session, chunks["three"], "Bob")
    return ids(session)


def ids(session: Session) -> dict[str, UUID]:
    rows = session.execute(sa.text("SELECT name, id FROM rag_entities WHERE entity_type = 'person'"))
    return {row.name: row.id for row in rows}


def everything(session: Session) -> dict[str, list[str]]:
    """Return every row of the graph's tables as text, sorted."""
    return {
        table: sorted(session.execute(sa.text(f"SELECT CAST(t AS text) FROM rag_{table} t")).scalars())
        for table in TABLES
    }


def test_a_merge_moves_mentions_and_relations(session: Session, people: dict[str, UUID]) -> None:
    [merge] = merge_entities(session, people["Ada"], people["Countess"])
    assert merge == EntityMerge(people["Ada"], people["Countess"], mentions=2, relations=3)
    assert names(session) == {"Ada", "Bob", "Cy"}
    assert relations(session) == {("Ada", "Bob"), ("Ada", "Ada"), ("Cy", "Ada")}
    assert_sound(session)


def test_a_merge_that_is_undone_leaves_every_row_as_it_was(session: Session, people: dict[str, UUID]) -> None:
    before = everything(session)
    [merge] = merge_entities(session, people["Ada"], people["Countess"])
    assert everything(session) != before
    assert undo_merge(session, people["Countess"]) == merge
    assert everything(session) == before


def test_random_merges_are_undone_in_the_reverse_order(session: Session) -> None:
    order = random.Random(7)
    publish_texts(session, "a", [f"text {number}" for number in range(12)])
    for chunk_id in current_chunks(session, "a").values():
        some = [f"person {number}" for number in order.sample(range(8), 4)]
        record(session, chunk_id, *some, said=[knows(*order.sample(some, 2)) for _ in range(5)])
    session.execute(
        sa.text("UPDATE rag_entities SET is_imported = true WHERE name IN ('person 1', 'person 2')")
    )
    session.execute(
        sa.text("UPDATE rag_relations SET is_imported = true WHERE weight = 1 AND id::text < '8'")
    )
    states, merged = [everything(session)], []
    living = [*ids(session).values()]
    for _ in range(5):
        keep, other = order.sample(living, 2)
        living.remove(other)
        merge_entities(session, keep, other)
        assert_sound(session)
        merged.append(other)
        states.append(everything(session))
    for other in reversed(merged):
        assert everything(session) == states.pop()
        undo_merge(session, other)
        assert_sound(session)
    assert everything(session) == states.pop()


def test_later_extractions_of_a_merged_name_are_of_the_kept_entity(
    session: Session, people: dict[str, UUID]
) -> None:
    merge_entities(session, people["Ada"], people["Countess"])
    publish_texts(session, "b", ["more", "and more"])
    more, and_more = current_chunks(session, "b").values()
    assert record(session, more, "countess").entity_ids == (people["Ada"],)
    assert record(session, and_more, "lady l").entity_ids == (people["Ada"],)
    merge_entities(session, people["Bob"], people["Ada"])
    assert record(session, more, "Countess", by="x2").entity_ids == (people["Bob"],)
    undo_merge(session, people["Ada"])
    assert record(session, more, "Countess", by="x3").entity_ids == (people["Ada"],)
    undo_merge(session, people["Countess"])
    assert record(session, more, "Lady L", by="x4").entity_ids == (people["Countess"],)


def test_a_mention_that_was_moved_goes_back_whoever_has_read_it_again(
    session: Session, people: dict[str, UUID]
) -> None:
    chunk = current_chunks(session, "a")["two"]
    merge_entities(session, people["Ada"], people["Countess"])
    record(session, chunk, "Ada", by="x2")
    undo_merge(session, people["Countess"])
    mentioned = sa.text(
        "SELECT e.name FROM rag_entity_mentions m JOIN rag_entities e ON e.id = m.entity_id"
        " WHERE m.chunk_id = :chunk AND e.name IN ('Ada', 'Countess')"
    )
    assert session.scalars(mentioned, {"chunk": chunk}).all() == ["Countess"]


def test_what_was_imported_stays_so(session: Session) -> None:
    publish_texts(session, "a", ["one"])
    record(session, current_chunks(session, "a")["one"], "Ada")
    session.execute(
        sa.text(
            "INSERT INTO rag_entities (entity_type, name, is_current, is_imported)"
            " VALUES ('person', 'Countess', true, true), ('person', 'Bob', true, true)"
        )
    )
    session.execute(
        sa.text(
            "INSERT INTO rag_relations (source_id, relation_type, target_id, is_current, is_imported)"
            " SELECT s.id, 'knows', t.id, true, true FROM rag_entities s, rag_entities t"
            " WHERE s.name = 'Countess' AND t.name = 'Bob'"
        )
    )
    before = everything(session)
    people = ids(session)
    merge_entities(session, people["Ada"], people["Countess"])
    assert relations(session) == {("Ada", "Bob")}
    undo_merge(session, people["Countess"])
    assert everything(session) == before
    merge_entities(session, people["Ada"], people["Countess"])
    purge_document(session, "a")
    assert (names(session), relations(session)) == ({"Ada", "Bob"}, {("Ada", "Bob")})


def test_a_purge_takes_a_merged_name_that_only_its_document_said(session: Session) -> None:
    publish_texts(session, "a", ["one"])
    publish_texts(session, "b", ["two"])
    record(session, current_chunks(session, "a")["one"], "Ada", "Countess", "Cy")
    record(session, current_chunks(session, "b")["two"], "Ada", "Cy")
    people = ids(session)
    merge_entities(session, people["Ada"], people["Countess"], people["Cy"])
    purge_document(session, "a")
    assert {*ids(session)} == {"Ada", "Cy"}
    undo_merge(session, people["Cy"])
    assert names(session) == {"Ada", "Cy"}
    with pytest.raises(GraphError, match="was not merged"):
        undo_merge(session, people["Countess"])


def test_a_purge_takes_what_only_its_document_said_of_a_merged_entity(session: Session) -> None:
    """Also where another document mentions that entity, so that its name stays."""
    for article in ("a", "b"):
        publish_texts(session, article, [f"text of {article}"])
    chunk_a, chunk_b = (current_chunks(session, article)[f"text of {article}"] for article in ("a", "b"))
    secret = NewRelation(("person", "Countess"), "knows", ("person", "Bob"), description="A secret")
    shared = NewRelation(("person", "Countess"), "knows", ("person", "Cy"), description="No secret")
    people = [person(name) for name in ("Ada", "Countess", "Bob", "Cy")]
    record_extraction(session, chunk_a, "x1", people, [secret, shared])
    record_extraction(session, chunk_b, "x1", people, [shared])
    found = ids(session)
    merge_entities(session, found["Ada"], found["Countess"])
    purge_document(session, "a")
    said = "SELECT DISTINCT description FROM rag_relations"
    assert session.execute(sa.text(said)).scalars().all() == ["No secret"]
    undo_merge(session, found["Countess"])
    assert relations(session) == {("Countess", "Cy")}


def test_what_cannot_be_merged_is_refused(session: Session, people: dict[str, UUID]) -> None:
    ada, bob, countess = (people[name] for name in ("Ada", "Bob", "Countess"))
    for others in ((), (ada,), (bob, bob)):
        with pytest.raises(GraphError, match="not so many different ones"):
            merge_entities(session, ada, *others)
    with pytest.raises(UnknownEntity, match="There is no entity"):
        merge_entities(session, ada, uuid4())
    merge_entities(session, ada, countess)
    for keep, other in ((bob, countess), (countess, bob)):
        with pytest.raises(GraphError, match=f"{countess} was merged into {ada} before"):
            merge_entities(session, keep, other)
    merge_entities(session, bob, ada)
    with pytest.raises(GraphError, match="Undo that merge first") as refused:
        undo_merge(session, countess)
    assert str(ada) in refused.value.message


def test_merges_race_recording(engine: sa.Engine) -> None:
    """Whoever comes first, and whoever is ended by a deadlock: no mention is lost, and no merged entity is current."""
    everybody = [f"person {number}" for number in range(8)]
    with Session(engine) as session, session.begin():
        publish_texts(session, "a", [f"text {number}" for number in range(30)])
        chunks = [*current_chunks(session, "a").values()]
    barrier = Barrier(3)

    def extract(worker: int) -> None:
        order = random.Random(worker)
        barrier.wait()
        for chunk_id in chunks:
            some = order.sample(everybody, 4)
            while True:
                try:
                    with Session(engine) as session, session.begin():
                        done = record(session, chunk_id, *some, said=[knows(*some[:2])], by=f"x{worker}")
                    break
                except DBAPIError as exc:
                    if not isinstance(exc.orig, psycopg.errors.DeadlockDetected):
                        raise
            assert done.is_new

    def merge() -> None:
        order = random.Random(9)
        barrier.wait()
        for _ in range(20):
            with Session(engine) as session:
                living = [
                    *session.execute(
                        sa.text("SELECT id FROM rag_entities WHERE merged_into IS NULL")
                    ).scalars()
                ]
                merged = [*session.execute(sa.text("SELECT merged_id FROM rag_entity_merges")).scalars()]
                session.rollback()
                try:
                    if merged and (order.random() < 0.5 or len(living) < 3):
                        undo_merge(session, order.choice(merged))
                    elif len(living) > 1:
                        merge_entities(session, *order.sample(living, 2))
                    session.commit()
                except (GraphError, DBAPIError):
                    session.rollback()

    in_parallel(lambda: extract(1), lambda: extract(2), merge)
    with Session(engine) as session:
        assert session.scalar(sa.text("SELECT count(*) FROM rag_extractions")) == 60
        unread = (
            "SELECT count(*) FROM rag_extractions x WHERE NOT EXISTS"
            " (SELECT FROM rag_entity_mentions m WHERE m.chunk_id = x.chunk_id)"
        )
        assert session.scalar(sa.text(unread)) == 0


def test_entities_of_other_types_are_merged_too(session: Session) -> None:
    publish_texts(session, "a", ["one"])
    chunk_id = current_chunks(session, "a")["one"]
    done = record_extraction(
        session,
        chunk_id,
        "x",
        [NewEntity("company", "Apple"), NewEntity("brand", "apple")],
        [NewRelation(("brand", "Apple"), "made_in", ("place", "Cork"))],
    )
    merge_entities(session, *done.entity_ids)
    [again] = record_extraction(session, chunk_id, "y", [NewEntity("brand", "APPLE")]).entity_ids
    assert again == done.entity_ids[0]
    assert relations(session) == {("Apple", "Cork")}
    assert names(session) == {"Apple", "Cork"}
