"""The life of a document besides new versions: another version is activated, it is retired, or purged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from ragschema.publishing.document_locks import lock_document, point_at
from ragschema.publishing.errors import UnknownDocument, unknown_document
from ragschema.publishing.plans import plan_removal
from ragschema.publishing.transactions import check_atomic, connection_of
from ragschema.publishing.writing import PublishedVersion, publish
from ragschema.schema.base import Executor
from ragschema.schema.index_reads import is_one, rows_of


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


def activate_version(session: Executor, article_id: str, version_number: int) -> ActivatedVersion:
    """Make a kept version the current one, to roll back or forward, in the caller's transaction.

    Nothing is embedded again. Locks the document's row; takes four statements, whose work grows with the
    chunks kept of this document only. Right without the database's triggers. A plan made before is stale after it.

    Raises:
        UnknownDocument: There is no such article, or its version is not kept: the evidence lists those that are.
    """
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
    parameters = {"document_id": document.id, "version_id": version_id, "text_config": document.text_config}
    changed = connection_of(session).execute(_SHOW, parameters).scalars().all()
    if document.current_version_id != version_id:
        point_at(session, document.id, version_id)
    return ActivatedVersion(
        version_id, document.id, version_number, changed.count(True), changed.count(False)
    )


def retire_document(session: Executor, article_id: str) -> PublishedVersion:
    """Take a document out of search and keep its history, in the caller's transaction.

    Publishes a version without chunks, its source_hash empty, with a 'deleted' event for each chunk that the
    current one has. Where the current one has none, nothing is written. `activate_version` brings it back, and
    so does publishing a text, which reuses every embedding that is kept. Locks the document's row.

    Raises:
        UnknownDocument: There is no such article, or it never had a version.
    """
    check_atomic(session, "retire_document")
    _lock(session, article_id)
    plan = plan_removal(session, article_id)
    if plan is None:
        raise unknown_document(article_id)
    return publish(session, plan)


def purge_document(session: Executor, article_id: str) -> Purge:
    """Destroy a document with all its versions, chunks and events, in the caller's transaction.

    Returns:
        What was destroyed.

    Raises:
        UnknownDocument: There is no such article.
    """
    check_atomic(session, "purge_document")
    parameters = {"document_id": _lock(session, article_id).id}
    embeddings = connection_of(session).scalar(_COUNT_EMBEDDINGS, parameters) or 0
    events, chunks, versions, _ = (
        connection_of(session).execute(statement, parameters).rowcount for statement in _PURGE
    )
    return Purge(versions=versions, chunks=chunks, events=events, embeddings=embeddings)


def _lock(session: Executor, article_id: str) -> sa.Row[Any]:
    document = lock_document(session, article_id)
    if document is None:
        raise unknown_document(article_id)
    return document


# The shapes are those of where a version is planned, and the reasons too.
_SHOW = sa.text(f"""
WITH manifest AS MATERIALIZED (
    SELECT e.chunk_id AS id FROM rag_chunk_events e
    WHERE {is_one("e.version_id", ":version_id")} AND e.event_type <> 'deleted'
    UNION
    SELECT c.id FROM rag_chunks c
    WHERE {is_one("c.version_id", ":version_id")}
    AND (
        SELECT e.id FROM rag_chunk_events e WHERE {is_one("e.version_id", ":version_id")}
        ORDER BY e.version_id LIMIT 1
    ) IS NULL
), written AS MATERIALIZED (
    SELECT c.id, c.is_current
    FROM rag_document_versions v
    CROSS JOIN {rows_of("rag_chunks", "version_id", "v.id")} c
    WHERE {is_one("v.document_id", ":document_id")}
), compared AS MATERIALIZED (
    SELECT w.id, w.is_current, m.id IS NOT NULL AS is_listed FROM written w FULL JOIN manifest m ON m.id = w.id
)
UPDATE rag_chunks c
SET is_current = NOT c.is_current,
    text_config = CASE WHEN c.is_current THEN c.text_config ELSE CAST(:text_config AS text) END
WHERE c.id = ANY(ARRAY(SELECT id FROM compared WHERE is_current <> is_listed))
RETURNING c.is_current
""")
_CHUNKS, _EVENTS = (
    f"""
    SELECT r.id FROM rag_document_versions v CROSS JOIN {rows_of(table, "version_id", "v.id", "id")} r
    WHERE {is_one("v.document_id", ":document_id")}
    """
    for table in ("rag_chunks", "rag_chunk_events")
)
# Embeddings go with their chunks, by the foreign key: a worker that is storing one holds its chunk, and whoever
# deleted the embedding first would wait for that worker while it is waited for.
_COUNT_EMBEDDINGS = sa.text(
    f"SELECT count(*) FROM rag_chunk_embeddings WHERE chunk_id = ANY(ARRAY({_CHUNKS}))"
)
_PURGE = (
    sa.text(f"DELETE FROM rag_chunk_events WHERE id = ANY(ARRAY({_EVENTS}))"),
    sa.text(f"DELETE FROM rag_chunks WHERE id = ANY(ARRAY({_CHUNKS}))"),
    sa.text(f"DELETE FROM rag_document_versions WHERE {is_one('document_id', ':document_id')}"),
    sa.text("DELETE FROM rag_documents WHERE id = :document_id"),
)
