"""Publishing: nothing is embedded twice, history is kept, is_current is right with triggers and without."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest
import sqlalchemy as sa
from sqlalchemy import event, func, select
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from conftest import made_database, make_engine
from publishing import (
    assert_consistent,
    drop_triggers,
    embed,
    make_plan,
    over_asyncpg,
    publish_texts,
    publishing_database,
    read_current,
    read_events,
)
from ragschema import aio, nearest_chunks
from ragschema.database.settings import Database
from ragschema.embeddings.column_type import EmbeddingError
from ragschema.models import Chunk, ChunkEvent, Document, DocumentVersion
from ragschema.publishing import (
    ContentError,
    PublishingError,
    StalePlan,
    UnknownDocument,
    activate_version,
    prune_versions,
    publish,
    purge_document,
    retire_document,
)
from ragschema.publishing.diff import match_contents, pair_left_over
from ragschema.publishing.texts import ARTICLE_ID_BYTES
from ragschema.schema.ids import uuid7, uuid7_bytes, uuid7s
from ragschema.schema.row_rules import broken_documents

database = publishing_database
engine = pytest.fixture(scope="module")(make_engine)


@pytest.fixture
def session(engine: sa.Engine) -> Iterator[Session]:
    """A session on a database whose documents are consistent at the end of each test."""
    with Session(engine) as session:
        yield session
    with engine.connect() as connection:
        assert_consistent(connection)


def found(session: Session, article_id: str) -> list[str]:
    return [row.content for row in read_current(session, article_id)]


# The diff


def test_matches_keep_order_and_count_repetitions() -> None:
    assert match_contents("abc", "abc") == [0, 1, 2]
    assert match_contents("tat", "at") == [1, 2]
    assert match_contents("abcd", "bcda") == [1, 2, 3, 0]
    assert match_contents("aab", "aaab") == [0, 1, None, 2]
    assert match_contents("", "ab") == [None, None]
    assert match_contents("ab", "") == []


@pytest.mark.parametrize("seed", range(20))
def test_as_many_identical_texts_are_matched_as_both_sides_have(seed: int) -> None:
    rng = random.Random(seed)
    old, new = ("".join(rng.choices("abcdefgh", k=rng.randrange(30))) for _ in range(2))
    matches = match_contents(old, new)
    matched = [(old[i], new[j]) for j, i in enumerate(matches) if i is not None]
    assert all(a == b for a, b in matched)
    assert Counter(a for a, _ in matched) == Counter(old) & Counter(new)
    used = [match for match in matches if match is not None]
    assert len(used) == len(set(used))


def test_an_insertion_moves_nothing_out_of_order() -> None:
    old = [str(number) for number in range(2000)]
    new = [*old[:700], "new", *old[700:1500], *old[1501:]]
    matches = match_contents(old, new)
    kept = [match for match in matches if match is not None]
    assert kept == sorted(kept)
    assert len(kept) == 1999


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("abc", "axc", {1: 1}),
        ("abc", "naxc", {2: 1}),
        ("abcd", "axd", {1: 1}),
        ("abcd", "axyzd", {1: 1, 2: 2}),
        ("abcde", "bxde", {1: 2}),
        ("ab", "ba", {}),
        ("ab", "xyz", {0: 0, 1: 1}),
        ("abc", "abc", {}),
    ],
)
def test_a_left_over_pair_stands_between_the_same_chunks(
    old: str, new: str, expected: dict[int, int]
) -> None:
    assert pair_left_over(match_contents(old, new), len(old)) == expected


# Planning


def test_a_plan_of_a_new_document_embeds_each_text_once(session: Session, article: str) -> None:
    plan = make_plan(session, article, ["a", "b", "a"])
    assert (plan.document_id, plan.base_version_id, plan.base_version_number) == (None, None, 0)
    assert plan.texts_to_embed == ("a", "b")
    assert plan.contents == ("a", "b", "a")
    assert not plan.is_up_to_date
    assert session.scalar(select(func.count()).where(Document.article_id == article)) == 0


def test_a_plan_says_what_is_reused_and_from_where(session: Session, article: str) -> None:
    publish_texts(session, article, ["a", "b", "c"])
    publish_texts(session, article, ["a", "x", "c"])
    plan = make_plan(session, article, ["c", "b", "new", "a", "a"])
    assert plan.base_version_number == 2
    assert plan.texts_to_embed == ("new",)
    reused = [(place.content, place.version_number, place.chunk_id is not None) for place in plan.places]
    assert reused == [("c", 1, True), ("b", 1, True), ("new", None, False), ("a", 1, True), ("a", 1, False)]
    assert [place.event_type for place in plan.places] == [
        "unchanged", "updated", "added", "unchanged", "added",
    ]  # fmt: skip
    assert plan.gone == ()  # x is what b updated


def test_the_same_text_again_is_up_to_date(session: Session, article: str) -> None:
    first = publish_texts(session, article, ["a", "b"], title="t", url="u")
    plan = make_plan(session, article, ["a", "b"], title="t", url="u")
    assert plan.is_up_to_date
    again = publish(session, plan)
    assert (again.id, again.version_number, again.is_new) == (first.id, 1, False)
    assert session.scalar(select(func.count()).where(DocumentVersion.document_id == first.document_id)) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"title": "other"},
        {"url": "other"},
        {"source_hash": "other"},
        {"chunker_version": "c2"},
        {"embedder_version": "e2"},
    ],
)
def test_whatever_else_changes_is_a_new_version(
    session: Session, article: str, change: dict[str, str]
) -> None:
    publish_texts(session, article, ["a", "b"], title="t", url="u")
    plan = make_plan(session, article, ["a", "b"], **{"title": "t", "url": "u", **change})
    assert not plan.is_up_to_date
    assert plan.texts_to_embed == (("a", "b") if "embedder_version" in change else ())


def test_another_embedder_reuses_nothing_until_it_comes_back(session: Session, article: str) -> None:
    publish_texts(session, article, ["a", "b"])
    second = publish_texts(session, article, ["a", "b"], embedder_version="e2")
    assert (second.updated, second.unchanged, second.deleted) == (2, 0, 0)
    assert {row.version_id for row in read_current(session, article)} == {second.id}
    plan = make_plan(session, article, ["a", "b"])
    assert plan.texts_to_embed == ()
    third = publish(session, plan)
    assert third.updated == 2
    assert {row.version_id for row in read_current(session, article)} != {second.id}
    session.commit()


@pytest.mark.parametrize("text", ["nul \0 byte", "half \ud800 pair", b"bytes"])
def test_a_text_that_cannot_be_stored_is_named_by_its_place(
    session: Session, article: str, text: Any
) -> None:
    with pytest.raises(ContentError, match=f"chunk 3 of article '{article}'"):
        make_plan(session, article, ["a", "b", "c", text], source_hash="h")
    assert not session.in_transaction()


@pytest.mark.parametrize(
    "name", ["source_hash", "chunker_version", "embedder_version", "title", "url", "text_config"]
)
def test_a_name_that_cannot_be_stored_is_told(session: Session, article: str, name: str) -> None:
    with pytest.raises(ContentError, match=f"The {name} of article '{article}' holds a NUL byte"):
        make_plan(session, article, ["a"], **{name: "nul \0 byte"})
    with pytest.raises(
        ContentError, match=f"The {name} of article '{article}' is int, not str\\.\nPass a str"
    ):
        make_plan(session, article, ["a"], **{name: 1})
    with pytest.raises(ContentError, match="article_id holds a NUL byte"):
        make_plan(session, f"{article}\0", ["a"])


def test_what_publish_would_refuse_is_refused_before_anything_is_embedded(
    session: Session, article: str
) -> None:
    longest = article + "ü" * ((ARTICLE_ID_BYTES - len(article)) // 2)
    publish_texts(session, longest, ["a"])
    with pytest.raises(ContentError, match="its index takes 2,600"):
        make_plan(session, longest + "x", ["a"])
    with pytest.raises(ContentError, match="no text search configuration 'klingon'"):
        make_plan(session, article, ["a"], text_config="klingon")
    with pytest.raises(ContentError, match="no text search configuration"):
        make_plan(session, article, ["a"], text_config="a.b.c.d")
    session.execute(sa.text("SELECT 1"))  # the transaction goes on
    make_plan(session, article, ["a"], text_config="pg_catalog.english")
    with pytest.raises(ContentError, match=r"The text of chunk 1 of .* is empty"):
        make_plan(session, article, ["a", " "], refuse=lambda text: None if text.strip() else "is empty")


def test_a_document_without_text_is_a_state_as_any_other(session: Session, article: str) -> None:
    version = publish_texts(session, article, [])
    assert (version.is_new, version.version_number, read_current(session, article)) == (True, 1, [])
    assert make_plan(session, article, []).is_up_to_date
    assert publish_texts(session, article, ["a", "b"]).added == 2
    assert publish_texts(session, article, []).deleted == 2
    assert read_current(session, article) == []
    assert publish_texts(session, article, ["b"]).version_number == 4
    session.commit()
    assert_consistent(session)


# Publishing


def test_the_first_version_adds_every_chunk(session: Session, article: str) -> None:
    version = publish_texts(session, article, ["a", "b", "a"], title="t", url="u", text_config="english")
    session.commit()
    assert (version.version_number, version.added, version.is_new) == (1, 3, True)
    assert read_events(session, version.id) == [("added", 0, "a"), ("added", 1, "b"), ("added", 2, "a")]
    document = session.scalars(select(Document).where(Document.article_id == article)).one()
    assert document.current_version_id == version.id
    assert document.current_version is not None
    assert (document.current_version.title, document.current_version.url) == ("t", "u")
    assert [row.text_config for row in read_current(session, article)] == ["english"] * 3
    rows = session.scalars(select(Chunk).where(Chunk.version_id == version.id).order_by(Chunk.ordinal)).all()
    assert [row.ordinal for row in rows] == [0, 1, 2]
    for row in rows:
        np.testing.assert_array_equal(row.embedding, embed(row.content))
    assert {row.id.version for row in rows} == {7}


def test_unchanged_chunks_are_not_copied(session: Session, article: str) -> None:
    first = publish_texts(session, article, list("abcdefghij"))
    session.commit()
    second = publish_texts(session, article, list("abcdXfghij"))
    session.commit()
    assert (second.added, second.updated, second.unchanged, second.deleted) == (0, 1, 9, 0)
    new = session.scalars(select(Chunk).where(Chunk.version_id == second.id)).all()
    assert [(row.content, row.ordinal) for row in new] == [("X", 4)]
    assert found(session, article) == sorted("abcdXfghij")
    assert [content for _, _, content in read_events(session, second.id)] == list("abcdXfghij")
    assert [content for _, _, content in read_events(session, first.id)] == list("abcdefghij")


def test_deleted_chunks_keep_their_row_and_their_former_ordinal(session: Session, article: str) -> None:
    publish_texts(session, article, ["a", "b", "c", "d"])
    second = publish_texts(session, article, ["c", "a"])
    session.commit()
    assert read_events(session, second.id) == [
        ("unchanged", 0, "c"), ("unchanged", 1, "a"), ("deleted", 1, "b"), ("deleted", 3, "d"),
    ]  # fmt: skip
    assert (second.deleted, second.unchanged) == (2, 2)


def test_a_moved_chunk_is_unchanged_at_its_new_place(session: Session, article: str) -> None:
    first = publish_texts(session, article, ["a", "b", "c"])
    ids = {row.content: row.id for row in read_current(session, article)}
    second = publish_texts(session, article, ["b", "c", "a"])
    session.commit()
    assert (second.unchanged, second.version_number) == (3, first.version_number + 1)
    assert {row.content: row.id for row in read_current(session, article)} == ids


def test_a_copy_of_unchanged_chunks_gives_each_version_rows_of_its_own(
    session: Session, article: str
) -> None:
    publish_texts(session, article, ["a", "b", "c"])
    second = publish_texts(session, article, ["b", "X", "c", "a"], copy_unchanged=True)
    session.commit()
    rows = session.scalars(select(Chunk).where(Chunk.version_id == second.id).order_by(Chunk.ordinal)).all()
    assert [row.content for row in rows] == ["b", "X", "c", "a"]
    for row in rows:
        np.testing.assert_array_equal(row.embedding, embed(row.content))
    assert {row.id for row in read_current(session, article)} == {row.id for row in rows}
    assert read_events(session, second.id)[:4] == [
        ("unchanged", 0, "b"), ("added", 1, "X"), ("unchanged", 2, "c"), ("unchanged", 3, "a"),
    ]  # fmt: skip


def test_a_repeated_text_is_embedded_once_and_its_rows_stay_distinct(session: Session, article: str) -> None:
    publish_texts(session, article, ["a", "b"])
    plan = make_plan(session, article, ["a", "b", "a", "a"])
    assert plan.texts_to_embed == ()
    version = publish(session, plan)
    session.commit()
    rows = [row for row in read_current(session, article) if row.content == "a"]
    assert len({row.id for row in rows}) == 3
    assert len({row.embedding for row in rows}) == 1
    assert (version.unchanged, version.added) == (2, 2)


def test_embeddings_may_come_by_text(session: Session, article: str) -> None:
    plan = make_plan(session, article, ["a", "b"])
    publish(session, plan, {"b": embed("b").tolist(), "a": embed("a"), "more": "ignored"})
    rows = read_current(session, article)
    assert [row.embedding is not None for row in rows] == [True, True]
    for row in session.scalars(select(Chunk).where(Chunk.id.in_([row.id for row in rows]))):
        np.testing.assert_array_equal(row.embedding, embed(row.content))
    session.commit()


def test_embeddings_may_come_as_one_array(session: Session, article: str) -> None:
    plan = make_plan(session, article, ["a", "b"])
    publish(session, plan, np.array([embed("a"), embed("b")], np.float64))
    for row in session.scalars(select(Chunk).where(Chunk.is_current, Chunk.content == "b")):
        np.testing.assert_array_equal(row.embedding, embed("b"))
    session.commit()


@pytest.mark.parametrize(
    "embeddings",
    [
        [],
        [embed("a")],
        [embed("a")] * 3,
        {"a": embed("a")},
        [embed("a"), np.zeros(768)],
        [embed("a"), [1.0]],
        np.ones((2, 5)),
        np.full((2, 768), np.nan),
        np.zeros((2, 768)),
    ],
)
def test_wrong_embeddings_are_refused_before_anything_is_sent(
    session: Session, article: str, embeddings: Any
) -> None:
    plan = make_plan(session, article, ["a", "b"])
    session.rollback()
    with pytest.raises(EmbeddingError):
        publish(session, plan, embeddings)
    assert not session.in_transaction()


def test_an_embedding_may_come_later(session: Session, article: str) -> None:
    plan = make_plan(session, article, ["a", "b"])
    publish(session, plan, [None, embed("b")])
    session.commit()
    assert [row.embedding is None for row in read_current(session, article)] == [True, False]
    ids = {row.id for row in read_current(session, article)}
    plan = make_plan(session, article, ["a", "b", "c", "a"])
    assert plan.texts_to_embed == (
        "c",
        "a",
    )  # "a" for its second row; the first is somebody's to embed already
    texts = ["a", "b", "c"]
    plan = make_plan(session, article, texts)
    assert plan.texts_to_embed == ("c",)
    plan = make_plan(session, article, texts, include_pending=True)
    assert plan.texts_to_embed == ("a", "c")
    version = publish(session, plan, [embed("a"), embed("c")])
    session.commit()
    rows = read_current(session, article)
    assert (version.unchanged, version.embedded) == (2, 1)
    assert ids < {row.id for row in rows}
    for row in session.scalars(select(Chunk).where(Chunk.id.in_([row.id for row in rows]))):
        np.testing.assert_array_equal(row.embedding, embed(row.content))


def test_an_embedding_that_came_meanwhile_is_kept(session: Session, article: str) -> None:
    publish(session, make_plan(session, article, ["a"]), [None])
    plan = make_plan(session, article, ["a", "b"])
    session.execute(
        sa.update(Chunk).where(Chunk.content == "a", Chunk.is_current).values(embedding=embed("z"))
    )
    publish(session, plan, {"a": embed("a"), "b": embed("b")})
    (row,) = session.scalars(
        select(Chunk).where(
            Chunk.content == "a",
            Chunk.embedding.is_not(None),
            Chunk.is_current,
            Chunk.id == plan.places[0].chunk_id,
        )
    )
    np.testing.assert_array_equal(row.embedding, embed("z"))
    session.commit()


def test_nothing_of_the_callers_is_flushed_and_nothing_committed(session: Session, article: str) -> None:
    mine = Document(article_id=f"{article} of the caller")
    session.add(mine)
    publish_texts(session, article, ["a"])
    assert mine in session.new
    session.rollback()
    assert session.scalar(select(func.count()).where(Document.article_id == article)) == 0


def test_planning_and_publishing_take_four_statements(
    engine: sa.Engine, session: Session, article: str
) -> None:
    publish_texts(session, article, list("abcdefghij"))
    session.commit()
    statements: list[str] = []
    listener = lambda *given: statements.append(given[2])  # noqa: E731
    event.listen(engine, "before_cursor_execute", listener)
    try:
        publish_texts(session, article, list("abcdefghiX"))
        session.commit()
    finally:
        event.remove(engine, "before_cursor_execute", listener)
    assert len(statements) == 4


def test_updated_at_says_when(session: Session, article: str) -> None:
    publish_texts(session, article, ["a"])
    session.commit()
    document = session.scalars(select(Document).where(Document.article_id == article)).one()
    before = document.updated_at
    session.commit()
    publish_texts(session, article, ["b"])
    session.commit()
    assert document.updated_at is not None
    assert before is not None
    assert document.updated_at > before


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_async_sessions_publish(database: Database, session: Session, article: str, driver: str) -> None:
    async def publish_async() -> None:
        engine = create_async_engine(database.url() if driver == "psycopg" else over_asyncpg(database))
        async with AsyncSession(engine) as asynchronous, asynchronous.begin():
            plan = await asynchronous.run_sync(make_plan, article, ["a", "b"])
            await aio.publish(asynchronous, plan, [embed("a"), embed("b")])
        async with AsyncSession(engine) as asynchronous:
            hits = await asynchronous.execute(nearest_chunks(embed("b"), article_ids=[article]))
            assert [hit.content for hit in hits] == ["b", "a"]
        await engine.dispose()

    asyncio.run(publish_async())
    assert found(session, article) == ["a", "b"]


def test_an_engine_from_before_the_import_sends_embeddings_as_text(database: Database, article: str) -> None:
    engine = sa.create_engine(database.url())
    engine.dialect._psycopg_adapters_map = None  # type: ignore[attr-defined]
    with Session(engine) as session, session.begin():
        publish_texts(session, article, ["a"])
        (row,) = read_current(session, article)
        assert row.embedding == str(
            session.scalar(sa.text("SELECT CAST(:v AS vector)::text"), {"v": str(embed("a").tolist())})
        )
    engine.dispose()


def test_a_client_cursor_writes_embeddings_into_the_statement(database: Database, article: str) -> None:
    import psycopg

    engine = sa.create_engine(database.url(), connect_args={"cursor_factory": psycopg.ClientCursor})
    with Session(engine) as session, session.begin():
        publish_texts(session, article, ["a", "b"])
        publish_texts(session, article, ["a"])
        (row,) = session.scalars(
            select(Chunk)
            .where(Chunk.is_current, Chunk.content == "a")
            .order_by(Chunk.created_at.desc())
            .limit(1)
        )
        np.testing.assert_array_equal(row.embedding, embed("a"))
    engine.dispose()


# Stale plans


def test_a_plan_is_stale_when_another_version_was_published(session: Session, article: str) -> None:
    publish_texts(session, article, ["a"])
    plan = make_plan(session, article, ["b"])
    publish_texts(session, article, ["c"], source_hash="other")
    with pytest.raises(StalePlan, match="builds on version 1, and version 2 is current now") as stale:
        publish(session, plan, [embed("b")])
    assert "source_hash other" in stale.value.evidence
    session.commit()
    assert found(session, article) == ["c"]


def test_what_was_added_to_the_version_before_since_the_plan_is_hidden_with_it(
    session: Session, article: str
) -> None:
    before = publish_texts(session, article, ["a", "b"])
    plan = make_plan(session, article, ["a", "c"])
    session.execute(
        sa.text(
            "WITH c AS (INSERT INTO rag_chunks (version_id, ordinal, content, is_current)"
            " VALUES (:id, 2, 'late', true) RETURNING id)"
            " INSERT INTO rag_chunk_events (version_id, chunk_id, ordinal, event_type)"
            " SELECT :id, id, 2, 'added' FROM c"
        ),
        {"id": before.id},
    )
    assert found(session, article) == ["a", "b", "late"]
    publish(session, plan, [embed("c")])
    assert found(session, article) == ["a", "c"]
    assert [text for _, _, text in read_events(session, before.id)] == ["a", "b", "late"]
    session.commit()
    assert found(session, article) == ["a", "c"]


def test_a_plan_of_a_new_document_is_stale_when_somebody_made_it(session: Session, article: str) -> None:
    plan = make_plan(session, article, ["b"])
    publish_texts(session, article, ["a"])
    with pytest.raises(StalePlan, match="builds on no version, and version 1"):
        publish(session, plan, [embed("b")])
    session.commit()


def test_a_plan_is_stale_when_the_document_is_gone(session: Session, article: str) -> None:
    publish_texts(session, article, ["a"])
    plan = make_plan(session, article, ["b"])
    purge_document(session, article)
    with pytest.raises(StalePlan, match="the document is gone"):
        publish(session, plan, [embed("b")])
    publish_texts(session, article, ["a"])
    with pytest.raises(StalePlan, match="version 1 is current now"):
        publish(session, plan, [embed("b")])
    session.commit()


def test_an_up_to_date_plan_is_stale_too(session: Session, article: str) -> None:
    publish_texts(session, article, ["a"])
    plan = make_plan(session, article, ["a"])
    publish_texts(session, article, ["b"])
    with pytest.raises(StalePlan):
        publish(session, plan)
    session.commit()


def test_a_plan_is_stale_when_a_row_that_it_reuses_was_pruned(session: Session, article: str) -> None:
    publish_texts(session, article, ["a"])
    publish_texts(session, article, ["b"])
    session.commit()
    plan = make_plan(session, article, ["a"])
    session.commit()
    assert prune_versions(session, keep=1, article_ids=[article]).chunks == 1
    with pytest.raises(StalePlan, match="pruned"):
        publish(session, plan)
    session.commit()
    assert found(session, article) == ["b"]
    assert (
        session.scalar(
            select(func.count())
            .select_from(DocumentVersion)
            .join(Document, Document.id == DocumentVersion.document_id)
            .where(Document.article_id == article)
        )
        == 1
    )


# Activating, retiring, purging


def test_a_rollback_embeds_nothing_and_is_exact(session: Session, article: str) -> None:
    publish_texts(session, article, ["a", "b", "c"])
    publish_texts(session, article, ["a", "X", "c", "d"])
    session.commit()
    back = activate_version(session, article, 1)
    session.commit()
    assert (back.version_number, back.shown, back.hidden) == (1, 1, 2)
    assert found(session, article) == ["a", "b", "c"]
    forward = activate_version(session, article, 2)
    session.commit()
    assert (forward.shown, forward.hidden) == (2, 1)
    assert found(session, article) == ["X", "a", "c", "d"]
    same = activate_version(session, article, 2)
    assert (same.shown, same.hidden) == (0, 0)
    session.commit()


def test_a_version_after_a_rollback_builds_on_what_is_current(session: Session, article: str) -> None:
    publish_texts(session, article, ["a", "b"])
    publish_texts(session, article, ["x", "y"])
    activate_version(session, article, 1)
    plan = make_plan(session, article, ["a", "y"])
    assert (plan.base_version_number, plan.texts_to_embed) == (1, ())
    version = publish(session, plan)
    session.commit()
    assert (version.version_number, version.unchanged, version.updated) == (3, 1, 1)
    assert found(session, article) == ["a", "y"]


def test_an_unknown_version_says_which_are_kept(session: Session, article: str) -> None:
    publish_texts(session, article, ["a"])
    publish_texts(session, article, ["b"])
    with pytest.raises(UnknownDocument, match="Version 7") as unknown:
        activate_version(session, article, 7)
    assert unknown.value.evidence == "kept: 1, 2"
    session.commit()


@pytest.mark.parametrize("act", [retire_document, purge_document, lambda s, a: activate_version(s, a, 1)])
def test_an_unknown_article_is_an_error(session: Session, article: str, act: Any) -> None:
    with pytest.raises(UnknownDocument, match=article):
        act(session, article)


def test_a_retired_document_is_out_of_search_and_comes_back(session: Session, article: str) -> None:
    publish_texts(session, article, ["a", "b"], title="t")
    gone = retire_document(session, article)
    session.commit()
    assert (gone.version_number, gone.deleted) == (2, 2)
    assert found(session, article) == []
    assert read_events(session, gone.id) == [("deleted", 0, "a"), ("deleted", 1, "b")]
    again = retire_document(session, article)
    assert (again.id, again.is_new) == (gone.id, False)
    plan = make_plan(session, article, ["a", "b"], title="t")
    assert (plan.is_up_to_date, plan.texts_to_embed) == (False, ())
    publish(session, plan)
    session.commit()
    assert found(session, article) == ["a", "b"]
    activate_version(session, article, 2)
    session.commit()
    assert found(session, article) == []
    activate_version(session, article, 1)
    session.commit()
    assert found(session, article) == ["a", "b"]


def test_a_purge_leaves_nothing_of_the_document_and_all_of_the_others(session: Session, article: str) -> None:
    other = str(uuid4())
    publish_texts(session, other, ["a", "b"])
    publish_texts(session, article, ["a", "b"])
    version = publish_texts(session, article, ["a", "c"])
    session.commit()
    before = session.scalar(select(func.count()).select_from(ChunkEvent))
    purge = purge_document(session, article)
    session.commit()
    assert (purge.versions, purge.chunks, purge.events) == (2, 3, 4)
    assert session.scalar(select(func.count()).select_from(ChunkEvent)) == (before or 0) - 4
    assert session.get(Document, version.document_id) is None
    assert found(session, other) == ["a", "b"]


# Pruning


def add_history(session: Session, article: str) -> list[UUID]:
    """Publish five versions: 'a' is in all, 'b' in the first three, each has a text of its own."""
    ids = []
    for number in range(1, 6):
        texts = ["a", *(["b"] if number < 4 else []), f"own {number}"]
        ids.append(publish_texts(session, article, texts).id)
    session.commit()
    return ids


@pytest.mark.parametrize("copy_unchanged", [False, True])
def test_pruning_keeps_what_kept_versions_use(session: Session, article: str, copy_unchanged: bool) -> None:
    for number in range(1, 6):
        texts = ["a", *(["b"] if number < 4 else []), f"own {number}"]
        publish_texts(session, article, texts, copy_unchanged=copy_unchanged)
    session.commit()
    contents = {number: read_contents(session, article, number) for number in (3, 4, 5)}
    session.commit()
    expected = prune_versions(session, keep=3, article_ids=[article], dry_run=True)
    assert {number: read_contents(session, article, number) for number in (1, 3)} == {
        1: ["a", "b", "own 1"], 3: contents[3],
    }  # fmt: skip
    session.commit()
    assert prune_versions(session, keep=3, article_ids=[article]) == expected
    if not copy_unchanged:
        assert (expected.versions, expected.chunks, expected.rehomed, expected.events) == (2, 2, 2, 6)
    assert {number: read_contents(session, article, number) for number in (3, 4, 5)} == contents
    assert read_contents(session, article, 1) == []
    assert found(session, article) == ["a", "own 5"]
    for number in (3, 4, 5):
        activate_version(session, article, number)
        session.commit()
        assert found(session, article) == sorted(contents[number])
        assert_consistent(session)
        session.commit()


def read_contents(session: Session, article: str, number: int) -> list[str]:
    rows = session.scalars(
        select(Chunk.content)
        .join(ChunkEvent, ChunkEvent.chunk_id == Chunk.id)
        .join(DocumentVersion, DocumentVersion.id == ChunkEvent.version_id)
        .join(Document, Document.id == DocumentVersion.document_id)
        .where(
            Document.article_id == article,
            DocumentVersion.version_number == number,
            ChunkEvent.event_type != "deleted",
        )
        .order_by(ChunkEvent.ordinal)
    )
    return list(rows)


def test_chunks_are_given_to_the_newest_kept_version_that_uses_them(session: Session, article: str) -> None:
    publish_texts(session, article, ["a", "b"])
    second = publish_texts(session, article, ["x", "b", "a"])
    third = publish_texts(session, article, ["y", "a"])
    session.commit()
    pruned = prune_versions(session, keep=2, article_ids=[article])
    assert (pruned.documents, pruned.versions, pruned.rehomed, pruned.chunks) == (1, 1, 2, 0)
    homes = session.execute(
        sa.select(Chunk.version_id, Chunk.ordinal)
        .where(Chunk.version_id.in_([second.id, third.id]), Chunk.content.in_(["a", "b"]))
        .order_by(Chunk.content)
    ).all()
    assert homes == [(third.id, 1), (second.id, 1)]
    plan = make_plan(session, article, ["a", "b", "x"])
    assert plan.texts_to_embed == ()


def test_an_event_of_a_pruned_chunk_stays_and_loses_its_pointer(session: Session, article: str) -> None:
    publish_texts(session, article, ["a", "b"])
    second = publish_texts(session, article, ["a"])
    session.commit()
    prune_versions(session, keep=1, article_ids=[article])
    assert read_events(session, second.id) == [("unchanged", 0, "a"), ("deleted", 1, None)]


def test_the_current_version_is_never_pruned(session: Session, article: str) -> None:
    add_history(session, article)
    activate_version(session, article, 2)
    session.commit()
    pruned = prune_versions(session, keep=1, article_ids=[article])
    assert pruned.versions == 3
    assert read_contents(session, article, 2) == ["a", "b", "own 2"]
    assert read_contents(session, article, 5) == ["a", "own 5"]
    session.commit()
    assert prune_versions(session, keep=0, article_ids=[article]).versions == 1
    assert found(session, article) == ["a", "b", "own 2"]


def test_both_rules_must_hold(session: Session, article: str) -> None:
    add_history(session, article)
    now = datetime.now(UTC)
    assert prune_versions(session, before=now - timedelta(days=1), article_ids=[article]).versions == 0
    assert (
        prune_versions(session, keep=4, before=now + timedelta(days=1), article_ids=[article]).versions == 1
    )
    assert prune_versions(session, before=now + timedelta(days=1), article_ids=[article]).versions == 3


def test_pruning_goes_through_all_documents_in_batches(session: Session) -> None:
    articles = [str(uuid4()) for _ in range(5)]
    for article in articles:
        add_history(session, article)
    assert prune_versions(session, keep=3, article_ids=[], batch_size=2).versions == 0
    pruned = prune_versions(session, keep=3, article_ids=articles, batch_size=2)
    assert (pruned.documents, pruned.versions) == (5, 10)
    prune_versions(session, keep=1, batch_size=3)
    for article in articles:
        assert read_contents(session, article, 4) == []
        assert found(session, article) == ["a", "own 5"]
    session.rollback()
    assert prune_versions(session, keep=1).versions == 0


@pytest.mark.parametrize(
    "rule",
    [{}, {"keep": -1}, {"keep": 1, "batch_size": 0}, {"before": datetime(2020, 1, 1)}],
)
def test_an_unclear_rule_is_refused(session: Session, rule: dict[str, Any]) -> None:
    with pytest.raises(PublishingError):
        prune_versions(session, **rule)


def test_pruning_does_not_commit_what_is_the_callers(session: Session, article: str) -> None:
    session.add(Document(article_id=article))
    with pytest.raises(PublishingError, match="in a transaction"):
        prune_versions(session, keep=1)


# Rows of services that write their own SQL


def test_a_version_without_events_is_what_its_chunks_say(session: Session, article: str) -> None:
    write_version_without_events(session, article, ["a", "b", "c"])
    session.commit()
    plan = make_plan(session, article, ["a", "X", "c"])
    assert plan.texts_to_embed == ("X",)
    assert [place.event_type for place in plan.places] == ["unchanged", "updated", "unchanged"]
    second = publish(session, plan, [embed("X")])
    session.commit()
    assert found(session, article) == ["X", "a", "c"]
    activate_version(session, article, 1)
    session.commit()
    assert found(session, article) == ["a", "b", "c"]
    activate_version(session, article, 2)
    session.commit()
    prune_versions(session, keep=1, article_ids=[article])
    assert found(session, article) == ["X", "a", "c"]
    assert [content for _, _, content in read_events(session, second.id)] == ["a", "X", "c"]


def write_version_without_events(session: Session, article: str, contents: list[str]) -> None:
    """Write a version as a service may that knows nothing of events and is_current."""
    document = Document(id=uuid7(), article_id=article)
    version = DocumentVersion(
        id=uuid7(), document_id=document.id, version_number=1, source_hash="h",
        chunker_version="c1", embedder_version="e1",
    )  # fmt: skip
    session.add(document)
    session.flush()
    session.add(version)
    session.flush()
    session.add_all(
        Chunk(version_id=version.id, ordinal=ordinal, content=content, embedding=embed(content))
        for ordinal, content in enumerate(contents)
    )
    session.flush()
    document.current_version_id = version.id
    session.flush()
    session.execute(
        sa.update(Chunk).where(Chunk.version_id == version.id).values(is_current=True)
    )  # where there is no trigger


@pytest.fixture
def broken(server: Mapping[str, str], template: str) -> Iterator[Session]:
    with made_database(server, template) as database:
        drop_triggers(database)
        engine = sa.create_engine(database.url())
        with Session(engine) as session:
            yield session
        engine.dispose()


def test_broken_documents_are_named_with_what_is_wrong(broken: Session) -> None:
    for name in ("good", "hidden", "shown", "foreign", "worded"):
        publish_texts(broken, name, ["a"])
        publish_texts(broken, name, ["b"])
    of = {
        (row.article_id, row.content): row.id
        for row in broken.execute(
            sa.text(
                "SELECT d.article_id, c.content, c.id FROM rag_chunks c JOIN rag_document_versions v"
                " ON v.id = c.version_id JOIN rag_documents d ON d.id = v.document_id"
            )
        )
    }
    broken.execute(sa.update(Chunk).where(Chunk.id == of["hidden", "b"]).values(is_current=False))
    broken.execute(sa.update(Chunk).where(Chunk.id == of["shown", "a"]).values(is_current=True))
    broken.execute(sa.update(Chunk).where(Chunk.id == of["worded", "b"]).values(text_config="english"))
    broken.execute(
        sa.update(ChunkEvent)
        .where(ChunkEvent.chunk_id == of["foreign", "a"])
        .values(chunk_id=of["good", "a"])
    )
    found = [(row.article_id, row.problem, row.chunk_ids) for row in broken.execute(broken_documents())]
    assert found == [
        ("foreign", "of another document", [of["good", "a"]]),
        ("hidden", "wrongly not current", [of["hidden", "b"]]),
        ("shown", "wrongly current", [of["shown", "a"]]),
        ("worded", "other text configuration", [of["worded", "b"]]),
    ]
    assert broken.execute(broken_documents(["good", "hidden"])).scalars().all() == ["hidden"]


def test_publishing_heals_what_was_wrongly_marked(broken: Session) -> None:
    publish_texts(broken, "x", ["a", "b"])
    publish_texts(broken, "x", ["a", "c"])
    broken.execute(sa.update(Chunk).values(is_current=~Chunk.is_current, text_config="english"))
    publish_texts(broken, "x", ["a", "c", "d"])
    assert_consistent(broken)


# Ids


def test_ids_are_of_version_7_ascending_and_of_now() -> None:
    ids = [uuid7(), *uuid7s(10_000), uuid7()]
    assert ids == sorted(set(ids))
    assert {(id_.version, id_.variant) for id_ in ids} == {(7, "specified in RFC 4122")}
    seconds = (ids[0].int >> 80) / 1000
    assert abs(seconds - datetime.now(UTC).timestamp()) < 60
    assert uuid7_bytes(0).shape == (0, 16)


def test_threads_get_ids_of_their_own() -> None:
    with ThreadPoolExecutor(8) as threads:
        made = [id_ for ids in threads.map(lambda _: uuid7s(500), range(40)) for id_ in ids]
    assert len({id_.int >> 64 for id_ in made}) == len(made)  # by their time alone
