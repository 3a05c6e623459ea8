"""Publishing with several embedding models: each is asked for what it lacks, and what is there is reused."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from model_tables import (
    activate,
    add_model,
    drop_model,
    embed_by,
    read_embeddings,
    register_column,
    wait_until_blocked,
)
from publishing import assert_consistent, drop_triggers, embed, make_plan, over_asyncpg, read_current
from ragschema import EmbeddingError, aio, pending_embeddings
from ragschema.database.settings import Database
from ragschema.publishing import (
    ContentError,
    Pruning,
    PublishedVersion,
    Purge,
    StalePlan,
    VersionPlan,
    activate_version,
    plan_version,
    prune_versions,
    publish,
    purge_document,
    retire_document,
)
from ragschema.schema.row_rules import broken_documents

NAMES: dict[str, Any] = {"source_hash": "h", "chunker_version": "c"}


@pytest.fixture
def models(session: Session) -> Iterator[Session]:
    """A session on a database whose column is active beside a model of 8 dimensions that is being filled."""
    register_column(session)
    add_model(session, "small", 8)
    session.commit()
    yield session
    session.rollback()
    assert_consistent(session)


def small(*texts: str) -> list[Any]:
    return [embed_by("small", 8, text) for text in texts]


def publish_both(
    session: Session, contents: list[str], article: str = "a", **options: Any
) -> PublishedVersion:
    """Plan, embed by both models, and publish."""
    plan = make_plan(session, article, contents)
    return publish(
        session,
        plan,
        {text: embed(text) for text in plan.texts_to_embed_for("default")},
        model_embeddings={"small": small(*plan.texts_to_embed_for("small"))},
        **options,
    )


def assert_embedded(session: Session, *texts: str, current: bool = True) -> None:
    """These texts, and no others, have the embedding that the small model makes of them."""
    found = read_embeddings(session, "small", current=current)
    assert sorted(found) == sorted(texts)
    for text in texts:
        np.testing.assert_array_equal(found[text], embed_by("small", 8, text))


def waiting(session: Session, key: str | None = None) -> list[str]:
    return sorted(row.content for row in session.execute(pending_embeddings(model=key)))


def test_without_a_model_the_embedder_version_decides_and_must_be_given(session: Session) -> None:
    plan = make_plan(session, "a", ["x"])
    assert [(model.key, model.dimensions, model.is_active) for model in plan.models] == [
        ("default", 768, True)
    ]
    assert plan.texts_to_embed_for("default") == plan.texts_to_embed == ("x",)
    publish(session, plan, None, model_embeddings={"default": [embed("x")]})
    assert waiting(session, "default") == waiting(session) == []
    assert make_plan(session, "a", ["x"], embedder_version="e2").texts_to_embed == ("x",)
    with pytest.raises(ContentError, match="'a' has no embedder_version, and no embedding model is active"):
        plan_version(session, "a", ["x"], **NAMES)
    with pytest.raises(EmbeddingError, match="no live embedding model 'other'; live are: 'default'"):
        plan.texts_to_embed_for("other")


def test_with_models_the_embedder_version_is_a_label(models: Session) -> None:
    first = publish_both(models, ["x"])
    assert make_plan(models, "a", ["x"], embedder_version="e2").is_up_to_date
    plan = plan_version(models, "a", ["x", "y"], **NAMES)
    assert (plan.embedder_version, plan.texts_to_embed, plan.count(plan.places[0].event_type)) == (
        "default",
        ("y",),
        1,
    )
    second = publish(models, plan, [embed("y")])
    labels = models.scalars(
        sa.text("SELECT embedder_version FROM rag_document_versions ORDER BY version_number")
    )
    assert (labels.all(), second.unchanged, first.added) == (["e1", "default"], 1, 1)


def test_each_model_is_asked_for_what_it_has_not_embedded(models: Session) -> None:
    plan = make_plan(models, "a", ["x", "y", "x"])
    assert [(model.key, model.dimensions, model.is_active) for model in plan.models] == [
        ("default", 768, True),
        ("small", 8, False),
    ]
    assert plan.texts_to_embed == plan.texts_to_embed_for("small") == ("x", "y")
    publish(models, plan, [embed("x"), embed("y")], model_embeddings={"small": np.array(small("x", "y"))})
    assert_embedded(models, "x", "y")
    plan = make_plan(models, "a", ["new", "x", "x", "x"])
    assert plan.texts_to_embed == plan.texts_to_embed_for("small") == ("new",)
    publish(models, plan, [None], model_embeddings={"small": {"new": small("new")[0], "other": [1.0]}})
    assert_embedded(models, "new", "x")
    rows = models.scalar(sa.text("SELECT count(*) FROM rag_chunk_embeddings WHERE is_current"))
    assert (rows, waiting(models), waiting(models, "small")) == (4, ["new"], [])


def test_what_is_not_given_waits_for_its_model_only(models: Session) -> None:
    plan = make_plan(models, "a", ["x", "y", "z"])
    publish(models, plan, [embed(text) for text in "xyz"], model_embeddings={"small": {"x": small("x")[0]}})
    assert (waiting(models), waiting(models, "default"), waiting(models, "small")) == ([], [], ["y", "z"])
    plan = make_plan(models, "a", ["x", "y", "z", "x"])
    assert plan.texts_to_embed == plan.texts_to_embed_for("small") == ()
    version = publish(models, plan, model_embeddings={"small": {"y": small("y")[0], "x": [0.0]}})
    assert (version.embedded, waiting(models, "small")) == (1, ["z"])
    again = make_plan(models, "a", ["x", "y", "z", "x"], include_pending=True)
    assert (again.is_up_to_date, again.texts_to_embed, again.texts_to_embed_for("small")) == (
        True,
        (),
        ("z",),
    )
    filled = publish(models, again, model_embeddings={"small": small("z")})
    assert (filled.is_new, filled.embedded, waiting(models, "small")) == (False, 1, [])
    assert_embedded(models, "x", "y", "z")


def test_the_active_model_may_have_a_partition_and_the_column_stand_by(models: Session) -> None:
    publish_both(models, ["x"])
    activate(models, "small")
    plan = plan_version(models, "a", ["x", "y", "z"], **NAMES)
    assert (plan.embedder_version, plan.texts_to_embed) == ("small", ("y", "z"))
    publish(models, plan, small("y", "z"), model_embeddings={"default": [embed("y"), None]})
    assert_embedded(models, "x", "y", "z")
    assert (waiting(models), waiting(models, "default")) == ([], ["z"])
    plan = make_plan(models, "a", ["x", "z"])
    assert publish(models, plan, model_embeddings={"default": {"z": embed("z")}}).embedded == 1
    assert [row.embedding is not None for row in read_current(models, "a")] == [True, True]


def test_a_service_that_names_its_model_goes_on_when_another_is_active(models: Session) -> None:
    for article, active in enumerate(("default", "small", "default")):
        activate(models, active)
        plan = make_plan(models, str(article), ["x"])
        publish(models, plan, None, model_embeddings={"default": [embed("x")]})
    assert (waiting(models, "default"), waiting(models, "small")) == ([], ["x", "x", "x"])


def test_a_model_without_a_column_leaves_the_column_alone(session: Session) -> None:
    add_model(session, "only", 3, state="active")
    publish(session, make_plan(session, "a", ["x"]), [[1, 2, 3]])
    publish(session, make_plan(session, "a", ["x", "x"]), copy_unchanged=True)
    assert session.scalar(sa.text("SELECT count(embedding) FROM rag_chunks")) == 0
    assert session.scalar(sa.text("SELECT count(*) FROM rag_chunk_embeddings WHERE is_current")) == 2
    assert session.execute(pending_embeddings()).all() == []
    assert_consistent(session)


@pytest.mark.parametrize(
    ("embeddings", "model_embeddings", "said"),
    [
        ([[1.0] * 8], {}, "model 'default': An embedding has 8 dimensions, the column takes 768"),
        ([embed("x")], {"small": [embed("x")]}, "model 'small': An embedding has 768 dimensions, .* takes 8"),
        ([embed("x")], {"small": np.ones((1, 7))}, "model 'small': An embedding has 7 dimensions"),
        (
            [embed("x")],
            {"small": np.full((1, 8), 1e5)},
            "model 'small': .* halfvec takes numbers up to 65,504",
        ),
        ([embed("x")], {"small": []}, "1 text to embed by 'small' and was given 0 embeddings"),
        ([embed("x")], {"big": []}, "no live embedding model 'big'; live are: 'default', 'small'"),
        ([embed("x")], {"default": [embed("x")]}, "are given twice"),
        (None, {"default": {}}, "There is no embedding of chunk 0"),
        ([embed("x")], [embed("x")], "model_embeddings is a list, not embeddings by the key"),
        ([embed("x")], {"small": "ab"}, r"model_embeddings\['small'\] is one str"),
    ],
)
def test_what_is_not_the_models_is_refused_before_anything_is_sent(
    models: Session, embeddings: Any, model_embeddings: Any, said: str
) -> None:
    plan = make_plan(models, "a", ["x"])
    models.rollback()
    with pytest.raises(EmbeddingError, match=said):
        publish(models, plan, embeddings, model_embeddings=model_embeddings)
    assert not models.in_transaction()


def test_a_plan_is_stale_when_a_model_that_it_embeds_by_was_dropped(models: Session) -> None:
    publish_both(models, ["x"])
    plan, refill = make_plan(models, "a", ["x", "y"]), make_plan(models, "a", ["x"], include_pending=True)
    drop_model(models, "small")
    models.commit()
    assert publish(models, refill).is_new is False
    with pytest.raises(StalePlan, match="by embedding models that are live no more: 'small'"):
        publish(models, plan, [embed("y")], model_embeddings={"small": small("y")})
    models.rollback()
    models.execute(sa.text("UPDATE rag_embedding_models SET state = 'retired'"))
    with pytest.raises(StalePlan, match="live no more: 'default', 'small'"):
        publish(models, plan, [embed("y")])


def test_a_plan_is_stale_when_somebody_hides_a_chunk_without_a_lock(
    models: Session, engine: sa.Engine
) -> None:
    publish(models, make_plan(models, "a", ["x"]), [embed("x")])
    models.commit()
    plan = make_plan(models, "a", ["x"])
    with engine.connect() as other, ThreadPoolExecutor(1) as thread:
        other.execute(sa.text("UPDATE rag_chunks SET is_current = false"))
        of_small = {"small": {"x": small("x")[0]}}
        late = thread.submit(publish, models, plan, model_embeddings=of_small)
        wait_until_blocked(engine, other.scalar(sa.text("SELECT pg_backend_pid()")) or 0, late)
        other.commit()
        with pytest.raises(StalePlan, match="changed by another transaction"):
            late.result()
    models.rollback()
    models.execute(sa.text("UPDATE rag_chunks SET is_current = true"))
    models.commit()


def test_a_plan_of_no_models_is_stale_when_there_are_some_without_the_column(session: Session) -> None:
    plan = make_plan(session, "a", ["x"])
    add_model(session, "only", 3, state="active")
    with pytest.raises(StalePlan, match="live no more: 'default'"):
        publish(session, plan, [embed("x")])


@pytest.mark.parametrize("has_triggers", [True, False])
def test_embeddings_follow_their_chunks_through_a_documents_life(
    models: Session, database: Database, has_triggers: bool
) -> None:
    if not has_triggers:
        drop_triggers(database)
    publish_both(models, ["x", "y"])
    publish_both(models, ["x", "z"])
    publish_both(models, ["x", "z"], "other")
    assert_embedded(models, "x", "z")
    assert_embedded(models, "x", "y", "z", current=False)
    activate_version(models, "a", 1)
    retire_document(models, "other")
    assert_embedded(models, "x", "y")
    plan = make_plan(models, "other", ["z", "x"])
    assert (plan.texts_to_embed, plan.texts_to_embed_for("small")) == ((), ())
    publish(models, plan)
    activate_version(models, "a", 2)
    models.commit()
    expected = Pruning(documents=2, versions=3, chunks=1, events=6, rehomed=3, embeddings=1)
    assert prune_versions(models, keep=0, dry_run=True) == expected
    assert prune_versions(models, keep=0) == expected
    assert_embedded(models, "x", "z", current=False)
    assert purge_document(models, "a") == Purge(versions=1, chunks=2, events=2, embeddings=2)
    assert models.scalar(sa.text("SELECT count(*) FROM rag_chunk_embeddings")) == 2


def test_a_copy_of_unchanged_chunks_has_the_embeddings_of_every_model(models: Session) -> None:
    publish_both(models, ["x", "y"])
    publish_both(models, ["x", "y", "z"], copy_unchanged=True)
    assert_embedded(models, "x", "y", "z")
    assert [row.version_id for row in read_current(models, "a")].count(
        read_current(models, "a")[0].version_id
    ) == 3
    assert models.scalar(sa.text("SELECT count(*) FROM rag_chunk_embeddings")) == 5


def test_only_other_models_take_another_statement(models: Session, engine: sa.Engine) -> None:
    publish_both(models, ["x"])
    statements: list[str] = []
    listener = lambda *given: statements.append(given[2])  # noqa: E731
    event.listen(engine, "before_cursor_execute", listener)
    try:
        plan = make_plan(models, "a", ["x", "y"])
        assert len(statements) == 1
        publish(models, plan, [embed("y")])
        assert len(statements) == 4
        publish_both(models, ["x", "y", "z"])
        assert len(statements) == 9
    finally:
        event.remove(engine, "before_cursor_execute", listener)


@pytest.mark.parametrize("kind", ["before the import", "client cursor", "asyncpg"])
def test_embeddings_of_models_travel_over_every_driver(
    models: Session, database: Database, kind: str
) -> None:
    def work(session: Session) -> VersionPlan:
        publish_both(session, ["x", "y"])
        return make_plan(session, "a", ["x", "y"])

    async def over() -> None:
        engine = create_async_engine(over_asyncpg(database))
        async with AsyncSession(engine) as session, session.begin():
            assert (await session.run_sync(work)).is_up_to_date
            await aio.publish(session, await session.run_sync(make_plan, "b", ["q"]), [embed("q")])
        await engine.dispose()

    if kind == "asyncpg":
        asyncio.run(over())
    else:
        arguments = {"cursor_factory": psycopg.ClientCursor} if kind == "client cursor" else {}
        engine = sa.create_engine(database.url(), connect_args=arguments)
        if kind == "before the import":
            engine.dialect._psycopg_adapters_map = None  # type: ignore[attr-defined]
        with Session(engine) as session, session.begin():
            assert work(session).is_up_to_date
        engine.dispose()
    assert_embedded(models, "x", "y")


def test_what_the_key_did_not_keep_is_found(models: Session) -> None:
    for article in ("marked", "unknown", "gone", "good"):
        publish_both(models, [article], article)
    models.execute(sa.text("SET session_replication_role = replica"))
    of = "(SELECT id FROM rag_chunks WHERE content = :content)"
    change = sa.text(f"UPDATE rag_chunk_embeddings SET is_current = false WHERE chunk_id = {of}")
    models.execute(change, {"content": "marked"})
    add_model(models, "passing", 8)
    models.execute(
        sa.text(
            "INSERT INTO rag_chunk_embeddings SELECT chunk_id, model_id + 1, embedding, is_current"
            f" FROM rag_chunk_embeddings WHERE chunk_id = {of}"
        ),
        {"content": "unknown"},
    )
    models.execute(sa.text("UPDATE rag_embedding_models SET state = 'retired' WHERE key = 'passing'"))
    gone = models.scalar(sa.text("DELETE FROM rag_chunks WHERE content = 'gone' RETURNING id"))
    models.execute(sa.text("SET session_replication_role = origin"))
    found = [(row.article_id, row.problem) for row in models.execute(broken_documents())]
    assert found == [
        ("(no document)", "gone, with embeddings left"),
        ("marked", "with embeddings marked otherwise"),
        ("unknown", "with embeddings of no model"),
    ]
    assert models.execute(broken_documents(["marked", "good"])).scalars().all() == ["marked"]
    assert gone is not None
    models.rollback()
