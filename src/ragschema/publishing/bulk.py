"""Loading many documents: COPY in binary, many documents a transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

import numpy as np
import psycopg
import sqlalchemy as sa
from numpy.typing import ArrayLike, NDArray
from psycopg import sql

from ragschema.embedding import Embedding, EmbeddingError, Vector
from ragschema.ids import uuid7_bytes, uuid7s
from ragschema.publishing import binary_rows
from ragschema.publishing.errors import PublishingError
from ragschema.publishing.plans import check_texts, plan_version
from ragschema.publishing.writing import publish

BULK_BATCH = 5_000


@dataclass(frozen=True, eq=False)
class BulkDocument:
    """A document to load, in one version.

    Attributes:
        article_id: The caller's key.
        contents: The chunks' texts in order, at least one.
        embeddings: Of shape ``(len(contents), 768)``; or None where they are to come.
        source_hash: Hash of the text before chunking.
        chunker_version: What cut it.
        embedder_version: What embedded it.
        title: Shown in citations.
        url: Likewise.
        text_config: Text search configuration of a document that does not exist yet.
    """

    article_id: str
    contents: Sequence[str]
    embeddings: Sequence[ArrayLike] | NDArray[Any] | None
    source_hash: str
    chunker_version: str
    embedder_version: str
    title: str | None = None
    url: str | None = None
    text_config: str = "simple"


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
    costs about 2 ms; for more than a few thousand see `deferred_index`.

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
    for batch in _split(documents, batch_size):
        with connection.begin():
            done = _publish_batch(connection, driver, batch, done)
        if progress is not None:
            progress(done)
    return done


@dataclass(frozen=True, eq=False)
class _Checked:
    document: BulkDocument
    vectors: Vector | None


def _psycopg_connection(connection: sa.Connection) -> psycopg.Connection[Any]:
    if connection.in_transaction():
        raise PublishingError(
            "publish_many commits each batch, and this connection is in a transaction.",
            "Commit first, or give it a connection of its own.",
        )
    driver = connection.connection.driver_connection
    connection.rollback()
    if not isinstance(driver, psycopg.Connection):
        raise PublishingError(
            f"COPY needs psycopg's own connection, and this is {type(driver).__module__}.{type(driver).__name__}.",
            "Create the engine with a postgresql+psycopg:// URL and create_engine, also in async code.",
        )
    return driver


def _split(documents: Iterable[BulkDocument], batch_size: int) -> Iterator[list[_Checked]]:
    """Yield batches of checked documents, none twice in a batch."""
    batch: dict[str, _Checked] = {}
    chunks = 0
    for document in documents:
        if chunks >= batch_size or document.article_id in batch:
            yield [*batch.values()]
            batch, chunks = {}, 0
        batch[document.article_id] = _check(document)
        chunks += len(document.contents)
    if batch:
        yield [*batch.values()]


def _check(document: BulkDocument) -> _Checked:
    check_texts(document.article_id, document.contents)
    if document.embeddings is None:
        return _Checked(document, None)
    if len(document.embeddings) != len(document.contents):
        raise EmbeddingError(
            f"Article {document.article_id!r} has {len(document.contents)} chunks"
            f" and {len(document.embeddings)} embeddings.",
            "Pass one embedding for each chunk, or None for embeddings to come.",
        )
    return _Checked(document, Embedding().check_all(document.embeddings))


def _publish_batch(
    connection: sa.Connection, driver: psycopg.Connection[Any], batch: Sequence[_Checked], done: BulkLoad
) -> BulkLoad:
    known = connection.execute(_KNOWN, {"article_ids": [item.document.article_id for item in batch]})
    states = {row.article_id: tuple(row)[1:] for row in known}
    waiting = [item for item in batch if states.get(item.document.article_id) != _state(item.document)]
    absent = [item for item in waiting if item.document.article_id not in states]
    document_ids = _add_documents(connection, [item.document for item in absent])
    added = [item for item in absent if item.document.article_id in document_ids]
    if added:
        _copy(connection, driver, added, document_ids)
    changed = [item for item in waiting if item.document.article_id not in document_ids]
    if changed:
        connection.execute(_LOCK, {"article_ids": [item.document.article_id for item in changed]})
    for item in changed:
        _publish_one(connection, item)
    return replace(
        done,
        added=done.added + len(added),
        changed=done.changed + len(changed),
        skipped=done.skipped + len(batch) - len(waiting),
        chunks=done.chunks + sum(len(item.document.contents) for item in waiting),
    )


def _state(document: BulkDocument) -> tuple[str, str, str]:
    return document.source_hash, document.chunker_version, document.embedder_version


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


def _copy(
    connection: sa.Connection,
    driver: psycopg.Connection[Any],
    items: Sequence[_Checked],
    document_ids: dict[str, UUID],
) -> None:
    """Write the first versions of documents, with their chunks and events, and make them current."""
    documents = [item.document for item in items]
    lengths = [len(document.contents) for document in documents]
    version_ids = uuid7_bytes(len(documents))
    versions = {
        "ids": [UUID(bytes=id_.tobytes()) for id_ in version_ids],
        "document_ids": [document_ids[document.article_id] for document in documents],
    }
    described = {
        f"{name}s": [getattr(document, name) for document in documents]
        for name in ("source_hash", "chunker_version", "embedder_version", "title", "url")
    }
    connection.execute(_ADD_VERSIONS, versions | described)
    of_chunks = np.repeat(version_ids, lengths, axis=0)
    ordinals = np.concatenate([np.arange(length, dtype=np.int32) for length in lengths])
    chunk_ids = uuid7_bytes(len(of_chunks))
    chunks = binary_rows.chunk_rows(chunk_ids, of_chunks, ordinals, *_text_and_vectors(driver, items))
    _send(driver, "rag_chunks", binary_rows.CHUNK_COLUMNS, chunks)
    events = binary_rows.event_rows(uuid7_bytes(len(of_chunks)), of_chunks, chunk_ids, ordinals)
    _send(driver, "rag_chunk_events", binary_rows.EVENT_COLUMNS, events)
    connection.execute(_POINT, versions)


def _text_and_vectors(
    driver: psycopg.Connection[Any], items: Sequence[_Checked]
) -> tuple[list[bytes], list[bytes], list[bytes]]:
    """Return the fields of embeddings, text configurations and contents of all chunks."""
    encoding = driver.info.encoding
    encoding = "utf-8" if encoding == "ascii" else encoding  # SQL_ASCII: the server takes any bytes
    embeddings: list[bytes] = []
    configs: list[bytes] = []
    contents: list[bytes] = []
    for item in items:
        count = len(item.document.contents)
        embeddings += binary_rows.embedding_fields(item.vectors, count)
        configs += [binary_rows.text_field(item.document.text_config.encode(encoding))] * count
        contents += [binary_rows.text_field(content.encode(encoding)) for content in item.document.contents]
    return embeddings, configs, contents


def _send(driver: psycopg.Connection[Any], table: str, columns: str, rows: bytes) -> None:
    statement = sql.SQL(f"COPY {table} ({columns}) FROM STDIN (FORMAT BINARY)")
    with driver.cursor() as cursor, cursor.copy(statement) as copy:
        for part in (binary_rows.SIGNATURE, rows, binary_rows.TRAILER):
            copy.write(part)


def _publish_one(connection: sa.Connection, item: _Checked) -> None:
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
    publish(connection, plan, dict(zip(document.contents, vectors, strict=True)))


_KNOWN = sa.text("""
SELECT d.article_id, v.source_hash, v.chunker_version, v.embedder_version
FROM rag_documents d LEFT JOIN rag_document_versions v ON v.id = d.current_version_id
WHERE d.article_id = ANY(:article_ids)
""")
_LOCK = sa.text(
    'SELECT FROM rag_documents WHERE article_id = ANY(:article_ids) ORDER BY article_id COLLATE "C" FOR UPDATE'
)
_ADD_DOCUMENTS = sa.text("""
INSERT INTO rag_documents (id, article_id, text_config)
SELECT * FROM unnest(CAST(:ids AS uuid[]), CAST(:article_ids AS text[]), CAST(:text_configs AS text[]))
ON CONFLICT (article_id) DO NOTHING
RETURNING article_id, id
""")
_ADD_VERSIONS = sa.text("""
INSERT INTO rag_document_versions
    (id, document_id, version_number, source_hash, chunker_version, embedder_version, title, url)
SELECT id, document_id, 1, source_hash, chunker_version, embedder_version, title, url
FROM unnest(
    CAST(:ids AS uuid[]), CAST(:document_ids AS uuid[]), CAST(:source_hashs AS text[]),
    CAST(:chunker_versions AS text[]), CAST(:embedder_versions AS text[]), CAST(:titles AS text[]),
    CAST(:urls AS text[])
) AS t (id, document_id, source_hash, chunker_version, embedder_version, title, url)
""")
_POINT = sa.text("""
UPDATE rag_documents d SET current_version_id = t.id, updated_at = now()
FROM unnest(CAST(:ids AS uuid[]), CAST(:document_ids AS uuid[])) AS t (id, document_id)
WHERE d.id = t.document_id
""")
