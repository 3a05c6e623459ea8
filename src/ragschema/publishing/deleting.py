"""Deletion of documents: search finds them no more, and every row stays until they are undeleted or purged."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from ragschema.publishing.document_locks import lock_document
from ragschema.publishing.errors import PublishingError, unknown_document
from ragschema.publishing.transactions import check_atomic, connection_of
from ragschema.publishing.visibility import hide_documents, show_documents, show_version, unmark_deleted
from ragschema.schema.base import Executor
from ragschema.values import several


@dataclass(frozen=True)
class Deletion:
    """What `delete_documents` did.

    Attributes:
        documents: Documents that are deleted now and were not before.
        chunks: Chunks that search finds no more.
        already: Documents that were deleted before; these keep their time.
        unknown: The article ids that no document has.
    """

    documents: int
    chunks: int
    already: int = 0
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True)
class Undeletion:
    """What `undelete_documents` did.

    Attributes:
        undeleted: The articles of the documents that were deleted and are so no more, in order.
        chunks: Chunks that search finds again.
        already: Documents that were not deleted; of these nothing was written.
        unknown: The article ids that no document has; they may have been purged.
    """

    undeleted: tuple[str, ...]
    chunks: int
    already: int = 0
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True)
class UndeletedDocument:
    """A document that is not deleted now.

    Attributes:
        id: Of the document.
        chunks: Chunks that search finds again.
        deleted_at: Since when it was deleted; None: it was not, and nothing was written.
    """

    id: UUID
    chunks: int
    deleted_at: datetime | None


def delete_document(session: Executor, article_id: str) -> Deletion:
    """Hide a document from search, whatever is published of it, in the caller's transaction; its rows stay.

    Nobody publishes or activates a version of it until `undelete_document`, or a plan with ``undelete=True``, which
    take one as the person's word who deleted it. `retire_document` says another thing: that the source is empty now.

    Raises:
        UnknownDocument: There is no such article.
    """
    deletion = delete_documents(session, [article_id])
    if deletion.unknown:
        raise unknown_document(article_id)
    return deletion


def delete_documents(session: Executor, article_ids: Collection[str]) -> Deletion:
    """Hide documents from search as `delete_document` does, all in three statements of the caller's transaction.

    Locks their rows until it ends. Right without the database's triggers. What no document has is in the result.
    """
    ids = several("article_ids", article_ids, PublishingError, each=str)
    return delete_documents_since(session, dict.fromkeys(ids))


def delete_documents_since(session: Executor, since: Mapping[str, datetime | None]) -> Deletion:
    """Delete documents as `delete_documents` does, each since a time that is known elsewhere.

    Args:
        session: A session or connection.
        since: By article id, the time, with its zone; None, and a time that is still to come: from now on.
    """
    check_atomic(session, "delete_documents")
    found = lock_documents(session, list(since))
    already = sum(row.deleted_at is not None for row in found)
    chunks = hide_documents(session, {row.id: since[row.article_id] for row in found}) if found else 0
    return Deletion(len(found) - already, chunks, already, find_unknown(list(since), found))


def undelete_document(session: Executor, article_id: str) -> UndeletedDocument:
    """Let search find a deleted document again, in the caller's transaction: its current version.

    Nothing is embedded again. Of a document that is not deleted nothing is written. Right without the database's
    triggers.

    Raises:
        UnknownDocument: There is no such article; it may have been purged.
    """
    check_atomic(session, "undelete_document")
    document = lock_document(session, article_id)
    if document is None:
        raise unknown_document(article_id)
    if document.deleted_at is None:
        return UndeletedDocument(document.id, 0, None)
    unmark_deleted(session, document.id)
    shown = 0
    if document.current_version_id is not None:
        shown, _ = show_version(session, document.id, document.current_version_id, document.text_config)
    return UndeletedDocument(document.id, shown, document.deleted_at)


def undelete_documents(session: Executor, article_ids: Collection[str]) -> Undeletion:
    """Let search find deleted documents again as `undelete_document` does, all in three statements.

    In the caller's transaction; locks their rows until it ends. Right without the database's triggers. What no
    document has is in the result.
    """
    ids = several("article_ids", article_ids, PublishingError, each=str)
    check_atomic(session, "undelete_documents")
    found = lock_documents(session, ids)
    deleted = [row for row in found if row.deleted_at is not None]
    chunks = show_documents(session, [row.id for row in deleted]) if deleted else 0
    undeleted = tuple(row.article_id for row in deleted)
    return Undeletion(undeleted, chunks, len(found) - len(deleted), find_unknown(ids, found))


def lock_documents(session: Executor, article_ids: Sequence[str]) -> Sequence[sa.Row[Any]]:
    """Lock the rows of documents until the transaction ends; return id, article_id and deleted_at of those there are.

    In one order, so that two callers wait for each other rather than deadlock.
    """
    return connection_of(session).execute(_LOCK, {"article_ids": list(article_ids)}).all()


def find_unknown(article_ids: Sequence[str], found: Sequence[sa.Row[Any]]) -> tuple[str, ...]:
    """Return the article ids that no document has, each once, in their order."""
    known = {row.article_id for row in found}
    return tuple(each for each in dict.fromkeys(article_ids) if each not in known)


_LOCK = sa.text(
    "SELECT id, article_id, deleted_at FROM rag_documents WHERE article_id = ANY(CAST(:article_ids AS text[]))"
    ' ORDER BY article_id COLLATE "C" FOR UPDATE'
)
