"""Documents to load in bulk, checked before the round trip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragschema.embeddings.column_type import Embedding, EmbeddingError
from ragschema.embeddings.wire import EmbeddingLike, Vector
from ragschema.errors import RagSchemaError
from ragschema.publishing.texts import check_names, check_texts
from ragschema.publishing.version_plan import VersionPlan
from ragschema.values import several
from ragschema.words import counted


@dataclass(frozen=True, eq=False)
class BulkDocument:
    """A document to load, in one version.

    Attributes:
        article_id: The caller's key.
        contents: The chunks' texts in order.
        embeddings: Of shape ``(len(contents), dimension)``; or None where they are to come.
        source_hash: Hash of the text before chunking.
        chunker_version: What cut it.
        embedder_version: What embedded it.
        title: Shown in citations.
        url: Likewise.
        text_config: Text search configuration of a document that does not exist yet.
    """

    article_id: str
    contents: Sequence[str]
    embeddings: Sequence[EmbeddingLike] | NDArray[Any] | None
    source_hash: str
    chunker_version: str
    embedder_version: str
    title: str | None = None
    url: str | None = None
    text_config: str = "simple"


@dataclass(frozen=True)
class Failure:
    """A document that was left out of a load.

    Attributes:
        article_id: The document.
        error: Why; its message names the chunk where it is about one.
    """

    article_id: str
    error: RagSchemaError


@dataclass(frozen=True, eq=False)
class CheckedDocument:
    """A document that can be stored, with its embeddings as float32."""

    document: BulkDocument
    vectors: Vector | None


def describe(document: BulkDocument) -> VersionPlan:
    """Return what a document says of its version, for `plan_versions` to complete."""
    return VersionPlan(
        document.article_id,
        document.source_hash,
        document.chunker_version,
        document.embedder_version,
        document.title,
        document.url,
        document.text_config,
    )


def check_document(document: BulkDocument) -> CheckedDocument:
    """Check all texts and embeddings of a document.

    Raises:
        ContentError: A text cannot be stored.
        EmbeddingError: The embeddings are not one for each chunk, or cannot be stored.
    """
    check_texts(document.article_id, document.contents)
    check_names(
        document.article_id,
        document.source_hash,
        document.chunker_version,
        document.embedder_version,
        document.title,
        document.url,
        document.text_config,
    )
    if document.embeddings is None:
        return CheckedDocument(document, None)
    if not isinstance(document.embeddings, np.ndarray):
        several("embeddings", document.embeddings, EmbeddingError, is_ordered=True)
    if len(document.embeddings) != len(document.contents):
        raise EmbeddingError(
            f"Article {document.article_id!r} has {counted(len(document.contents), 'chunk')}"
            f" and {counted(len(document.embeddings), 'embedding')}.",
            "Pass one embedding for each chunk, or None for embeddings to come.",
        )
    try:
        return CheckedDocument(document, Embedding().check_all(document.embeddings))
    except EmbeddingError:
        check_vectors(document.article_id, document.contents, dict(enumerate(document.embeddings)))
        raise


def check_vectors(
    article_id: str, contents: Sequence[str], vectors: Mapping[Any, EmbeddingLike | None]
) -> None:
    """Refuse an embedding that cannot be stored, by the chunk and the document that it is of.

    Args:
        article_id: The document.
        contents: Its texts in order.
        vectors: By text, or by place.

    Raises:
        EmbeddingError: One is such.
    """
    for key, value in vectors.items():
        try:
            if value is not None:
                Embedding().check(value)
        except EmbeddingError as exc:
            place = contents.index(key) if isinstance(key, str) else key
            raise EmbeddingError(
                f"Chunk {place} of article {article_id!r}: {exc.message}", exc.remedy
            ) from exc
