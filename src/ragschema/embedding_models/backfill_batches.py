"""Batches of a backfill, as a worker does them: chunks that still wait are embedded and stored page by page."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias
from uuid import UUID

from numpy.typing import NDArray
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, sessionmaker
from tenacity import (
    AsyncRetrying,
    Retrying,
    retry_if_exception,
    retry_if_result,
    stop_after_attempt,
    wait_random,
)

from ragschema.database.sqlstates import is_lock_conflict, is_overtaken
from ragschema.embedding_models.backfill_rows import read_waiting, store_rows
from ragschema.embedding_models.statuses import find_model
from ragschema.embeddings.column_type import EmbeddingError
from ragschema.embeddings.returned import read_embedded
from ragschema.embeddings.wire import EmbeddingLike
from ragschema.errors import ModelRefused
from ragschema.jobs.records import ClaimedJob
from ragschema.models import EmbeddingModel
from ragschema.words import counted

PAGE = 100  # chunks of one call of the embedder

Embedded: TypeAlias = "Sequence[EmbeddingLike] | NDArray[Any]"
Embed: TypeAlias = Callable[[list[str]], Embedded]
"""Embeds texts: returns as many embeddings, each of shape ``(dimensions,)``."""
EmbedAsync: TypeAlias = Callable[[list[str]], Awaitable[Embedded]]

_STORE_ATTEMPTS = 5


def backfill_batch(
    sessions: sessionmaker[Session], job: ClaimedJob, embed: Embed, *, page: int = PAGE
) -> int:
    """Embed the chunks of a job that still wait, and store them page by page; return how many were stored.

    The handler of `JOB_TYPE`: ``{JOB_TYPE: lambda job: backfill_batch(sessions, job, embed)}``. No transaction is open
    while ``embed`` runs. A page is stored in a short transaction that waits for no publish: what a publish holds is
    tried again, and left to the job's next attempt in the end. Whatever was stored stays, so nothing is embedded twice
    where a worker dies but the page it was at.

    Args:
        sessions: A factory of sessions: `session_factory`.
        job: As the worker has it.
        embed: Embeds texts by the model that ``job.payload["model"]`` names.
        page: Chunks of one call of ``embed``.

    Raises:
        EmbeddingError: ``embed`` did not return an embedding of the model for each text.
        UnknownModel: The model is gone, or is called something else now.
        ModelRefused: The job was cancelled, or some chunks were held by others each time.
    """
    batch = _Batch(job, page)

    def store() -> bool:
        with sessions.begin() as session:
            done = batch.store(session)
        return batch.has_left(done)

    while True:
        with sessions() as session:
            texts = batch.read(session)
        if not texts:
            return batch.stored
        batch.take(embed(texts))
        Retrying(**_retries())(store)
        batch.turn()


async def backfill_batch_async(
    sessions: async_sessionmaker[AsyncSession], job: ClaimedJob, embed: EmbedAsync, *, page: int = PAGE
) -> int:
    """Do what `backfill_batch` does, for `work_async`: with sessions of an async engine, and a coroutine function."""
    batch = _Batch(job, page)

    async def store() -> bool:
        async with sessions.begin() as session:
            done = await session.run_sync(batch.store)
        return batch.has_left(done)

    while True:
        async with sessions() as session:
            texts = await session.run_sync(batch.read)
        if not texts:
            return batch.stored
        batch.take(await embed(texts))
        await AsyncRetrying(**_retries())(store)
        batch.turn()


class _Batch:
    """What is left of a job, and the page at hand; the transactions are the caller's."""

    def __init__(self, job: ClaimedJob, page: int) -> None:
        self.job = job
        self.page = page
        self.key: str = job.payload["model"]
        self.after = _id(job.payload.get("after"))
        self.until = _id(job.payload.get("until"))
        self.stored = self.held = 0

    def read(self, session: Session) -> list[str]:
        """Return the texts of the next page; none at the end of the job."""
        if self.job.cancelled.is_set():
            raise ModelRefused(
                f"The job that embeds chunks by {self.key!r} was cancelled.",
                "Run `rag models backfill` again.",
            )
        self.model: EmbeddingModel = find_model(session, self.key)
        self.waiting = read_waiting(session, self.model, after=self.after, until=self.until, limit=self.page)
        if self.held and not self.waiting:
            raise ModelRefused(
                f"Embeddings of {self.key!r} could not be stored: others held {counted(self.held, 'chunk')}.",
                "The job is tried again.",
            )
        return [chunk.content for chunk in self.waiting]

    def take(self, embedded: Embedded) -> None:
        """Keep the embeddings of the page until they are stored."""
        if inspect.isawaitable(embedded):
            if inspect.iscoroutine(embedded):
                embedded.close()
            raise EmbeddingError(
                f"The embedder of {self.key!r} returned an awaitable.", "Use backfill_batch_async."
            )
        vectors = read_embedded("the embedder", embedded)
        if len(vectors) != len(self.waiting):
            raise EmbeddingError(
                f"The embedder returned {counted(len(vectors), 'embedding')}"
                f" for {counted(len(self.waiting), 'text')} of {self.key!r}.",
                "Let it return one for each, in their order.",
            )
        self.vectors = {chunk.id: vector for chunk, vector in zip(self.waiting, vectors, strict=True)}

    def store(self, session: Session) -> list[UUID]:
        """Store what is left of the page; return the chunks that no longer wait, once it is committed."""
        return store_rows(session, self.model, self.vectors)

    def has_left(self, done: Sequence[UUID]) -> bool:
        """Take what is stored off the page; tell whether others held some of it."""
        for chunk_id in done:
            del self.vectors[chunk_id]
        return bool(self.vectors)

    def turn(self) -> None:
        """Go on after this page; what others held is left to the job's next attempt."""
        self.stored += len(self.waiting) - len(self.vectors)
        self.held += len(self.vectors)
        self.after = self.waiting[-1].id


def _retries() -> dict[str, Any]:
    return {
        "retry": retry_if_result(bool) | retry_if_exception(_is_passing),
        "wait": wait_random(0.05, 0.25),
        "stop": stop_after_attempt(_STORE_ATTEMPTS),
        "retry_error_callback": lambda state: (
            state.outcome.result()
        ),  # what was raised, or that some are left
    }


def _is_passing(exc: BaseException) -> bool:
    """Whether a transaction of ours was overtaken: a chunk was deleted, or its is_current changed, meanwhile."""
    return isinstance(exc, DBAPIError) and (
        is_overtaken(exc) or is_lock_conflict(exc) or getattr(exc.orig, "sqlstate", None) == "23503"
    )


def _id(text: str | None) -> UUID | None:
    return None if text is None else UUID(text)
