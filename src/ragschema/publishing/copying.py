"""The first versions of documents, by COPY in binary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias
from uuid import UUID

import numpy as np
import psycopg
import sqlalchemy as sa
from numpy.typing import NDArray
from psycopg import sql
from sqlalchemy.util import await_only

from ragschema.database.arrays import Texts, Uuids
from ragschema.publishing import binary_rows
from ragschema.publishing.documents import CheckedDocument
from ragschema.publishing.sources import Location, Source
from ragschema.schema.embedding_models import COLUMN_MODEL
from ragschema.schema.ids import IdBytes, uuid7_bytes

Driver: TypeAlias = psycopg.Connection[Any] | psycopg.AsyncConnection[Any]


def copy_documents(
    connection: sa.Connection,
    driver: Driver,
    items: Sequence[CheckedDocument],
    document_ids: Mapping[str, UUID],
) -> None:
    """Write the first versions of documents, with their chunks and events, and make them current."""
    lengths = [len(item.texts) for item in items]
    version_ids = uuid7_bytes(len(items))
    versions = {
        "ids": Uuids(UUID(bytes=id_.tobytes()) for id_ in version_ids),
        "document_ids": Uuids(document_ids[item.article_id] for item in items),
    }
    described = {
        f"{name}s": Texts(getattr(item.plan, name) for item in items)
        for name in ("source_hash", "chunker_version", "title", "url", "metadata")
    } | {
        "embedder_versions": Texts(item.embedder_version for item in items),
        "created_ats": [item.created_at for item in items],
    }
    sources = [item.plan.source or Source() for item in items]
    of_sources = {
        f"{field.name}s": [getattr(source, field.name) for source in sources] for field in fields(Source)
    }
    connection.execute(_ADD_VERSIONS, versions | described | of_sources)
    of_chunks = np.repeat(version_ids, lengths, axis=0)
    ordinals = np.concatenate([np.arange(length, dtype=np.int32) for length in lengths])
    chunk_ids = uuid7_bytes(len(of_chunks))
    encoding = driver.info.encoding
    encoding = "utf-8" if encoding == "ascii" else encoding  # SQL_ASCII: the server takes any bytes
    is_located = any(item.contents.locations for item in items)
    locations = [location for item in items for location in item.locations] if is_located else []
    created = _created(connection, items)
    chunks = binary_rows.chunk_rows(
        chunk_ids,
        of_chunks,
        ordinals,
        *_text_and_vectors(encoding, items),
        token_counts=[binary_rows.integer_field(location.token_count) for location in locations],
        created=None if created is None else np.repeat(created, lengths),
    )
    columns = binary_rows.chunk_columns(is_located=is_located, is_dated=created is not None)
    _send(driver, "rag_chunks", columns, chunks)
    events = binary_rows.event_rows(
        uuid7_bytes(len(of_chunks)),
        of_chunks,
        chunk_ids,
        ordinals,
        locations=[_location_fields(location, encoding) for location in locations],
    )
    _send(driver, "rag_chunk_events", binary_rows.event_columns(is_located=is_located), events)
    for model_id in sorted({id_ for item in items for id_ in item.vectors} - {COLUMN_MODEL}):
        _send(
            driver,
            "rag_chunk_embeddings",
            binary_rows.EMBEDDING_COLUMNS,
            _embeddings(model_id, items, chunk_ids),
        )
    connection.execute(_POINT, versions)


def _created(connection: sa.Connection, items: Sequence[CheckedDocument]) -> NDArray[np.int64] | None:
    """Return when each document was made, in microseconds since 2000; None where it is now, of all of them."""
    if all(item.created_at is None for item in items):
        return None
    now = connection.execute(sa.text("SELECT now()")).scalar_one()
    moments = [item.created_at or now for item in items]
    return np.array([(moment - _EPOCH) // _MICROSECOND for moment in moments], np.int64)


def _embeddings(model_id: int, items: Sequence[CheckedDocument], chunk_ids: IdBytes) -> bytes:
    """Return the rows of a model's embeddings, of the documents that have some."""
    vectors = []
    has_some = []
    for item in items:
        found = item.vectors.get(model_id)
        has_some += [found is not None] * len(item.texts)
        if found is not None:
            vectors.append(found)
    return binary_rows.embedding_rows(chunk_ids[has_some], model_id, np.concatenate(vectors))


def _location_fields(location: Location, encoding: str) -> bytes:
    details = None if location.details is None else location.details.encode(encoding)
    return b"".join(
        (
            binary_rows.integer_field(location.start),
            binary_rows.integer_field(location.end),
            binary_rows.json_field(details),
        )
    )


def _text_and_vectors(
    encoding: str, items: Sequence[CheckedDocument]
) -> tuple[list[bytes], list[bytes], list[bytes]]:
    """Return the fields of embeddings, text configurations and contents of all chunks."""
    embeddings: list[bytes] = []
    configs: list[bytes] = []
    contents: list[bytes] = []
    for item in items:
        count = len(item.texts)
        embeddings += binary_rows.embedding_fields(item.vectors.get(COLUMN_MODEL), count)
        configs += [binary_rows.text_field((item.plan.text_config or "simple").encode(encoding))] * count
        contents += [binary_rows.text_field(content.encode(encoding)) for content in item.texts]
    return embeddings, configs, contents


def _send(driver: Driver, table: str, columns: str, rows: bytes) -> None:
    statement = sql.SQL(f"COPY {table} ({columns}) FROM STDIN (FORMAT BINARY)")
    parts = (binary_rows.SIGNATURE, rows, binary_rows.TRAILER)
    if isinstance(driver, psycopg.AsyncConnection):
        await_only(_send_async(driver, statement, parts))
        return
    with driver.cursor() as cursor, cursor.copy(statement) as copy:
        for part in parts:
            copy.write(part)


async def _send_async(
    driver: psycopg.AsyncConnection[Any], statement: sql.SQL, parts: Sequence[bytes]
) -> None:
    async with driver.cursor() as cursor, cursor.copy(statement) as copy:
        for part in parts:
            await copy.write(part)


_EPOCH, _MICROSECOND = datetime(2000, 1, 1, tzinfo=UTC), timedelta(microseconds=1)
_ADD_VERSIONS = sa.text("""
INSERT INTO rag_document_versions
    (id, document_id, version_number, source_hash, chunker_version, embedder_version, title, url, metadata,
    file_name, mime_type, byte_size, content_hash, language, created_at)
SELECT id, document_id, 1, source_hash, chunker_version, embedder_version, title, url,
    coalesce(CAST(metadata AS jsonb), '{}'), file_name, mime_type, byte_size, content_hash, language,
    coalesce(created_at, now())
FROM unnest(
    CAST(:ids AS uuid[]), CAST(:document_ids AS uuid[]), CAST(:source_hashs AS text[]),
    CAST(:chunker_versions AS text[]), CAST(:embedder_versions AS text[]), CAST(:titles AS text[]),
    CAST(:urls AS text[]), CAST(:metadatas AS text[]), CAST(:file_names AS text[]), CAST(:mime_types AS text[]),
    CAST(:byte_sizes AS bigint[]), CAST(:content_hashs AS text[]), CAST(:languages AS text[]),
    CAST(:created_ats AS timestamptz[])
) AS t (id, document_id, source_hash, chunker_version, embedder_version, title, url, metadata, file_name, mime_type,
    byte_size, content_hash, language, created_at)
""")
_POINT = sa.text("""
UPDATE rag_documents d SET current_version_id = t.id, updated_at = now()
FROM unnest(CAST(:ids AS uuid[]), CAST(:document_ids AS uuid[])) AS t (id, document_id)
WHERE d.id = t.document_id AND d.id = ANY(CAST(:document_ids AS uuid[]))
""")
