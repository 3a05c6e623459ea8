"""Ingesting: plan, embed outside any transaction, publish, and again where somebody else was faster."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from publishing import NAMES, assert_consistent, embed, make_plan, publishing_database, read_current
from ragschema import (
    BulkDocument,
    EmbeddingError,
    aio,
    ingest,
    ingest_async,
    ingest_many,
    pending_embeddings,
    plan_version,
    publish,
    purge_document,
    skip_embeddings,
    store_embeddings,
)
from ragschema.database.settings import Database
from ragschema.publishing import ContentError, PublishingError, StalePlan

shared = publishing_database


@pytest.fixture(scope="module")
def engine(shared: Database) -> Iterator[sa.Engine]:
    engine = sa.create_engine(shared.url(), pool_size=20)
    yield engine
    engine.dispose()


@pytest.fixture
def sessions(engine: sa.Engine) -> Iterator[sessionmaker[Session]]:
    sessions = sessionmaker(engine)
    yield sessions
    with sessions() as session:
        assert_consistent(session)


class Model:
    """An embedding model that counts, and sees whether a connection is held meanwhile."""

    def __init__(self, engine: sa.Engine | None = None) -> None:
        self.engine = engine
        self.embedded: list[str] = []

    def __call__(self, texts: list[str]) -> Any:
        if self.engine is not None:
            assert self.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
        self.embedded += texts
        return [embed(text) for text in texts]


def version(*contents: str, **changes: str) -> dict[str, Any]:
    return {"source_hash": str(hash(contents)), **NAMES, **changes}


def test_only_what_is_new_is_embedded_and_in_no_transaction(
    engine: sa.Engine, sessions: sessionmaker[Session]
) -> None:
    article, model = str(uuid4()), Model(engine)
    assert ingest(sessions, article, ["a", "b"], model, **version("a", "b")).added == 2
    second = ingest(sessions, article, ["a", "c"], model, **version("a", "c"))
    assert (second.version_number, second.unchanged, second.updated) == (2, 1, 1)
    assert not ingest(sessions, article, ["a", "c"], model, **version("a", "c")).is_new
    assert model.embedded == ["a", "b", "c"]
    ingest(sessions, article, [], model, **version())
    with sessions() as session:
        assert read_current(session, article) == []


def test_twelve_writers_of_one_document_all_end(sessions: sessionmaker[Session]) -> None:
    article, models = str(uuid4()), [Model() for _ in range(12)]

    def write(number: int) -> int:
        contents = ["shared", f"of {number}"]
        return ingest(sessions, article, contents, models[number], **version(*contents)).version_number

    with ThreadPoolExecutor(12) as pool:
        assert sorted(pool.map(write, range(12))) == list(range(1, 13))
    for number, model in enumerate(models):
        assert len(model.embedded) == len(set(model.embedded)), f"writer {number} embedded a text twice"


def test_twelve_writers_of_one_document_all_end_async(
    shared: Database, sessions: sessionmaker[Session]
) -> None:
    article = str(uuid4())

    async def embed_async(texts: list[str]) -> Any:
        await asyncio.sleep(0)
        return [embed(text) for text in texts]

    async def main() -> list[int]:
        engine = create_async_engine(shared.url(), pool_size=12)
        made: async_sessionmaker[AsyncSession] = async_sessionmaker(engine)
        versions = await asyncio.gather(
            *(
                ingest_async(made, article, ["shared", str(n)], embed_async, **version("shared", str(n)))
                for n in range(12)
            )
        )
        with pytest.raises(EmbeddingError, match="not an awaitable"):
            await ingest_async(made, article, ["sync"], Model(), **version("sync"))
        async with made.begin() as session:
            assert (await aio.retire_document(session, article)).deleted == 2
        await engine.dispose()
        return sorted(each.version_number for each in versions)

    assert asyncio.run(main()) == list(range(1, 13))


@pytest.mark.parametrize("isolation", ["REPEATABLE READ", "SERIALIZABLE"])
def test_writers_under_another_isolation_all_end(
    shared: Database, sessions: sessionmaker[Session], isolation: Any
) -> None:
    engine = sa.create_engine(shared.url(), isolation_level=isolation, pool_size=6)
    article, made = str(uuid4()), sessionmaker(engine)

    def write(number: int) -> int:
        return ingest(made, article, [str(number)], Model(), **version(str(number))).version_number

    with ThreadPoolExecutor(6) as pool:
        assert sorted(pool.map(write, range(6))) == list(range(1, 7))
    engine.dispose()


async def coroutine(texts: list[str]) -> Any:
    return [embed(text) for text in texts]


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (coroutine, "an awaitable"),
        (lambda texts: [embed("a")] * (len(texts) + 1), "2 embeddings for 1 text"),
        (lambda texts: "ab", "one str, not several"),
        (lambda texts: dict.fromkeys(texts, embed("a")), "the order of its values counts"),
        (lambda texts: [np.zeros(768)], "is zero"),
    ],
)
def test_what_the_model_returns_is_looked_at(sessions: sessionmaker[Session], model: Any, said: str) -> None:
    with pytest.raises(EmbeddingError, match=said):
        ingest(sessions, str(uuid4()), ["a"], model, **version("a"))


def sorting(texts: list[str]) -> Any:
    """Batches by length, and returns in the order that it was given."""
    given = [*texts]
    texts.sort(key=len)
    by_text = {text: embed(text) for text in texts}
    return [by_text[text] for text in given]


def emptying(texts: list[str]) -> Any:
    embedded = []
    while texts:
        embedded.append(embed(texts.pop(0)))
    return embedded


def prefixing(texts: list[str]) -> Any:
    given = [*texts]
    texts[:] = [f"passage: {text}" for text in texts]
    return [embed(text) for text in given]


def yielding_one_array(texts: list[str]) -> Iterator[Any]:
    buffer = np.empty(768, np.float32)
    for text in texts:
        buffer[:] = embed(text)
        yield buffer


@pytest.mark.parametrize("model", [sorting, emptying, prefixing, yielding_one_array])
def test_whatever_the_model_does_with_its_texts_each_gets_its_own_embedding(
    shared: Database, sessions: sessionmaker[Session], model: Any
) -> None:
    texts = ["ccc", "a", "bb"]
    articles = [str(uuid4()) for _ in range(3)]

    async def wait(texts: list[str]) -> Any:
        return model(texts)

    async def main() -> None:
        engine = create_async_engine(shared.url())
        await ingest_async(async_sessionmaker(engine), articles[1], texts, wait, **version(*texts))
        await engine.dispose()

    ingest(sessions, articles[0], texts, model, **version(*texts))
    asyncio.run(main())
    ingest_many(sessions, [new(articles[2], *texts)], model)
    with sessions() as session:
        for article in articles:
            for row in read_current(session, article):
                stored = np.array(row.embedding[1:-1].split(","), np.float32)
                np.testing.assert_allclose(stored, embed(row.content), atol=1e-6)


def test_a_model_that_returns_the_same_array_with_each_call_is_read_at_once(
    sessions: sessionmaker[Session],
) -> None:
    """When a plan is stale what it embedded before waits beside what it embeds then."""
    article, buffer = str(uuid4()), np.empty((3, 768), np.float32)
    calls: list[list[str]] = []

    def reuse(texts: list[str]) -> Any:
        calls.append(texts)
        buffer[: len(texts)] = [embed(text) for text in texts]
        if len(calls) == 1:
            with sessions.begin() as session:  # so that "c" is to be embedded too
                purge_document(session, article)
        return buffer[: len(texts)]

    with sessions.begin() as session:
        publish(session, make_plan(session, article, ["c"]), [embed("c")])
    ingest(sessions, article, ["a", "b", "c"], reuse, **version("a", "b", "c"))
    assert calls == [["a", "b"], ["c"]]
    with sessions() as session:
        for row in read_current(session, article):
            stored = np.array(row.embedding[1:-1].split(","), np.float32)
            np.testing.assert_allclose(stored, embed(row.content), atol=1e-6)


def test_nothing_is_embedded_for_sessions_that_publish_nothing(
    shared: Database, sessions: sessionmaker[Session]
) -> None:
    engine = sa.create_engine(shared.url(), isolation_level="AUTOCOMMIT")
    model = Model()
    with pytest.raises(PublishingError, match=r"ingest takes several statements.*autocommit"):
        ingest(sessionmaker(engine), str(uuid4()), ["a"], model, **version("a"))
    with pytest.raises(PublishingError, match=r"ingest_many takes several statements.*autocommit"):
        ingest_many(sessionmaker(engine), [new(str(uuid4()), "a")], model)
    engine.dispose()

    async def main() -> None:
        engine = create_async_engine(shared.url(), isolation_level="AUTOCOMMIT")
        with pytest.raises(PublishingError, match=r"ingest_async takes several statements.*autocommit"):
            await ingest_async(async_sessionmaker(engine), str(uuid4()), ["a"], coroutine, **version("a"))
        await engine.dispose()

    asyncio.run(main())
    assert model.embedded == []


def test_what_is_no_factory_of_sessions_is_refused_before_anything_is_embedded(engine: sa.Engine) -> None:
    model = Model()
    made = sessionmaker(engine)
    wrong: list[Any] = [scoped_session(made), made(), engine, async_sessionmaker(), None]
    for sessions in wrong:
        with pytest.raises(PublishingError, match="not a factory of sessions"):
            ingest(sessions, str(uuid4()), ["a"], model, **version("a"))
        with pytest.raises(PublishingError, match="not a factory of sessions"):
            ingest_many(sessions, [new(str(uuid4()), "a")], model)
    wrong[-2] = made
    for sessions in wrong:
        with pytest.raises(PublishingError, match="not a factory of sessions"):
            asyncio.run(ingest_async(sessions, str(uuid4()), ["a"], coroutine, **version("a")))
    assert model.embedded == []


@pytest.mark.parametrize("refuse", [lambda text: True, lambda text: [text], coroutine])
def test_a_rule_that_gives_no_reason_is_refused(sessions: sessionmaker[Session], refuse: Any) -> None:
    with pytest.raises(ContentError, match=r"The rule refuse returned .*, neither a reason nor None"):
        ingest(sessions, str(uuid4()), ["a"], Model(), refuse=refuse, **version("a"))
    for accepting in (lambda text: not text and "is empty", lambda text: ""):
        ingest(sessions, str(uuid4()), ["a"], Model(), refuse=accepting, **version("a"))  # type: ignore[arg-type]


def test_a_text_that_the_rule_refuses_is_refused_before_it_is_embedded(
    sessions: sessionmaker[Session],
) -> None:
    model = Model()
    with pytest.raises(ContentError, match=r"chunk 1 .* is blank"):
        ingest(
            sessions,
            str(uuid4()),
            ["a", " "],
            model,
            refuse=lambda text: None if text.strip() else "is blank",
            **version("a"),
        )
    assert model.embedded == []


def new(article_id: str, *contents: str, **changes: Any) -> BulkDocument:
    return BulkDocument(article_id, contents, None, **{**version(*contents), **changes})


def test_many_are_embedded_together_once_and_what_cannot_be_is_reported(
    sessions: sessionmaker[Session],
) -> None:
    one, two, three, four = (str(uuid4()) for _ in range(4))
    model = Model()

    def choosy(texts: list[str]) -> list[Any]:
        pairs = zip(texts, model(texts), strict=True)
        return [np.full(768, np.nan) if text == "bad" else vector for text, vector in pairs]

    given = [
        new(one, "a", "b"),
        new(two, "a", "bad"),
        new(three, "nul \0"),
        new(four, "x", text_config="klingon"),
        new(one, "a", "c"),
    ]
    seen: list[int] = []
    done = ingest_many(
        sessions,
        given,
        choosy,
        on_error="skip",
        batch_size=100,
        progress=lambda so_far: seen.append(so_far.published),
    )
    assert (done.published, done.up_to_date, seen) == (2, 0, [1, 2])
    assert {failure.article_id for failure in done.failures} == {two, three, four}
    reasons = {failure.article_id: str(failure.error) for failure in done.failures}
    assert f"Chunk 1 of article '{two}'" in reasons[two]
    assert "NUL" in reasons[three]
    assert "klingon" in reasons[four]
    assert model.embedded == ["a", "b", "bad", "c"]
    again = ingest_many(sessions, given[:1] + given[4:], choosy)
    assert (again.published, again.up_to_date) == (2, 0)  # "a", "b" once more, then "a", "c"
    with pytest.raises(EmbeddingError, match=f"Chunk 1 of article '{two}'"):
        ingest_many(sessions, given[1:2], choosy)


def test_a_plan_that_is_stale_in_a_batch_is_made_anew(sessions: sessionmaker[Session]) -> None:
    article, model = str(uuid4()), Model()

    def overtaken(texts: list[str]) -> Any:
        if not model.embedded:
            with sessions.begin() as session:
                publish(session, make_plan(session, article, ["other"]), [embed("other")])
        return model(texts)

    done = ingest_many(sessions, [new(article, "mine")], overtaken)
    assert (done.published, model.embedded) == (1, ["mine"])


# Embeddings that come later


def test_embeddings_are_stored_row_by_row(sessions: sessionmaker[Session]) -> None:
    article = str(uuid4())
    with sessions.begin() as session:
        publish(session, make_plan(session, article, ["a", "b", "c"]), [None, None, embed("c")])
        ids = {row.content: row.id for row in read_current(session, article)}
        gone = uuid4()
        result = store_embeddings(
            session,
            [ids["a"], ids["b"], ids["c"], gone],
            [embed("a"), np.full(768, np.nan), embed("z"), embed("g")],
        )
        assert (result.stored, result.kept, result.gone) == ((ids["a"],), (ids["c"],), (gone,))
        assert "nan" in result.refused[ids["b"]]
        embedded = {row.content: row.embedding is not None for row in read_current(session, article)}
        assert embedded == {"a": True, "b": False, "c": True}
        with pytest.raises(EmbeddingError, match="1 chunk cannot have 2 embeddings"):
            store_embeddings(session, [gone], [embed("a"), embed("b")])


def test_what_cannot_be_embedded_blocks_nobody(sessions: sessionmaker[Session]) -> None:
    article = str(uuid4())
    with sessions.begin() as session:
        publish(session, make_plan(session, article, list("abcde")), [None] * 5)
        mine = {row.id: row.content for row in read_current(session, article)}
        pages, after = [], None
        while page := session.execute(pending_embeddings(limit=2, after=after)).all():
            pages += [row.chunk_id for row in page if row.chunk_id in mine]
            after = page[-1].chunk_id
        assert sorted(pages) == sorted(mine)
        bad = next(chunk_id for chunk_id, content in mine.items() if content == "c")
        assert skip_embeddings(session, {bad: "no words in it", uuid4(): "gone"}) == 1
        waiting = {row.chunk_id for row in session.execute(pending_embeddings(limit=1000))}
        assert waiting & set(mine) == set(mine) - {bad}
        plan = make_plan(session, article, list("abcde"), include_pending=True)
        assert sorted(plan.texts_to_embed) == ["a", "b", "d", "e"]
        assert store_embeddings(session, [bad], [embed("c")]).stored == (bad,)
        reason = sa.text("SELECT embedding_error FROM rag_chunks WHERE id = :id")
        assert session.scalar(reason, {"id": bad}) is None
        assert session.execute(pending_embeddings(after=uuid4())).first() is not None


def test_somebody_who_is_always_overtaken_is_told_at_last(
    sessions: sessionmaker[Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ragschema.publishing.ingesting.ATTEMPTS", 3)
    article, plans = str(uuid4()), []

    def overtaken(session: Session, *arguments: Any, **named: Any) -> Any:
        plans.append(plan_version(session, *arguments, **named))
        with sessions.begin() as other:
            text = str(uuid4())
            publish(other, make_plan(other, article, [text]), [embed(text)])
        return plans[-1]

    monkeypatch.setattr("ragschema.publishing.ingesting.plan_version", overtaken)
    with pytest.raises(StalePlan, match="has moved on"):
        ingest(sessions, article, ["mine"], Model(), **version("mine"))
    assert len(plans) == 3
