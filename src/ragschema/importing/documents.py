"""Documents of a source: its rows, grouped by article_id, and what `publish_many` is given of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragschema.embeddings.wire import Vector
from ragschema.errors import ImportRefused
from ragschema.importing.sources import Row, Source
from ragschema.publishing.documents import BulkDocument
from ragschema.publishing.live_models import LiveModel
from ragschema.publishing.sources import ChunkText
from ragschema.publishing.sources import Source as Origin
from ragschema.words import counted

MOST_CHUNKS = 50_000
"""Of one document, which is held in memory."""

Models = Mapping[int, LiveModel]
"""By dimensions, the model that embeddings go to."""


@dataclass(frozen=True, eq=False)
class ImportedDocument(BulkDocument):
    """A document to publish, with what is written beside it.

    Attributes:
        partial: By model, the embeddings of some of the chunks: ordinals, and an array of shape ``(n, dimensions)``.
        collections: The names of the collections that it is in, each with its description, or None.
        is_deleted: Whether the source has deleted it.
        deleted_at: Since when, where the source says it.
        is_known: Whether an earlier run has imported it.
        counted_as: What is to become of it: ``added``, ``changed`` or ``unchanged``.
    """

    partial: Mapping[str | None, tuple[list[int], Vector]] = field(default_factory=dict)
    collections: Mapping[str, str | None] = field(default_factory=dict)
    is_deleted: bool = False
    deleted_at: datetime | None = None
    is_known: bool = False
    counted_as: str = "added"

    def given_embeddings(self) -> Iterator[tuple[str | None, Sequence[int], Vector]]:
        """Yield what the source has, by model: the key, None of the active one; ordinals; as many vectors."""
        if self.embeddings is not None:
            yield None, range(len(self.embeddings)), np.asarray(self.embeddings, np.float32)
        for key, vectors in (self.model_embeddings or {}).items():
            if vectors is not None:
                yield key, range(len(vectors)), np.asarray(vectors, np.float32)
        for key_, (ordinals, some) in self.partial.items():
            yield key_, ordinals, some


@dataclass(frozen=True)
class Naming:
    """What versions say besides what the source says.

    Attributes:
        chunker: Their chunker_version, by which an import knows its documents again.
        embedder: Their embedder_version; None: the active model's key.
        text_config: The text search configuration of new documents.
    """

    chunker: str
    embedder: str | None
    text_config: str


@dataclass
class Tally:
    """What has been read so far."""

    documents: int = 0
    chunks: int = 0
    without_embedding: int = 0
    zero_embeddings: int = 0
    deleted: int = 0
    empty_chunks: int = 0
    dimensions: dict[int, int] = field(default_factory=dict)


def read_documents(
    source: Source, after: str | None, models: Models, naming: Naming, tally: Tally, *, skip_deleted: bool
) -> Iterator[ImportedDocument]:
    """Yield the documents of a source in the order of their ids, and count what is read.

    Args:
        source: The source.
        after: The document after which to go on.
        models: Where embeddings go; those of other dimensions are left out, and counted.
        naming: What versions say.
        tally: Counts.
        skip_deleted: Whether to leave out what the source has deleted; it is counted either way.

    Raises:
        ImportRefused: A document is too large, or rows have no article_id.
    """
    read = reader_of(source.embedding_type)
    for article_id, grouped in groupby(source.rows(after), attrgetter("article_id")):
        rows = []
        for row in grouped:
            rows.append(row)
            if len(rows) > MOST_CHUNKS:
                raise ImportRefused(
                    f"Document {str(article_id)[:80]!r} of the source has more than {counted(MOST_CHUNKS, 'row')}.",
                    "Tell documents by another key: --document-key NAME, or the article_id of a map.",
                )
        if article_id is None:
            raise ImportRefused(
                f"Rows of the source have no article_id: {counted(len(rows), 'row')}.",
                "Give them one in the source, or read it by a map whose query does.",
            )
        if _is_deleted(rows):
            tally.deleted += 1
            if skip_deleted:
                continue
        yield _document(article_id, rows, read, models, naming, tally)


def _document(
    article_id: str,
    rows: list[Row],
    read: Any,
    models: Models,
    naming: Naming,
    tally: Tally,
) -> ImportedDocument:
    # a document without chunks is a row whose chunk is NULL
    there = [row for row in rows if (row.content, row.embedding, row.metadata) != (None, None, None)]
    filled = [row for row in there if row.content and not row.content.isspace()]
    tally.empty_chunks += len(there) - len(filled)
    vectors = [row.embedding for row in filled]
    tally.documents += 1
    tally.chunks += len(filled)
    places: dict[int, list[int]] = {}
    found: dict[int, NDArray[np.float32]] = {}
    for dimensions, (ordinals, array) in _read_embeddings(article_id, vectors, read).items():
        is_zero = np.asarray(~array.any(axis=1))
        tally.dimensions[dimensions] = tally.dimensions.get(dimensions, 0) + len(ordinals)
        tally.zero_embeddings += int(is_zero.sum())
        places[dimensions] = [each for each, zero in zip(ordinals, is_zero, strict=True) if not zero]
        found[dimensions] = array[~is_zero]
    tally.without_embedding += sum(vector is None for vector in vectors)
    details = [_read_details(row.metadata) for row in filled]
    first = rows[0]
    metadata = _read_details(first.document_metadata) or _shared(details)
    said = [
        [row.content, row.metadata, row.start_offset, row.end_offset, row.embedding is None] for row in filled
    ]
    hashed = json.dumps([first.document_metadata, said])
    return ImportedDocument(
        article_id,
        [
            ChunkText(row.content or "", row.start_offset, row.end_offset, each, row.token_count)
            for row, each in zip(filled, details, strict=True)
        ],
        source_hash=hashlib.sha256(hashed.encode()).hexdigest(),
        chunker_version=naming.chunker,
        embedder_version=naming.embedder,
        title=next((row.title for row in rows if row.title), None),
        url=next((row.url for row in rows if row.url), None),
        created_at=min((row.created_at for row in rows if row.created_at is not None), default=None),
        text_config=naming.text_config,
        metadata=metadata,
        collections={
            name: described
            for row in rows
            for name, described in _read_collections(article_id, row.collections).items()
        },
        is_deleted=_is_deleted(rows),
        deleted_at=min((row.deleted_at for row in rows if row.deleted_at is not None), default=None),
        source=Origin(first.file_name, first.mime_type, first.byte_size, first.content_hash, first.language),
        **_embeddings(len(filled), places, found, models),
    )


def _read_embeddings(
    article_id: str, vectors: Sequence[Any], read: Any
) -> dict[int, tuple[list[int], NDArray[np.float32]]]:
    try:
        found: dict[int, tuple[list[int], NDArray[np.float32]]] = read(vectors)
    except (ValueError, TypeError) as exc:  # text that is none, or an array with NULL in it
        raise ImportRefused(
            f"An embedding of document {article_id[:80]!r} of the source is no list of numbers: {exc}.",
            "Let the query make a vector, a halfvec or an array of numbers of it, or NULL.",
        ) from exc
    return found


def _read_collections(article_id: str, text: str | None) -> dict[str, str | None]:
    """Return the collections of a row: names, each with its description, or None.

    Raises:
        ImportRefused: They are no such object.
    """
    said = None if text is None else json.loads(text)
    if said is None:
        return {}
    if not isinstance(said, dict) or not all(
        name.strip() and (described is None or isinstance(described, str)) for name, described in said.items()
    ):
        raise ImportRefused(
            f"The collections of document {article_id[:80]!r} of the source are {text}.",
            'Let the query make an object of names and descriptions of them, or NULL: {"recipes": null}.',
        )
    return {_without_nul(name): _without_nul(described) for name, described in said.items()}


def _is_deleted(rows: Sequence[Row]) -> bool:
    return any(row.deleted or row.deleted_at is not None for row in rows)


def _shared(details: Sequence[Mapping[str, Any] | None]) -> dict[str, Any]:
    """Return the metadata that all chunks of a document have alike: searches filter by a document's."""
    if not details or details[0] is None:
        return {}
    shared = dict(details[0])
    for each in details[1:]:
        shared = {
            name: value for name, value in shared.items() if each and name in each and each[name] == value
        }
    return shared


def _read_details(text: str | None) -> dict[str, Any] | None:
    """Return metadata as a dict; json may hold U+0000, which jsonb does not."""
    if text is None or text == "{}":
        return None
    value = json.loads(text)
    if "\\u0000" in text:
        value = _without_nul(value)
    if value is None or isinstance(value, dict):
        return value
    return {"metadata": value}


def _embeddings(
    count: int,
    places: Mapping[int, list[int]],
    found: Mapping[int, Vector],
    models: Models,
) -> dict[str, Any]:
    """Return the embeddings as arguments of a document: those of all chunks, or those of some."""
    given: dict[str, Any] = {"embeddings": None}
    for dimensions, ordinals in places.items():
        model = models.get(dimensions)
        if model is None or not ordinals:
            continue
        if len(ordinals) < count:
            key = model.key if model.is_registered else None
            given.setdefault("partial", {})[key] = (ordinals, found[dimensions])
        elif model.is_active:
            given["embeddings"] = found[dimensions]
        else:
            given["model_embeddings"] = {model.key: found[dimensions]}
    return given


def _without_nul(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\0", "")
    if isinstance(value, list):
        return [_without_nul(each) for each in value]
    if isinstance(value, dict):
        return {_without_nul(key): _without_nul(each) for key, each in value.items()}
    return value


def reader_of(type_: str) -> Any:
    """Return a function that reads embeddings of a type as the server sends them.

    It returns, by dimensions, the places of those that have as many, and an array of shape ``(n, dimensions)``.
    """
    if type_ in ("vector", "halfvec"):
        number = ">f4" if type_ == "vector" else ">f2"
        return lambda values: _read_binary(values, np.dtype(number))
    return _read_lists


def _read_binary(
    values: Sequence[bytes | None], number: np.dtype[Any]
) -> dict[int, tuple[list[int], NDArray[np.float32]]]:
    by_length: dict[int, list[int]] = {}
    for place, value in enumerate(values):
        if value is not None:
            by_length.setdefault((len(value) - 4) // number.itemsize, []).append(place)
    found = {}
    for dimensions, places in by_length.items():
        sent = np.frombuffer(
            b"".join(value for place in places if (value := values[place]) is not None),
            [("dim", ">i2"), ("unused", ">i2"), ("numbers", number, (dimensions,))],
        )
        found[dimensions] = (places, sent["numbers"].astype(np.float32))
    return found


def _read_lists(values: Sequence[Any]) -> dict[int, tuple[list[int], NDArray[np.float32]]]:
    by_length: dict[int, list[tuple[int, NDArray[np.float32]]]] = {}
    for place, value in enumerate(values):
        if value is None:
            continue
        numbers = json.loads(value) if isinstance(value, str) else value
        with np.errstate(over="ignore"):  # what is too large for float32 is refused as infinite
            array = np.array([float(each) for each in numbers], np.float32)
        by_length.setdefault(len(array), []).append((place, array))
    return {
        dimensions: ([place for place, _ in each], np.array([array for _, array in each]))
        for dimensions, each in by_length.items()
    }
