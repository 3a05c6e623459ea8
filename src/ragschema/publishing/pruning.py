"""Pruning of old versions, without losing a chunk that a kept version uses."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from ragschema.publishing.errors import PublishingError
from ragschema.publishing.facts import forget_facts
from ragschema.publishing.transactions import check_batches, check_time, connection_of
from ragschema.schema.base import Executor
from ragschema.schema.index_reads import rows_of
from ragschema.values import check_whole, several

PRUNE_BATCH = 500


@dataclass(frozen=True)
class Pruning:
    """What `prune_versions` removed, or would remove.

    Attributes:
        documents: Documents that lost a version.
        versions: Versions removed.
        chunks: Chunk rows removed.
        events: Chunk events removed.
        rehomed: Chunk rows of removed versions that kept versions use, moved to the newest of those.
        embeddings: Embeddings by other models than the column's, removed with their chunks.
    """

    documents: int = 0
    versions: int = 0
    chunks: int = 0
    events: int = 0
    rehomed: int = 0
    embeddings: int = 0

    def __add__(self, other: Pruning) -> Pruning:
        return Pruning(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(Pruning)))


def prune_versions(
    session: Executor,
    *,
    keep: int | None = None,
    before: datetime | None = None,
    article_ids: Collection[str] | None = None,
    dry_run: bool = False,
    batch_size: int = PRUNE_BATCH,
) -> Pruning:
    """Remove old versions with their events and the chunks that no kept version uses. Commits each batch.

    A version goes when it is not current, not among its document's newest `keep`, and was written before
    `before`; at least one of the two is needed. A chunk that a kept version uses stays, embedding included: it
    is given to the newest kept version that uses it, at its ordinal there, so that the next pruning need not move
    it again. An event that says a chunk was deleted stays and loses its pointer. What was removed when an error
    or the end of the process comes between two batches stays removed; run it again for the rest.

    Each batch locks the rows of its documents until it commits, so that publishers of these wait. Where a chunk
    that is current changes hands, its vector enters the HNSW index again (about 2 ms).

    Args:
        session: A session or connection that is in no transaction: it is committed. Async:
            ``await connection.run_sync(functools.partial(prune_versions, keep=3))``.
        keep: How many of the newest versions stay, besides the current one.
        before: A time with its zone.
        article_ids: Only these documents.
        dry_run: Count only; locks nothing.
        batch_size: Documents in a transaction.

    Raises:
        PublishingError: It would be unclear what to keep, or a transaction is open.
    """
    only = None if article_ids is None else several("article_ids", article_ids, PublishingError, each=str)
    _check(session, keep, before, batch_size)
    total = Pruning()
    rule = {"keep": keep or 0, "before": before}
    for document_ids in _pages(session, only, batch_size):
        total += _prune(connection_of(session), document_ids, rule, dry_run=dry_run)
        session.commit()
    return total


def _check(session: Executor, keep: int | None, before: datetime | None, batch_size: int) -> None:
    if keep is None and before is None:
        raise PublishingError(
            "Nothing says which versions to keep.", "Pass keep=N, or before=TIME, or both to be more careful."
        )
    for name, value in (("keep", keep), ("batch_size", batch_size)):
        if value is not None:
            check_whole(name, value, PublishingError)
    if (keep is not None and keep < 0) or batch_size < 1:
        raise PublishingError(
            f"keep={keep} and batch_size={batch_size} make no sense.",
            "keep is 0 or more, batch_size 1 or more.",
        )
    if before is not None:
        check_time("before", before)
    check_batches(session, "prune_versions")


def _pages(session: Executor, article_ids: list[str] | None, batch_size: int) -> Iterator[Sequence[UUID]]:
    """Yield the ids of the documents, or of all, in batches; the session is committed after each."""
    if article_ids is not None:
        found = connection_of(session).execute(_NAMED, {"article_ids": article_ids}).scalars().all()
        session.commit()
        for start in range(0, len(found), batch_size):
            yield found[start : start + batch_size]
        return
    after = UUID(int=0)
    while True:
        page = {"after": after, "batch_size": batch_size}
        document_ids = connection_of(session).execute(_PAGE, page).scalars().all()
        yield document_ids
        if len(document_ids) < batch_size:
            return
        after = document_ids[-1]


def _prune(
    connection: sa.Connection, document_ids: Sequence[UUID], rule: dict[str, Any], *, dry_run: bool
) -> Pruning:
    """Prune the versions of some documents in the transaction of the connection."""
    victims = _find_victims(connection, document_ids, rule)
    if victims and not dry_run:
        concerned = {"document_ids": list({row.document_id for row in victims})}
        connection.execute(_LOCK, concerned)  # what it had to wait for is seen by the statements that follow
        victims = _find_victims(connection, concerned["document_ids"], rule)
    if not victims:
        return Pruning()
    versions = {"versions": [row.id for row in victims]}
    pruning = Pruning(
        documents=len({row.document_id for row in victims}),
        versions=len(victims),
        **connection.execute(_COUNT, versions).one()._asdict(),
    )
    if not dry_run:
        connection.execute(_REHOME, versions)
        connection.execute(_UNPOINT, versions)
        forget_facts(connection, _CHUNKS, versions)
        for statement in _REMOVE:
            connection.execute(statement, versions)
    return pruning


def _find_victims(
    connection: sa.Connection, document_ids: Sequence[UUID], rule: dict[str, Any]
) -> Sequence[sa.Row[Any]]:
    return connection.execute(_VICTIMS, rule | {"document_ids": list(document_ids)}).all()


_PAGE = sa.text("SELECT id FROM rag_documents WHERE id > :after ORDER BY id LIMIT :batch_size")
_NAMED = sa.text(
    "SELECT id FROM rag_documents WHERE article_id = ANY(CAST(:article_ids AS text[])) ORDER BY id"
)
_LOCK = sa.text("SELECT FROM rag_documents WHERE id = ANY(:document_ids) ORDER BY id FOR UPDATE")
# Versions by number, newest first; the current one is not counted among those to keep.
_VICTIMS = sa.text(f"""
SELECT r.id, r.document_id FROM (
    SELECT v.id, v.document_id, v.created_at, d.current_version_id,
        row_number() OVER (PARTITION BY v.document_id ORDER BY v.version_number DESC) AS age
    FROM rag_documents d CROSS JOIN {rows_of("rag_document_versions", "document_id", "d.id")} v
    WHERE d.id = ANY(:document_ids)
) r
WHERE r.age > :keep AND r.id IS DISTINCT FROM r.current_version_id
AND r.created_at < coalesce(CAST(:before AS timestamptz), 'infinity')
""")
# The shapes are those of where a version is planned: an index is read however few or many rows are expected.
_GONE = "unnest((SELECT CAST(:versions AS uuid[])))"
_CHUNKS, _EVENTS = (
    f"SELECT r.id FROM {_GONE} AS gone (id) CROSS JOIN {rows_of(table, 'version_id', 'gone.id', 'id')} r"
    for table in ("rag_chunks", "rag_chunk_events")
)
_HEIRS = f"""
    SELECT DISTINCT ON (e.chunk_id) e.chunk_id, e.version_id, e.ordinal
    FROM rag_chunk_events e
    JOIN rag_document_versions v ON v.id = e.version_id
    WHERE e.chunk_id = ANY(ARRAY({_CHUNKS})) AND e.event_type <> 'deleted'
    AND e.version_id NOT IN (SELECT gone.id FROM {_GONE} AS gone (id))
    ORDER BY e.chunk_id, v.version_number DESC, e.ordinal
"""
_EMBEDDINGS = "SELECT count(*) FROM rag_chunk_embeddings e WHERE e.chunk_id = ANY(ARRAY({chunks}))"
_COUNT = sa.text(f"""
SELECT chunks - rehomed AS chunks, events, rehomed,
    ({_EMBEDDINGS.format(chunks=_CHUNKS)})
    - ({_EMBEDDINGS.format(chunks=f"SELECT h.chunk_id FROM ({_HEIRS}) h")}) AS embeddings
FROM
    (SELECT count(*) AS chunks FROM ({_CHUNKS}) r) a,
    (SELECT count(*) AS events FROM ({_EVENTS}) r) b,
    (SELECT count(*) AS rehomed FROM ({_HEIRS}) h) c
""")
_REHOME = sa.text(f"""
UPDATE rag_chunks c SET version_id = h.version_id, ordinal = coalesce(h.ordinal, c.ordinal)
FROM ({_HEIRS}) h WHERE c.id = h.chunk_id
""")
_UNPOINT = sa.text(f"""
UPDATE rag_chunk_events e SET chunk_id = NULL
WHERE e.chunk_id = ANY(ARRAY({_CHUNKS})) AND e.event_type = 'deleted'
""")
_REMOVE = (
    sa.text(f"DELETE FROM rag_chunk_events WHERE id = ANY(ARRAY({_EVENTS}))"),
    sa.text(f"DELETE FROM rag_chunks WHERE id = ANY(ARRAY({_CHUNKS}))"),
    sa.text("DELETE FROM rag_document_versions WHERE id = ANY(:versions)"),
)
