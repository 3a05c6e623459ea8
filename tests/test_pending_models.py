"""Embeddings that come later, of several models: listed page by page, stored row by row, and never stale in a race."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker

from conftest import made_database, make_engine
from model_tables import activate, add_model, drop_model, embed_by, register_column, wait_until_blocked
from publishing import assert_consistent, embed, make_plan, publish_texts, read_current
from ragschema import EmbeddingError, pending_embeddings, publish, skip_embeddings, store_embeddings
from ragschema.database.settings import Database
from ragschema.database.sqlstates import is_overtaken
from ragschema.models import EmbeddingModel
from ragschema.publishing import (
    StalePlan,
    StoredEmbeddings,
    activate_version,
    prune_versions,
    purge_document,
)

SIZE = 8
Change = Callable[[Session, str], object]


@pytest.fixture(scope="module")
def database(server: dict[str, str], template: str) -> Iterator[Database]:
    with made_database(server, template) as database:
        yield database


@pytest.fixture(scope="module")
def engine(database: Database) -> Iterator[sa.Engine]:
    for engine in make_engine(database):
        with Session(engine) as session, session.begin():
            register_column(session)
            add_model(session, "small", SIZE)
        yield engine


@pytest.fixture
def article() -> str:
    return str(uuid4())


def small(*texts: str) -> list[Any]:
    return [embed_by("small", SIZE, text) for text in texts]


def page_through(session: Session, ids: dict[str, UUID], **asked: Any) -> str:
    """Return what waits of these chunks, by their texts, of all pages of two; pages are in the order of ids."""
    found: list[UUID] = []
    while page := session.execute(
        pending_embeddings(limit=2, after=found[-1] if found else None, **asked)
    ).all():
        found += [row.chunk_id for row in page]
    assert found == sorted(set(found))
    return "".join(sorted(text for text, id_ in ids.items() if id_ in found))


def read_ids(session: Session, article: str) -> dict[str, UUID]:
    """Return the rows of a document's chunks, history included, by their text; of repeated ones the last."""
    rows = session.execute(
        sa.text(
            "SELECT c.content, c.id FROM rag_chunks c JOIN rag_document_versions v ON v.id = c.version_id"
            " JOIN rag_documents d ON d.id = v.document_id WHERE d.article_id = :article ORDER BY c.id"
        ),
        {"article": article},
    )
    return {row.content: row.id for row in rows}


def count_stale(session: Session) -> int | None:
    count: int | None = session.scalar(
        sa.text(
            "SELECT count(*) FROM rag_chunk_embeddings e LEFT JOIN rag_chunks c ON c.id = e.chunk_id"
            " WHERE c.is_current IS DISTINCT FROM e.is_current"
        )
    )
    return count


def test_pages_list_what_waits_for_a_model_and_go_on_after_what_is_stored(
    session: Session, article: str
) -> None:
    texts = list("abcdefg")
    publish(session, make_plan(session, article, texts), [None, *map(embed, "bcdefg")])
    ids = read_ids(session, article)
    model = session.scalars(sa.select(EmbeddingModel).where(EmbeddingModel.key == "small")).one()
    asked: str | EmbeddingModel | None
    for asked in ("small", model):
        assert page_through(session, ids, model=asked) == "abcdefg"
    rows = session.execute(pending_embeddings(model="small", limit=1_000)).all()
    mine = [(row.embedder_version, row.content) for row in rows if row.article_id == article]
    assert sorted(mine) == [("e1", text) for text in texts]
    store_embeddings(session, [ids[text] for text in "aceg"], small(*"aceg"), "small")
    assert page_through(session, ids, model=model) == "bdf"
    column = session.get_one(EmbeddingModel, 1)
    for asked in (None, "default", column):
        assert page_through(session, ids, model=asked) == "a"
    activate(session, "small")
    assert page_through(session, ids) == "bdf"
    assert page_through(session, ids, model="default") == "a"
    with pytest.raises(DBAPIError, match="There is no embedding model unheard"):
        session.execute(pending_embeddings(model="unheard"))


def test_each_embedding_is_stored_or_said_why_not(session: Session, engine: sa.Engine, article: str) -> None:
    publish_texts(session, article, list("abcde"))
    session.commit()
    ids = read_ids(session, article)
    gone = uuid4()
    given = [*(ids[text] for text in "abcd"), gone]
    store_embeddings(session, [ids["b"]], small("b"), "small")
    session.commit()
    with Session(engine) as other:
        other.execute(sa.text("SELECT FROM rag_chunks WHERE id = :id FOR UPDATE"), {"id": ids["d"]})
        vectors = [*small("a"), np.ones(SIZE), np.full(SIZE, np.nan), *small("d", "gone")]
        assert store_embeddings(session, given, vectors, model="small") == StoredEmbeddings(
            stored=(ids["a"],),
            kept=(ids["b"],),
            gone=(gone,),
            refused={ids["c"]: refused(SIZE)},
            busy=(ids["d"],),
        )
    assert store_embeddings(session, [ids["d"]], [[1.0] * 768], "small").refused == {
        ids["d"]: "Embedding model 'small': An embedding has 768 dimensions, the column takes 8."
    }
    for key, said in (
        ("unheard", "no live embedding model 'unheard'"),
        ("Small", "live are: 'default', 'small'"),
    ):
        with pytest.raises(EmbeddingError, match=said):
            store_embeddings(session, given[:1], small("a"), key)
        with pytest.raises(EmbeddingError, match=said):
            skip_embeddings(session, {given[0]: "no"}, key)


def test_an_embedding_takes_the_place_of_another_only_where_that_is_said(
    session: Session, article: str
) -> None:
    publish_texts(session, article, ["a", "b"])
    ids = [*read_ids(session, article).values()]
    first: dict[str, list[Any]] = {"default": [embed("a"), embed("b")], "small": small("a", "b")}
    then: dict[str, list[Any]] = {"default": [embed("x"), embed("y")], "small": small("x", "y")}
    for model, vectors in then.items():
        store_embeddings(session, ids, first[model], model)
        assert store_embeddings(session, ids, vectors, model).kept == tuple(ids)
        assert store_embeddings(session, ids, vectors, model, replace=True).stored == tuple(ids)
    found = session.execute(
        sa.text(
            "SELECT c.id, c.embedding::real[], e.embedding::real[], e.is_current FROM rag_chunks c"
            " JOIN rag_chunk_embeddings e ON e.chunk_id = c.id WHERE c.id = ANY(:ids)"
        ),
        {"ids": ids},
    ).all()
    assert {row.id for row in found} == {*ids}
    for id_, column, other, is_current in found:
        place = ids.index(id_)
        assert is_current
        assert np.allclose(column, then["default"][place])
        assert np.allclose(other, then["small"][place], atol=1e-3)


def refused(size: int) -> str:
    return (
        f"Embedding model 'small': An embedding of {size} dimensions holds nan at position 0; the column takes"
        f" {size} finite float32 numbers."
    )


def test_what_a_model_will_not_embed_waits_no_more_and_may_come_all_the_same(
    session: Session, engine: sa.Engine, article: str
) -> None:
    publish_texts(session, article, list("abc"))
    session.commit()
    ids = read_ids(session, article)
    with Session(engine) as other:
        other.execute(sa.text("SELECT FROM rag_chunks WHERE id = :id FOR UPDATE"), {"id": ids["c"]})
        reasons = {ids["a"]: "too long", ids["b"]: "no words", ids["c"]: "busy", uuid4(): "gone"}
        assert skip_embeddings(session, reasons, "small") == 2
    assert skip_embeddings(session, {ids["a"]: "longer"}, "small") == 1
    assert page_through(session, ids, model="small") == "c"
    plan = make_plan(session, article, list("abc"), include_pending=True)
    assert (plan.texts_to_embed, plan.texts_to_embed_for("small")) == ((), ("c",))
    assert store_embeddings(session, [ids["a"]], small("a"), "small").stored == (ids["a"],)
    assert publish(session, plan, model_embeddings={"small": {"b": small("b")[0], "c": None}}).embedded == 1
    left = session.scalar(sa.text("SELECT count(embedding_error) FROM rag_chunk_embeddings"))
    assert (left, skip_embeddings(session, {ids["a"]: "no"}, "small")) == (0, 0)


def test_the_default_is_the_active_model_and_a_retired_column_takes_nothing(
    session: Session, article: str
) -> None:
    publish(session, make_plan(session, article, ["a"]), [None])
    (chunk,) = read_current(session, article)
    activate(session, "small")
    assert store_embeddings(session, [chunk.id], small("a")).stored == (chunk.id,)
    session.execute(sa.text("UPDATE rag_embedding_models SET state = 'retired' WHERE id = 1"))
    with pytest.raises(EmbeddingError, match="no live embedding model 'default'"):
        store_embeddings(session, [chunk.id], [embed("a")], "default")
    drop_model(session, "small")
    with pytest.raises(EmbeddingError, match="No embedding model is active; live are: none"):
        skip_embeddings(session, {chunk.id: "no"})


def publish_another(session: Session, article: str) -> object:
    return publish_texts(session, article, ["a", "d"])


def activate_the_first(session: Session, article: str) -> object:
    return activate_version(session, article, 1)


def purge(session: Session, article: str) -> object:
    return purge_document(session, article)


def prune(session: Session, article: str) -> object:
    session.rollback()  # it begins with a transaction of its own, and commits
    return prune_versions(session, keep=0, article_ids=[article])


@pytest.mark.parametrize("isolation", ["READ COMMITTED", "SERIALIZABLE"])
@pytest.mark.parametrize("order", ["worker first", "change first", "change committed"])
@pytest.mark.parametrize("change", [publish_another, activate_the_first, prune, purge])
def test_no_embedding_is_stale_whoever_is_first(
    engine: sa.Engine, article: str, isolation: str, order: str, change: Change
) -> None:
    with Session(engine) as session:
        publish_texts(session, article, ["a", "b"])
        publish_texts(session, article, ["a", "c"])
        ids = read_ids(session, article)
        session.commit()
    sessions = sessionmaker(engine.execution_options(isolation_level=isolation))
    with sessions() as worker, sessions() as other, ThreadPoolExecutor(1) as thread:
        for each in (worker, other):
            each.execute(sa.text("SET LOCAL deadlock_timeout = '10ms'"))
            each.execute(sa.text("SELECT count(*) FROM rag_documents"))  # what a stricter one sees is settled

        def store() -> object:
            return store_embeddings(worker, [*ids.values()], small(*ids), "small")

        if order == "worker first":
            store()
            pid = worker.scalar(sa.text("SELECT pg_backend_pid()"))
            future = thread.submit(try_twice, other, isolation, lambda: change(other, article))
            wait_until_blocked(engine, pid or 0, future)
            try_twice(worker, isolation, lambda: None)
            future.result()
        else:
            change(other, article)
            if order == "change committed":
                other.commit()
            worker.execute(sa.text("SET LOCAL lock_timeout = '1ms'"))
            try_twice(worker, isolation, store)
            try_twice(other, isolation, lambda: None, lambda: change(other, article))
        assert count_stale(other) == 0
        waiting = {
            row.chunk_id: row.content for row in other.execute(pending_embeddings(model="small", limit=1_000))
        }
        store_embeddings(other, [*waiting], small(*waiting.values()), "small")
        assert page_through(other, ids, model="small") == ""
        assert count_stale(other) == 0
        assert_consistent(other)
        other.rollback()


def try_twice(
    session: Session, isolation: str, work: Callable[[], object], again: Callable[[], object] | None = None
) -> None:
    """Do the work and commit; under the stricter isolation begin anew where another transaction was faster."""
    try:
        work()
        session.commit()
    except (StalePlan, DBAPIError) as exc:
        session.rollback()
        if isolation != "SERIALIZABLE" or (isinstance(exc, DBAPIError) and not is_overtaken(exc)):
            raise
        (again or work)()
        session.commit()
