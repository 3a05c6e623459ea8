"""Documents to load in bulk, checked before the round trip."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragschema.embeddings.column_type import EmbeddingError
from ragschema.embeddings.wire import EmbeddingLike, Vector
from ragschema.errors import RagSchemaError
from ragschema.publishing.errors import PublishingError
from ragschema.publishing.given_embeddings import checked_keys
from ragschema.publishing.live_models import LiveModel, LiveModels
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
        embeddings: By the active model, of shape ``(len(contents), dimension)``; or None where they are to come.
        source_hash: Hash of the text before chunking.
        chunker_version: What cut it.
        embedder_version: What embedded it; by default the active model's key, where models are registered.
        title: Shown in citations.
        url: Likewise.
        text_config: Text search configuration of a document that does not exist yet.
        model_embeddings: By any live model, by its key, in the same form as ``embeddings``.
    """

    article_id: str
    contents: Sequence[str]
    embeddings: Sequence[EmbeddingLike] | NDArray[Any] | None
    source_hash: str
    chunker_version: str
    embedder_version: str | None = None
    title: str | None = None
    url: str | None = None
    text_config: str = "simple"
    model_embeddings: Mapping[str, Sequence[EmbeddingLike] | NDArray[Any] | None] | None = None


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
    """A document that can be stored, with its embeddings as float32.

    Attributes:
        document: The document.
        embedder_version: What its version says of its embedder.
        vectors: By the id of their model, of shape ``(len(contents), dimensions)``.
    """

    document: BulkDocument
    embedder_version: str
    vectors: Mapping[int, Vector]


def batches(documents: Iterable[BulkDocument], batch_size: int) -> Iterator[list[BulkDocument]]:
    """Yield batches of documents, none twice in a batch, with as many chunks or somewhat more."""
    batch: dict[str, BulkDocument] = {}
    chunks = 0
    for document in documents:
        several("documents", [document], PublishingError, each=BulkDocument)
        if chunks >= batch_size or document.article_id in batch:
            yield [*batch.values()]
            batch, chunks = {}, 0
        batch[document.article_id] = document
        is_several = isinstance(document.contents, Sized) and not isinstance(document.contents, str)
        chunks += len(document.contents) if is_several else 1
    if batch:
        yield [*batch.values()]


def describe(document: BulkDocument, *, undelete: bool) -> VersionPlan:
    """Return what a document says of its version, for `plan_versions` to complete."""
    return VersionPlan(
        document.article_id,
        document.source_hash,
        document.chunker_version,
        document.embedder_version,
        document.title,
        document.url,
        document.text_config,
        undelete=undelete,
    )


def check_document(document: BulkDocument, live: LiveModels) -> CheckedDocument:
    """Check all texts and embeddings of a document.

    Raises:
        ContentError: A text cannot be stored, or nothing says what embedded it.
        EmbeddingError: The embeddings of a model are not one for each chunk, or cannot be stored; or a model is not
            live.
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
    given = [(live.find(key), each) for key, each in checked_keys(document.model_embeddings).items()]
    if document.embeddings is not None:
        given.append((live.find(None), document.embeddings))
    vectors: dict[int, Vector] = {}
    for model, embeddings in given:
        if model.id in vectors:
            raise EmbeddingError(
                f"The embeddings of article {document.article_id!r} are given twice: those of the active model are"
                " among model_embeddings too.",
                "Pass them as embeddings, or by the key of their model.",
            )
        if embeddings is not None:
            vectors[model.id] = _check_embeddings(document, model, embeddings)
    label = live.label(document.article_id, document.embedder_version)
    return CheckedDocument(document, label, vectors)


def _check_embeddings(
    document: BulkDocument, model: LiveModel, embeddings: Sequence[EmbeddingLike] | NDArray[Any]
) -> Vector:
    if not isinstance(embeddings, np.ndarray):
        several("embeddings", embeddings, EmbeddingError, is_ordered=True)
    if len(embeddings) != len(document.contents):
        of_model = f" of {model.key!r}" if model.is_registered else ""
        raise EmbeddingError(
            f"Article {document.article_id!r} has {counted(len(document.contents), 'chunk')}"
            f" and {counted(len(embeddings), 'embedding')}{of_model}.",
            "Pass one embedding for each chunk, or None for embeddings to come.",
        )
    try:
        return model.check_all(embeddings)
    except EmbeddingError:
        check_vectors(document.article_id, document.contents, dict(enumerate(embeddings)), model)
        raise


def check_vectors(
    article_id: str,
    contents: Sequence[str],
    vectors: Mapping[Any, EmbeddingLike | None],
    model: LiveModel,
) -> None:
    """Refuse an embedding that cannot be stored, by the chunk and the document that it is of.

    Args:
        article_id: The document.
        contents: Its texts in order.
        vectors: By text, or by place.
        model: What embedded them.

    Raises:
        EmbeddingError: One is such.
    """
    for key, value in vectors.items():
        try:
            if value is not None:
                model.check(value)
        except EmbeddingError as exc:
            place = contents.index(key) if isinstance(key, str) else key
            raise EmbeddingError(
                f"Chunk {place} of article {article_id!r}: {exc.message}", exc.remedy
            ) from exc
