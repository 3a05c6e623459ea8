"""Results of an import."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Dimensions:
    """Embeddings of as many dimensions.

    Attributes:
        dimensions: Their dimensions.
        embeddings: How many there are.
        model: The key of the model that they go to; None: no model has as many.
    """

    dimensions: int
    embeddings: int
    model: str | None


@dataclass(frozen=True)
class Refusal:
    """A document that cannot be stored as it is.

    Attributes:
        article_id: The document.
        reason: Why.
    """

    article_id: str
    reason: str


@dataclass(frozen=True)
class Import:
    """What an import did, or would do.

    Attributes:
        name: The import, by which its documents are known again: the chunker_version of their versions.
        is_dry_run: Whether nothing was changed.
        resumed_after: The document after which an import that was interrupted went on; None: it began.
        documents: Documents that were read.
        chunks: Their chunks.
        without_embedding: Chunks that have no embedding, and wait for theirs.
        zero_embeddings: Chunks whose embedding is zero, which nothing is near to; they wait for another.
        dimensions: The embeddings by their dimensions.
        added: Documents that are new.
        changed: Documents that got another version.
        unchanged: Documents that are up to date.
        reembedded: Chunks whose text is as it was, and whose embedding the source has changed: stored in its place. A
            dry run counts those of unchanged documents.
        left_alone: Documents that are there with a version of somebody else, or were retired: not touched.
        deleted: Documents that the source has deleted: deleted here too, or left out.
        empty_chunks: Chunks without text: left out.
        refused: Documents that cannot be stored: left out.
        refusals: The first of them, each with the reason.
        gone: Documents of an earlier run that the source has no more, or has deleted.
        retired: How many of them were retired.
        jobs: Unfinished jobs of the source that were enqueued.
        no_home: Columns of the source that have no place here, and tables of its library that are not read.
        notes: What became of what has another place here.
        obstacles: What an import that is not dry would be refused for.
    """

    name: str
    is_dry_run: bool
    resumed_after: str | None
    documents: int
    chunks: int
    without_embedding: int
    zero_embeddings: int
    dimensions: tuple[Dimensions, ...]
    added: int
    changed: int
    unchanged: int
    reembedded: int
    left_alone: int
    deleted: int
    empty_chunks: int
    refused: int
    refusals: tuple[Refusal, ...]
    gone: int
    retired: int
    jobs: int
    no_home: tuple[str, ...]
    notes: tuple[str, ...]
    obstacles: tuple[str, ...]
