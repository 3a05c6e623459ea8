"""Purges: documents destroyed with all their rows, one, several, or those that were deleted long ago."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

import sqlalchemy as sa

from ragschema.publishing.deleting import find_unknown, lock_documents
from ragschema.publishing.document_locks import lock_document
from ragschema.publishing.erasure import Erase, Erased, check_erase, erase_traces
from ragschema.publishing.errors import PublishingError, unknown_document
from ragschema.publishing.facts import forget_facts
from ragschema.publishing.transactions import check_atomic, check_batches, check_time, connection_of
from ragschema.schema.base import Executor
from ragschema.schema.index_reads import rows_of
from ragschema.values import check_whole, several

PURGE_BATCH = 500


@dataclass(frozen=True)
class Purge:
    """How many rows of a document were destroyed.

    Attributes:
        versions: Its versions.
        chunks: Their chunks, each with its embedding in the column.
        events: Their events.
        embeddings: The chunks' embeddings by other models.
    """

    versions: int
    chunks: int
    events: int
    embeddings: int = 0


@dataclass(frozen=True)
class PurgedDocuments:
    """How many rows of documents were destroyed, or would be.

    Attributes:
        documents: Documents.
        versions: Their versions.
        chunks: Their chunks, each with its embedding in the column.
        events: Their events.
        embeddings: The chunks' embeddings by other models.
        unknown: The article ids that no document has.
        erased: Rows beside these that spoke of the documents, by table; where erasure was asked for.
        left: What speaks of them all the same, a sentence each; where erasure was asked for.
        message_ids: The chat messages whose text may repeat what was erased, to be changed or removed by the service.
    """

    documents: int = 0
    versions: int = 0
    chunks: int = 0
    events: int = 0
    embeddings: int = 0
    unknown: tuple[str, ...] = ()
    erased: Mapping[str, int] = field(default_factory=dict)
    left: tuple[str, ...] = ()
    message_ids: tuple[UUID, ...] = ()

    def __add__(self, other: PurgedDocuments) -> PurgedDocuments:
        return PurgedDocuments(
            self.documents + other.documents,
            self.versions + other.versions,
            self.chunks + other.chunks,
            self.events + other.events,
            self.embeddings + other.embeddings,
            (*self.unknown, *other.unknown),
            dict(Counter(self.erased) + Counter(other.erased)),
            tuple(dict.fromkeys((*self.left, *other.left))),
            tuple(dict.fromkeys((*self.message_ids, *other.message_ids))),
        )


def purge_document(session: Executor, article_id: str) -> Purge:
    """Destroy a document with all its versions, chunks and events, in the caller's transaction.

    Returns:
        What was destroyed.

    Raises:
        UnknownDocument: There is no such article.
    """
    check_atomic(session, "purge_document")
    document = lock_document(session, article_id)
    if document is None:
        raise unknown_document(article_id)
    return _purge(session, [document.id])


def purge_documents(
    session: Executor,
    article_ids: Collection[str],
    *,
    erase: bool | Erase = False,
    dry_run: bool = False,
) -> PurgedDocuments:
    """Destroy documents, deleted ones or not, with all their versions, chunks, events and embeddings, as one set.

    In the caller's transaction: a few statements for all of them. Right without the database's triggers. No function of
    a database reaches its write-ahead log and what was archived of it, its backups, standbys that lag and logical
    subscribers, nor the dead rows that stay in its files until VACUUM.

    Args:
        session: A session or connection.
        article_ids: The documents; what none has is in the result.
        erase: Whether what speaks of the documents elsewhere in the schema goes too, also of those that were purged
            before: True, or an `Erase` that says how it is found.
        dry_run: Count only; locks nothing.

    Raises:
        PublishingError: The connection is in autocommit mode, or a function of ``erase`` returned something wrong.
    """
    ids = several("article_ids", article_ids, PublishingError, each=str)
    check_erase(erase)
    check_atomic(session, "purge_documents")
    if dry_run:
        found = connection_of(session).execute(_FIND, {"article_ids": ids}).all()
    else:
        found = lock_documents(session, ids)
    unknown = find_unknown(ids, found)
    return _purge_all(
        session, [*dict.fromkeys(ids)], [row.id for row in found], erase, unknown, dry_run=dry_run
    )


def purge_deleted(
    session: Executor,
    *,
    before: datetime,
    batch_size: int = PURGE_BATCH,
    erase: bool | Erase = False,
    dry_run: bool = False,
) -> PurgedDocuments:
    """Destroy the documents that were deleted before a time, as `purge_documents` does. Commits each batch.

    One that is undeleted meanwhile stays. May be interrupted and run again.

    Args:
        session: A session or connection that is in no transaction: it is committed.
        before: A time with its zone.
        batch_size: Documents in a transaction.
        erase: As of `purge_documents`.
        dry_run: Count only; locks nothing.

    Raises:
        PublishingError: The time has no zone, the batch no size, or a transaction is open.
    """
    check_time("before", before)
    check_erase(erase)
    if check_whole("batch_size", batch_size, PublishingError) < 1:
        raise PublishingError(f"batch_size is {batch_size}.", "Pass a number of documents, 1 or more.")
    check_batches(session, "purge_deleted")
    total = PurgedDocuments()
    after: Mapping[str, object] = {"after": None, "after_id": UUID(int=0)}
    while True:
        page = connection_of(session).execute(_PAGE, {"before": before, "limit": batch_size, **after}).all()
        if page:
            article_ids = [row.article_id for row in page]
            if not dry_run:
                locked = lock_documents(session, article_ids)
                page_now = [row for row in locked if row.deleted_at is not None and row.deleted_at < before]
            else:
                page_now = list(page)
            total += _purge_all(
                session,
                [row.article_id for row in page_now],
                [row.id for row in page_now],
                erase,
                (),
                dry_run=dry_run,
            )
        session.commit()
        if len(page) < batch_size:
            return total
        after = {"after": page[-1].deleted_at, "after_id": page[-1].id}


def _purge_all(
    session: Executor,
    article_ids: Sequence[str],
    document_ids: Sequence[UUID],
    erase: bool | Erase,
    unknown: tuple[str, ...],
    *,
    dry_run: bool,
) -> PurgedDocuments:
    traces = Erased()
    if erase and article_ids:
        how = erase if isinstance(erase, Erase) else Erase()
        traces = erase_traces(session, how, article_ids, document_ids, dry_run=dry_run)
    purge = Purge(0, 0, 0)
    if document_ids:
        purge = _count(session, document_ids) if dry_run else _purge(session, document_ids)
    return PurgedDocuments(
        len(document_ids),
        purge.versions,
        purge.chunks,
        purge.events,
        purge.embeddings,
        unknown,
        traces.rows,
        traces.left,
        traces.message_ids,
    )


def _count(session: Executor, document_ids: Sequence[UUID]) -> Purge:
    return Purge(*connection_of(session).execute(_COUNT, {"document_ids": list(document_ids)}).one())


def _purge(session: Executor, document_ids: Sequence[UUID]) -> Purge:
    """Destroy documents, which are locked."""
    parameters = {"document_ids": list(document_ids)}
    embeddings = connection_of(session).scalar(_COUNT_EMBEDDINGS, parameters) or 0
    forget_facts(session, _CHUNKS, parameters)
    events, chunks, versions, _ = (
        connection_of(session).execute(statement, parameters).rowcount for statement in _PURGE
    )
    return Purge(versions=versions, chunks=chunks, events=events, embeddings=embeddings)


_FIND = sa.text(
    "SELECT id, article_id FROM rag_documents WHERE article_id = ANY(CAST(:article_ids AS text[]))"
)
_PAGE = sa.text("""
SELECT id, article_id, deleted_at FROM rag_documents
WHERE deleted_at IS NOT NULL AND deleted_at < :before
AND (deleted_at, id) > (coalesce(CAST(:after AS timestamptz), '-infinity'), CAST(:after_id AS uuid))
ORDER BY deleted_at, id LIMIT :limit
""")
# The shapes are those of where a version is planned: an index is read however few or many rows are expected.
_DOCUMENTS = "unnest((SELECT CAST(:document_ids AS uuid[]))) AS d (id)"
_OF_DOCUMENT = rows_of("rag_document_versions", "document_id", "d.id", "id")
_VERSIONS = f"SELECT v.id FROM {_DOCUMENTS} CROSS JOIN {_OF_DOCUMENT} v"
_CHUNKS, _EVENTS = (
    f"SELECT r.id FROM ({_VERSIONS}) v CROSS JOIN {rows_of(table, 'version_id', 'v.id', 'id')} r"
    for table in ("rag_chunks", "rag_chunk_events")
)
# Embeddings go with their chunks, by the foreign key: a worker that is storing one holds its chunk, and whoever
# deleted the embedding first would wait for that worker while it is waited for.
_EMBEDDINGS = f"SELECT count(*) FROM rag_chunk_embeddings WHERE chunk_id = ANY(ARRAY({_CHUNKS}))"
_COUNT_EMBEDDINGS = sa.text(_EMBEDDINGS)
_COUNT = sa.text(f"""
SELECT (SELECT count(*) FROM ({_VERSIONS}) v), (SELECT count(*) FROM ({_CHUNKS}) c),
    (SELECT count(*) FROM ({_EVENTS}) e), ({_EMBEDDINGS})
""")
# The documents are pointed at nothing first: or the trigger on events would mark their chunks by what is left of their
# manifests, and these enter the vector index to be deleted.
_PURGE = (
    sa.text(f"""
    WITH unpointed AS (
        UPDATE rag_documents SET current_version_id = NULL WHERE id = ANY(CAST(:document_ids AS uuid[]))
    )
    DELETE FROM rag_chunk_events WHERE id = ANY(ARRAY({_EVENTS}))
    """),
    sa.text(f"""
    DELETE FROM rag_chunks WHERE id = ANY(ARRAY(
        SELECT c.id FROM rag_chunks c WHERE c.id = ANY(ARRAY({_CHUNKS})) ORDER BY c.id FOR UPDATE
    ))
    """),
    sa.text(f"DELETE FROM rag_document_versions WHERE id = ANY(ARRAY({_VERSIONS}))"),
    sa.text("DELETE FROM rag_documents WHERE id = ANY(CAST(:document_ids AS uuid[]))"),
)
