"""Ingesting a document: plan, embed outside any transaction, publish, and again where somebody else was faster."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

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
from ragschema.embeddings.wire import EmbeddingLike
from ragschema.publishing.errors import StalePlan
from ragschema.publishing.plans import plan_version
from ragschema.publishing.texts import Refuse
from ragschema.publishing.writing import PublishedVersion, publish
from ragschema.values import several
from ragschema.words import counted

Embedded: TypeAlias = Sequence[EmbeddingLike | None] | NDArray[Any]
Embed: TypeAlias = Callable[[list[str]], Embedded]
"""The embedding model: from texts to one embedding each, None for one that is to come."""
EmbedAsync: TypeAlias = Callable[[list[str]], Awaitable[Embedded]]

ATTEMPTS = 50
"""How often a version is planned at most: each time somebody else has published the document meanwhile."""

_BACKOFF = wait_random_exponential(multiplier=0.02, max=2)


def ingest(
    sessions: sessionmaker[Session],
    article_id: str,
    contents: Sequence[str],
    embed: Embed,
    *,
    refuse: Refuse | None = None,
    **version: Any,
) -> PublishedVersion:
    """Publish a document's text: plan, embed what is new in no transaction, publish; commits.

    Where somebody else has published the document meanwhile it begins anew after a pause that grows, and embeds
    only what it has not embedded before: of many writers of one document each ends.

    Args:
        sessions: A factory of sessions: `session_factory`.
        article_id: The caller's key of the document.
        contents: The chunks' texts in order.
        embed: Called with the texts that have no embedding yet, each once; not at all where there are none.
        refuse: As in `plan_version`.
        version: source_hash, chunker_version, embedder_version, title, url and text_config, as in `plan_version`.

    Raises:
        ContentError: A text or name cannot be stored; nothing was embedded.
        EmbeddingError: ``embed`` did not return an embedding for each text.
        StalePlan: Others were faster 50 times.
    """
    vectors: dict[str, EmbeddingLike | None] = {}
    for attempt in Retrying(**_retries()):
        with attempt:
            with sessions() as session:
                plan = plan_version(session, article_id, contents, refuse=refuse, **version)
            if texts := [text for text in plan.texts_to_embed if text not in vectors]:
                vectors |= pair(article_id, texts, embed(texts))
            with sessions.begin() as session:
                return publish(session, plan, vectors)
    raise AssertionError("tenacity ends with a result or an error")


async def ingest_async(
    sessions: async_sessionmaker[AsyncSession],
    article_id: str,
    contents: Sequence[str],
    embed: EmbedAsync,
    *,
    refuse: Refuse | None = None,
    **version: Any,
) -> PublishedVersion:
    """Publish a document's text, see `ingest`; ``embed`` is awaited, while no connection is held."""
    vectors: dict[str, EmbeddingLike | None] = {}
    async for attempt in AsyncRetrying(**_retries()):
        with attempt:
            async with sessions() as session:
                plan = await session.run_sync(
                    lambda s: plan_version(s, article_id, contents, refuse=refuse, **version)
                )
            if texts := [text for text in plan.texts_to_embed if text not in vectors]:
                awaited = embed(texts)
                if not inspect.isawaitable(awaited):
                    raise _not_embedded(
                        article_id, f"{type(awaited).__name__}, not an awaitable", "async def"
                    )
                vectors |= pair(article_id, texts, await awaited)
            async with sessions.begin() as session:
                return await session.run_sync(publish, plan, vectors)
    raise AssertionError("tenacity ends with a result or an error")


def pair(article_id: str, texts: list[str], embedded: object) -> dict[str, EmbeddingLike | None]:
    """Return the embedding of each text, of what the model's function has returned.

    Raises:
        EmbeddingError: It has returned something else.
    """
    if inspect.isawaitable(embedded):
        if inspect.iscoroutine(embedded):
            embedded.close()
        raise _not_embedded(article_id, "an awaitable", "ingest_async")
    vectors: list[EmbeddingLike | None] = several(
        "What embed returned",
        embedded,  # type: ignore[arg-type]  # looked at there
        EmbeddingError,
        is_ordered=True,
    )
    if len(vectors) != len(texts):
        raise _not_embedded(
            article_id,
            f"{counted(len(vectors), 'embedding')} for {counted(len(texts), 'text')}",
            "one for each text",
        )
    return dict(zip(texts, vectors, strict=True))


def _not_embedded(article_id: str, what: str, wanted: str) -> EmbeddingError:
    return EmbeddingError(f"For article {article_id!r}, embed returned {what}.", f"Use {wanted}.")


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
