"""The life of a document besides new versions: another version is activated, or it is retired."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from ragschema.publishing.document_locks import lock_document, point_at
from ragschema.publishing.errors import PublishingError, UnknownDocument, document_deleted, unknown_document
from ragschema.publishing.facts import FactChanges, settle_facts
from ragschema.publishing.plans import plan_removal
from ragschema.publishing.transactions import check_atomic, connection_of
from ragschema.publishing.visibility import show_chunks
from ragschema.publishing.writing import PublishedVersion, publish
from ragschema.schema.base import Executor
from ragschema.values import check_whole


@dataclass(frozen=True)
class ActivatedVersion:
    """A version that is current now.

    Attributes:
        id: Of the version.
        document_id: Of its document.
        version_number: Its number.
        shown: Chunks that search finds from now on.
        hidden: Chunks that it ceases to find.
    """

    id: UUID
    document_id: UUID
    version_number: int
    shown: int
    hidden: int


def activate_version(session: Executor, article_id: str, version_number: int) -> ActivatedVersion:
    """Make a kept version the current one, to roll back or forward, in the caller's transaction.

    Nothing is embedded again. Locks the document's row; takes four statements, and one more where there is a graph,
    whose work grows with the chunks kept of this document only. Right without the database's triggers. A plan made
    before is stale after it.

    Raises:
        DocumentDeleted: The document is deleted: `undelete_document` comes first.
        UnknownDocument: There is no such article, or its version is not kept: the evidence lists those that are.
    """
    check_whole("version_number", version_number, PublishingError)
    check_atomic(session, "activate_version")
    document = _lock(session, article_id)
    kept = (
        connection_of(session)
        .execute(
            sa.text(
                "SELECT version_number, id FROM rag_document_versions WHERE document_id = :document_id ORDER BY 1"
            ),
            {"document_id": document.id},
        )
        .all()
    )
    version_id = next((row.id for row in kept if row.version_number == version_number), None)
    if version_id is None:
        raise UnknownDocument(
            f"Version {version_number} of article {article_id!r} is not kept.",
            "Activate one that is.",
            f"kept: {', '.join(str(row.version_number) for row in kept)}",
        )
    shown, hidden = show_chunks(session, document.id, version_id, document.text_config)
    if document.current_version_id == version_id or point_at(session, document.id, version_id):
        settle_facts(session, [FactChanges([*shown, *hidden])])
    return ActivatedVersion(version_id, document.id, version_number, len(shown), len(hidden))


def retire_document(session: Executor, article_id: str) -> PublishedVersion:
    """Take a document out of search and keep its history, in the caller's transaction.

    Publishes a version without chunks, its source_hash empty, with a 'deleted' event for each chunk that the
    current one has. Where the current one has none, nothing is written. `activate_version` brings it back, and
    so does publishing a text, which reuses every embedding that is kept. Locks the document's row.

    Raises:
        DocumentDeleted: It is deleted, which hides it whatever is published.
        UnknownDocument: There is no such article, or it never had a version.
    """
    check_atomic(session, "retire_document")
    _lock(session, article_id)
    plan = plan_removal(session, article_id)
    if plan is None:
        raise unknown_document(article_id)
    return publish(session, plan)


def _lock(session: Executor, article_id: str) -> sa.Row[Any]:
    document = lock_document(session, article_id)
    if document is None:
        raise unknown_document(article_id)
    if document.deleted_at is not None:
        raise document_deleted(article_id, document.deleted_at)
    return document
