"""Documents to load in bulk, checked before the round trip."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from ragschema.embeddings.column_type import EmbeddingError
from ragschema.embeddings.wire import EmbeddingLike, Vector
from ragschema.errors import RagSchemaError
from ragschema.publishing.errors import ContentError, PublishingError
from ragschema.publishing.given_embeddings import checked_keys
from ragschema.publishing.live_models import LiveModel, LiveModels
from ragschema.publishing.memberships import checked_collections
from ragschema.publishing.sources import NOWHERE, ChunkText, Location, Source
from ragschema.publishing.texts import CheckedContents, Refuse, check_contents, check_names, say
from ragschema.publishing.version_plan import VersionPlan
from ragschema.values import check_whole, find_problem_of_time, several
from ragschema.words import counted


@dataclass(frozen=True, eq=False)
class BulkDocument:
    """A document to load, in one version.

    Attributes:
        article_id: The caller's key.
        contents: The chunks' texts in order, each a str, or a `ChunkText` that says where it stands.
        embeddings: By the active model, of shape ``(len(contents), dimension)``; or None where they are to come.
        source_hash: Hash of the text before chunking.
        chunker_version: What cut it.
        embedder_version: What embedded it; by default the active model's key, where models are registered.
        title: Shown in citations.
        url: Likewise.
        text_config: Text search configuration of a document that does not exist yet; by default the first of its
            collections', else ``simple``.
        model_embeddings: By any live model, by its key, in the same form as ``embeddings``.
        metadata: What searches filter by, as in `plan_version`.
        source: The file that the text was read from.
        created_at: When the document, its first version and their chunks were made, with a time zone; where it does
            not exist yet, `publish_many` only. Now by default.
        collection_ids: Collections that it joins, also where it is up to date.
    """

    article_id: str
    contents: Sequence[str | ChunkText]
    embeddings: Sequence[EmbeddingLike] | NDArray[Any] | None
    source_hash: str
    chunker_version: str
    embedder_version: str | None = None
    title: str | None = None
    url: str | None = None
    text_config: str | None = None
    model_embeddings: Mapping[str, Sequence[EmbeddingLike] | NDArray[Any] | None] | None = None
    metadata: Mapping[str, Any] | None = None
    source: Source | None = None
    created_at: datetime | None = None
    collection_ids: Sequence[UUID] = ()


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
        plan: What it says of its version, for `plan_versions` to complete.
        contents: Its texts.
        embedder_version: What its version says of its embedder.
        vectors: By the id of their model, of shape ``(len(contents), dimensions)``.
        created_at: When it was made; None: now.
    """

    plan: VersionPlan
    contents: CheckedContents
    embedder_version: str
    vectors: Mapping[int, Vector]
    created_at: datetime | None = None

    @property
    def article_id(self) -> str:
        return self.plan.article_id

    @property
    def texts(self) -> Sequence[str]:
        return self.contents.texts

    @property
    def locations(self) -> Sequence[Location]:
        """What is said of each text."""
        return self.contents.locations or [NOWHERE] * len(self.texts)


def batches(documents: Iterable[BulkDocument], batch_size: int) -> Iterator[list[BulkDocument]]:
    """Yield batches of documents, none twice in a batch, with as many chunks or somewhat more."""
    batch_size = check_whole("batch_size", batch_size, PublishingError)
    batch: dict[object, BulkDocument] = {}
    chunks = 0
    for document in documents:
        several("documents", [document], PublishingError, each=BulkDocument)
        # what is no text is refused when it is read
        key = document.article_id if isinstance(document.article_id, str) else object()
        if chunks >= batch_size or key in batch:
            yield [*batch.values()]
            batch, chunks = {}, 0
        batch[key] = document
        is_several = isinstance(document.contents, Sized) and not isinstance(document.contents, str)
        chunks += len(document.contents) if is_several else 1
    if batch:
        yield [*batch.values()]


def describe(
    document: BulkDocument, refuse: Refuse | None = None, *, undelete: bool = False
) -> tuple[VersionPlan, CheckedContents]:
    """Return what a document says of its version, for `plan_versions` to complete, and its texts.

    Raises:
        ContentError: Something of it cannot be stored, or a text is refused.
    """
    contents = check_contents(document.article_id, document.contents, refuse)
    plan = VersionPlan(
        document.article_id,
        document.source_hash,
        document.chunker_version,
        document.embedder_version,
        document.title,
        document.url,
        document.text_config,
        undelete=undelete,
        collection_ids=checked_collections(document.collection_ids),
    )
    check_names(plan)
    return say(plan, document.metadata, document.source), contents


def memberships(
    batch: Sequence[CheckedDocument],
    plans: Iterable[VersionPlan],
    changed: Sequence[CheckedDocument],
    published: Sequence[object | None],
) -> list[tuple[UUID, str]]:
    """Return the collections that documents join, each with an article; of those that are deleted, none.

    Args:
        batch: The documents.
        plans: The plans of those that were there.
        changed: Those of them that were to get another version.
        published: What they got; None: they are deleted.
    """
    withheld = {plan.article_id for plan in plans if plan.is_withheld}
    pairs = zip(changed, published, strict=True)
    withheld |= {item.article_id for item, version in pairs if version is None}
    return [
        (id_, item.article_id)
        for item in batch
        if item.article_id not in withheld
        for id_ in item.plan.collection_ids
    ]


def has_nothing_new(item: CheckedDocument, plan: VersionPlan) -> bool:
    """Whether publishing would write nothing: no version, no embedding that a row waits for, nothing to undelete."""
    return (
        plan.is_up_to_date
        and plan.deleted_at is None
        and not any(any(needs.is_pending) for needs in plan.needs if needs.model.id in item.vectors)
    )


def embeddings_by_model(item: CheckedDocument, live: LiveModels) -> dict[str, dict[str, EmbeddingLike]]:
    """Return the embeddings that a document has of models that are not active, by key and by text."""
    others = (model for model in live.all if model != live.active)
    found = {model.key: embeddings_by_text(item, model) for model in others}
    return {key: embeddings for key, embeddings in found.items() if embeddings is not None}


def embeddings_by_text(item: CheckedDocument, model: LiveModel | None) -> dict[str, EmbeddingLike] | None:
    """Return the embeddings that a document has of a model, by text; None: none."""
    vectors = item.vectors.get(model.id) if model else None
    return None if vectors is None else dict(zip(item.texts, vectors, strict=True))


def check_document(document: BulkDocument, live: LiveModels) -> CheckedDocument:
    """Check all texts and embeddings of a document.

    Raises:
        ContentError: A text cannot be stored, or nothing says what embedded it.
        EmbeddingError: The embeddings of a model are not one for each chunk, or cannot be stored; or a model is not
            live.
    """
    plan, contents = describe(document)
    if document.created_at is not None and (problem := find_problem_of_time(document.created_at)):
        raise ContentError(
            f"The created_at of article {document.article_id!r} {problem}.",
            "Pass a datetime with a time zone, such as datetime.now(UTC).",
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
            vectors[model.id] = _check_embeddings(document.article_id, contents.texts, model, embeddings)
    label = live.label(document.article_id, document.embedder_version)
    return CheckedDocument(plan, contents, label, vectors, document.created_at)


def _check_embeddings(
    article_id: str,
    texts: Sequence[str],
    model: LiveModel,
    embeddings: Sequence[EmbeddingLike] | NDArray[Any],
) -> Vector:
    if not isinstance(embeddings, np.ndarray):
        embeddings = several("embeddings", embeddings, EmbeddingError, is_ordered=True)
    if len(embeddings) != len(texts):
        of_model = f" of {model.key!r}" if model.is_registered else ""
        raise EmbeddingError(
            f"Article {article_id!r} has {counted(len(texts), 'chunk')}"
            f" and {counted(len(embeddings), 'embedding')}{of_model}.",
            "Pass one embedding for each chunk, or None for embeddings to come.",
        )
    try:
        return model.check_all(embeddings)
    except EmbeddingError:
        check_vectors(article_id, texts, dict(enumerate(embeddings)), model)
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
