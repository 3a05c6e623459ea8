"""Ingesting a document: plan, embed outside any transaction, publish, and again where somebody else was faster."""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

from numpy.typing import NDArray
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, sessionmaker
from tenacity import (
    AsyncRetrying,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    wait_random_exponential,
)

from ragschema.database.sqlstates import is_overtaken
from ragschema.embeddings.column_type import EmbeddingError
from ragschema.embeddings.returned import read_embedded
from ragschema.embeddings.wire import EmbeddingLike
from ragschema.publishing.errors import StalePlan
from ragschema.publishing.live_models import LiveModel, LiveModels
from ragschema.publishing.plans import plan_version
from ragschema.publishing.sources import ChunkText
from ragschema.publishing.texts import Refuse, given_contents
from ragschema.publishing.transactions import check_atomic, check_factory
from ragschema.publishing.version_plan import VersionPlan
from ragschema.publishing.writing import PublishedVersion, publish
from ragschema.schema.base import Executor
from ragschema.words import counted

Embedded: TypeAlias = Sequence[EmbeddingLike | None] | NDArray[Any]
Embed: TypeAlias = Callable[[list[str]], Embedded]
"""The embedding model: from texts to one embedding each, None for one that is to come."""
EmbedAsync: TypeAlias = Callable[[list[str]], Awaitable[Embedded]]
Vectors: TypeAlias = defaultdict[int, dict[str, EmbeddingLike | None]]
"""Embeddings by the id of their model, and by text."""
Function = TypeVar("Function", bound=Callable[[list[str]], object])

ATTEMPTS = 50
"""How often a version is planned at most: each time somebody else has published the document meanwhile."""

_BACKOFF = wait_random_exponential(multiplier=0.02, max=2)


def ingest(
    sessions: sessionmaker[Session],
    article_id: str,
    contents: Sequence[str | ChunkText],
    embed: Embed | None,
    *,
    model_embed: Mapping[str, Embed] | None = None,
    refuse: Refuse | None = None,
    **version: Any,
) -> PublishedVersion:
    """Publish a document's text: plan, embed what is new in no transaction, publish; commits.

    Where somebody else has published the document meanwhile it begins anew after a pause that grows, and embeds
    only what it has not embedded before: of many writers of one document each ends.

    Args:
        sessions: A factory of sessions: `session_factory`.
        article_id: The caller's key of the document.
        contents: The chunks' texts in order, as in `plan_version`.
        embed: The active model: called with the texts that have no embedding yet, each once; not at all where there
            are none.
        model_embed: Models by their key, of those that are live; the active one's is called rather than ``embed``,
            which may be None. What no function embeds stays pending for its model. A service that gives all its
            models here goes on as before when another one becomes active.
        refuse: As in `plan_version`.
        version: source_hash, chunker_version, embedder_version, title, url, metadata, source, text_config,
            collection_ids and undelete, as in `plan_version`.

    Raises:
        ContentError: A text or name cannot be stored; nothing was embedded.
        DocumentDeleted: The document is deleted, and ``undelete`` was not asked for.
        EmbeddingError: ``embed`` did not return an embedding for each text.
        PublishingError: The sessions are in autocommit mode, or are no factory; nothing was embedded.
        StalePlan: Others were faster 50 times.
    """
    check_factory(sessions)
    given = given_contents(article_id, contents)  # for every attempt
    vectors: Vectors = defaultdict(dict)
    for attempt in Retrying(**_retries()):
        with attempt:
            with sessions() as session:
                check_atomic(session, "ingest")  # what publish would refuse, before money is spent
                plan = plan_version(session, article_id, given, refuse=refuse, **version)
            for model, name, function in choose(plan.live, embed, model_embed):
                if texts := _missing(plan, model, vectors[model.id]):
                    vectors[model.id] |= pair(article_id, texts, function([*texts]), name)
            with sessions.begin() as session:
                return publish_embedded(session, plan, vectors)
    raise AssertionError("tenacity ends with a result or an error")


async def ingest_async(
    sessions: async_sessionmaker[AsyncSession],
    article_id: str,
    contents: Sequence[str | ChunkText],
    embed: EmbedAsync | None,
    *,
    model_embed: Mapping[str, EmbedAsync] | None = None,
    refuse: Refuse | None = None,
    **version: Any,
) -> PublishedVersion:
    """Publish a document's text, see `ingest`; ``embed`` is awaited, while no connection is held."""
    check_factory(sessions, is_async=True)
    given = given_contents(article_id, contents)  # for every attempt
    vectors: Vectors = defaultdict(dict)
    async for attempt in AsyncRetrying(**_retries()):
        with attempt:
            async with sessions() as session:
                await session.run_sync(check_atomic, "ingest_async")
                plan = await session.run_sync(
                    lambda s: plan_version(s, article_id, given, refuse=refuse, **version)
                )
            for model, name, function in choose(plan.live, embed, model_embed):
                if texts := _missing(plan, model, vectors[model.id]):
                    awaited = function([*texts])
                    if not inspect.isawaitable(awaited):
                        what = f"{type(awaited).__name__}, not an awaitable"
                        raise _not_embedded(article_id, name, what, "async def")
                    vectors[model.id] |= pair(article_id, texts, await awaited, name)
            async with sessions.begin() as session:
                return await session.run_sync(publish_embedded, plan, vectors)
    raise AssertionError("tenacity ends with a result or an error")


def choose(
    live: LiveModels, embed: Function | None, model_embed: Mapping[str, Function] | None
) -> Iterator[tuple[LiveModel, str, Function]]:
    """Yield the live models that there is a function for, each with the function's name and the function."""
    given = model_embed or {}
    for model in live.all:
        if model.key in given:
            yield model, f"model_embed[{model.key!r}]", given[model.key]
        elif model.is_active and embed is not None:
            yield model, "embed", embed


def publish_embedded(session: Executor, plan: VersionPlan, vectors: Vectors) -> PublishedVersion:
    """Publish a plan with the embeddings that there are; of a model without any, all are to come."""
    active = plan.live.active
    return publish(
        session,
        plan,
        vectors.get(active.id) if active else None,
        model_embeddings={
            model.key: vectors[model.id]
            for model in plan.models
            if not model.is_active and model.id in vectors
        },
    )


def _missing(plan: VersionPlan, model: LiveModel, known: Mapping[str, object]) -> list[str]:
    needs = plan.needs_of(model)
    return [text for text in needs.texts_to_embed if text not in known] if needs else []


def pair(
    article_id: str, texts: list[str], embedded: Any, name: str = "embed"
) -> dict[str, EmbeddingLike | None]:
    """Return the embedding of each text, of what the model's function has returned.

    Args:
        article_id: Named in errors.
        texts: As they were: the function was handed a list of its own, which it may sort or empty.
        embedded: What it returned.
        name: Of the function.

    Raises:
        EmbeddingError: It has returned something else; the message names the function.
    """
    if inspect.isawaitable(embedded):
        if inspect.iscoroutine(embedded):
            embedded.close()
        raise _not_embedded(article_id, name, "an awaitable", "ingest_async")
    vectors: list[EmbeddingLike | None] = read_embedded(name, embedded)
    if len(vectors) != len(texts):
        raise _not_embedded(
            article_id,
            name,
            f"{counted(len(vectors), 'embedding')} for {counted(len(texts), 'text')}",
            "one for each text",
        )
    return dict(zip(texts, vectors, strict=True))


def _not_embedded(article_id: str, name: str, what: str, wanted: str) -> EmbeddingError:
    return EmbeddingError(f"For article {article_id!r}, {name} returned {what}.", f"Use {wanted}.")


def _retries() -> dict[str, Any]:
    return {
        "retry": retry_if_exception(_was_overtaken),
        "wait": _BACKOFF,
        "stop": stop_after_attempt(ATTEMPTS),
        "reraise": True,
    }


def _was_overtaken(exc: BaseException) -> bool:
    """Whether somebody else was faster, or PostgreSQL ended one of two that could not both go on."""
    return isinstance(exc, StalePlan) or (isinstance(exc, DBAPIError) and is_overtaken(exc))
