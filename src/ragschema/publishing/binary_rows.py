"""Rows in the binary format of COPY, made by the column rather than by the value."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragschema.embeddings.wire import Vector
from ragschema.schema.ids import IdBytes

SIGNATURE = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"
EMBEDDING_COLUMNS = "chunk_id, model_id, is_current, embedding"

_ID = [("length", ">i4"), ("value", "u1", 16)]
_INTEGER = [("length", ">i4"), ("value", ">i4")]
_CHUNK = np.dtype(
    [("columns", ">i2"), ("id", _ID), ("version_id", _ID), ("ordinal", _INTEGER), ("is_current", "S5")]
)
_NULL = struct.pack(">i", -1)
_EVENT = np.dtype(
    [
        ("columns", ">i2"),
        ("id", _ID),
        ("version_id", _ID),
        ("chunk_id", _ID),
        ("ordinal", _INTEGER),
        ("event_type", "S9"),
    ]
)


def chunk_columns(*, is_located: bool) -> str:
    """Return the columns of `chunk_rows`, with token counts or without."""
    columns = "id, version_id, ordinal, is_current, embedding, text_config, content"
    return f"{columns}, token_count" if is_located else columns


def event_columns(*, is_located: bool) -> str:
    """Return the columns of `event_rows`, with locations or without."""
    columns = "id, version_id, chunk_id, ordinal, event_type"
    return f"{columns}, start_offset, end_offset, metadata" if is_located else columns


def chunk_rows(
    ids: IdBytes,
    version_ids: IdBytes,
    ordinals: NDArray[np.int32],
    embeddings: Iterable[bytes],
    text_configs: Iterable[bytes],
    contents: Iterable[bytes],
    token_counts: Sequence[bytes] = (),
) -> bytes:
    """Return the rows of current chunks, with `chunk_columns`.

    Args:
        ids: Shape ``(n, 16)``, like ``version_ids``.
        version_ids: Of their versions.
        ordinals: Shape ``(n,)``.
        embeddings: By `embedding_fields`.
        text_configs: By `text_field`, like ``contents``.
        contents: Their texts.
        token_counts: By `integer_field`; none where the rows are without them.
    """
    rows = np.zeros(len(ids), _CHUNK)
    rows["columns"] = 8 if token_counts else 7
    _set(rows, id=ids, version_id=version_ids, ordinal=ordinals)
    rows["is_current"] = struct.pack(">i?", 1, True)
    columns = [_split(rows), embeddings, text_configs, contents, *([token_counts] if token_counts else [])]
    return b"".join(part for row in zip(*columns, strict=True) for part in row)


def event_rows(
    ids: IdBytes,
    version_ids: IdBytes,
    chunk_ids: IdBytes,
    ordinals: NDArray[np.int32],
    locations: Sequence[bytes] = (),
) -> bytes:
    """Return the rows of events that say a chunk was added, with `event_columns`.

    Args:
        ids: Shape ``(n, 16)``, like ``version_ids`` and ``chunk_ids``.
        version_ids: Of their versions.
        chunk_ids: What was added.
        ordinals: Shape ``(n,)``.
        locations: Two offsets by `integer_field` and details by `json_field`; none where the rows are without them.
    """
    rows = np.zeros(len(ids), _EVENT)
    rows["columns"] = 8 if locations else 5
    _set(rows, id=ids, version_id=version_ids, chunk_id=chunk_ids, ordinal=ordinals)
    rows["event_type"] = text_field(b"added")
    if not locations:
        return rows.tobytes()
    return b"".join(part for row in zip(_split(rows), locations, strict=True) for part in row)


def embedding_rows(chunk_ids: IdBytes, model_id: int, vectors: Vector) -> bytes:
    """Return the rows of a model's embeddings of current chunks, with `EMBEDDING_COLUMNS`.

    Args:
        chunk_ids: Shape ``(n, 16)``.
        model_id: The model.
        vectors: Shape ``(n, dimensions)``.
    """
    dimension = vectors.shape[1]
    embedding = [("length", ">i4"), ("dim", ">i2"), ("unused", ">i2"), ("numbers", ">f2", (dimension,))]
    rows = np.zeros(
        len(chunk_ids),
        [
            ("columns", ">i2"),
            ("chunk_id", _ID),
            ("model_id", "S6"),
            ("is_current", "S5"),
            ("embedding", embedding),
        ],
    )
    rows["columns"] = 4
    _set(rows, chunk_id=chunk_ids)
    rows["model_id"] = struct.pack(">ih", 2, model_id)
    rows["is_current"] = struct.pack(">i?", 1, True)
    rows["embedding"]["length"] = 4 + 2 * dimension
    rows["embedding"]["dim"] = dimension
    rows["embedding"]["numbers"] = vectors
    return rows.tobytes()


def embedding_fields(vectors: Vector | None, count: int) -> Sequence[bytes]:
    """Return the fields of embeddings, of shape ``(count, dimension)``; None: all are to come."""
    if vectors is None:
        return [_NULL] * count
    dimension = vectors.shape[1]
    field = [("length", ">i4"), ("dim", ">i2"), ("unused", ">i2"), ("numbers", ">f4", dimension)]
    fields = np.zeros(count, field)
    fields["length"] = 4 + 4 * dimension
    fields["dim"] = dimension
    fields["numbers"] = vectors
    return _split(fields)


def text_field(text: bytes) -> bytes:
    """Return a field of text in the encoding of the connection."""
    return struct.pack(">i", len(text)) + text


def integer_field(value: int | None) -> bytes:
    """Return a field of an integer of four bytes."""
    return _NULL if value is None else struct.pack(">ii", 4, value)


def json_field(text: bytes | None) -> bytes:
    """Return a field of jsonb, of its text in the encoding of the connection."""
    return _NULL if text is None else struct.pack(">iB", len(text) + 1, 1) + text


def _set(rows: NDArray[Any], **columns: NDArray[Any]) -> None:
    for name, values in columns.items():
        rows[name]["length"] = 16 if values.ndim == 2 else 4
        rows[name]["value"] = values


def _split(rows: NDArray[Any]) -> list[bytes]:
    data, size = rows.tobytes(), rows.dtype.itemsize
    return [data[at : at + size] for at in range(0, len(data), size)]
