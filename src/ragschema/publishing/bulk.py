"""Loading many documents: COPY in binary, many documents a transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg
import sqlalchemy as sa

from ragschema.publishing.copying import copy_documents
from ragschema.publishing.documents import BulkDocument, CheckedDocument, check_document
from ragschema.publishing.errors import PublishingError, in_a_transaction
from ragschema.publishing.plans import plan_version
from ragschema.publishing.writing import publish
from ragschema.schema.ids import uuid7s

BULK_BATCH = 5_000


@dataclass(frozen=True)
class BulkLoad:
    """What `publish_many` has done so far.

    Attributes:
        added: Documents that were new.
        changed: Documents that got another version.
        skipped: Documents whose current version had the same source_hash, chunker and embedder.
        chunks: Chunks in the versions that were written.
    """

    added: int = 0
    changed: int = 0
    skipped: int = 0
    chunks: int = 0


def publish_many(
    connection: sa.Connection,
    documents: Iterable[BulkDocument],
    *,
    batch_size: int = BULK_BATCH,
    progress: Callable[[BulkLoad], object] | None = None,
) -> BulkLoad:
    """Publish many documents, with a commit for each batch: new ones by COPY, the others as `publish` does.

    May be interrupted and run again: a document whose current version has the same source_hash, chunker_version
    and embedder_version is skipped. Right without the database's triggers. With the HNSW index in place a chunk
    costs about 2 ms; for more than a few thousand see `deferred_index`. As the tables grow they are analyzed,
    which PostgreSQL itself does a minute late.

    Args:
        connection: A connection over psycopg 3, not asyncio, that is in no transaction: it is committed.
        documents: Read as they are needed. One that comes twice gets two versions.
        batch_size: Chunks after which a transaction is committed; a document is never split.
        progress: Called after each commit with what has been done so far.

    Returns:
        What was done in all.

    Raises:
        ContentError: A text cannot be stored; the batches before it stay.
        EmbeddingError: The embeddings of a document are not one for each of its chunks, or cannot be stored.
        PublishingError: The connection is in a transaction, or is of another driver.
    """
    driver = _psycopg_connection(connection)
    done = BulkLoad()
    analyze_at = batch_size
    for batch in _split(documents, batch_size):
        with connection.begin():
            done = _publish_batch(connection, driver, batch, done)
        if done.chunks >= analyze_at:
            with connection.begin():
                connection.execute(_ANALYZE)
            analyze_at = 4 * done.chunks
        if progress is not None:
            progress(done)
    return done


def _psycopg_connection(connection: sa.Connection) -> psycopg.Connection[Any]:
    if connection.in_transaction():
        raise in_a_transaction("publish_many", "connection")
    driver = connection.connection.driver_connection
    connection.rollback()
    if not isinstance(driver, psycopg.Connection):
        raise PublishingError(
            f"COPY needs psycopg's own connection, and this is {type(driver).__module__}.{type(driver).__name__}.",
            "Create the engine with a postgresql+psycopg:// URL and create_engine, also in async code.",
        )
    return driver


def _split(documents: Iterable[BulkDocument], batch_size: int) -> Iterator[list[CheckedDocument]]:
    """Yield batches of checked documents, none twice in a batch."""
    batch: dict[str, CheckedDocument] = {}
    chunks = 0
    for document in documents:
        if chunks >= batch_size or document.article_id in batch:
            yield [*batch.values()]
            batch, chunks = {}, 0
        batch[document.article_id] = check_document(document)
        chunks += len(document.contents)
    if batch:
        yield [*batch.values()]


def _publish_batch(
    connection: sa.Connection,
    driver: psycopg.Connection[Any],
    batch: Sequence[CheckedDocument],
    done: BulkLoad,
) -> BulkLoad:
    known = connection.execute(_KNOWN, {"article_ids": [item.document.article_id for item in batch]})
    states = {row.article_id: tuple(row)[1:] for row in known}
    waiting = [item for item in batch if states.get(item.document.article_id) != item.document.state]
    absent = [item for item in waiting if item.document.article_id not in states]
    document_ids = _add_documents(connection, [item.document for item in absent])
    added = [item for item in absent if item.document.article_id in document_ids]
    if added:
        copy_documents(connection, driver, added, document_ids)
    changed = [item for item in waiting if item.document.article_id not in document_ids]
    if changed:
        connection.execute(_LOCK, {"article_ids": [item.document.article_id for item in changed]})
    written = added + [item for item in changed if _publish_one(connection, item)]
    return BulkLoad(
        added=done.added + len(added),
        changed=done.changed + len(written) - len(added),
        skipped=done.skipped + len(batch) - len(written),
        chunks=done.chunks + sum(len(item.document.contents) for item in written),
    )


def _add_documents(connection: sa.Connection, documents: Sequence[BulkDocument]) -> dict[str, UUID]:
    """Insert documents; return the ids of those that nobody else has inserted meanwhile."""
    if not documents:
        return {}
    documents = sorted(documents, key=lambda document: document.article_id)  # two loaders wait, not deadlock
    rows = connection.execute(
        _ADD_DOCUMENTS,
        {
            "ids": uuid7s(len(documents)),
            "article_ids": [document.article_id for document in documents],
            "text_configs": [document.text_config for document in documents],
        },
    )
    return {row.article_id: row.id for row in rows}


def _publish_one(connection: sa.Connection, item: CheckedDocument) -> bool:
    """Publish another version of a document; return whether that was needed."""
    document = item.document
    plan = plan_version(
        connection,
        document.article_id,
        document.contents,
        source_hash=document.source_hash,
        chunker_version=document.chunker_version,
        embedder_version=document.embedder_version,
        title=document.title,
        url=document.url,
        text_config=document.text_config,
    )
    vectors = [None] * len(document.contents) if item.vectors is None else item.vectors
    return publish(connection, plan, dict(zip(document.contents, vectors, strict=True))).is_new


_KNOWN = sa.text("""
SELECT d.article_id, v.source_hash, v.chunker_version, v.embedder_version
FROM rag_documents d LEFT JOIN rag_document_versions v ON v.id = d.current_version_id
WHERE d.article_id = ANY(:article_ids)
""")
# Of a table that was empty a moment ago the planner expects the worst, and reads all of it for each document.
_ANALYZE = sa.text(
    "ANALYZE rag_documents, rag_document_versions, rag_chunk_events, rag_chunks (version_id, ordinal, is_current)"
)
_LOCK = sa.text(
    'SELECT FROM rag_documents WHERE article_id = ANY(:article_ids) ORDER BY article_id COLLATE "C" FOR UPDATE'
)
_ADD_DOCUMENTS = sa.text("""
INSERT INTO rag_documents (id, article_id, text_config)
SELECT * FROM unnest(CAST(:ids AS uuid[]), CAST(:article_ids AS text[]), CAST(:text_configs AS text[]))
ON CONFLICT (article_id) DO NOTHING
RETURNING article_id, id
""")
