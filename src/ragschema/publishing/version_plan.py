"""The plan of a version: its places, what goes, and what was seen of its document."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from ragschema.models import ChunkEventType
from ragschema.publishing.live_models import NONE_REGISTERED, LiveModel, LiveModels
from ragschema.publishing.sources import NOWHERE, Location, Source


@dataclass(frozen=True)
class Place:
    """A place of the new version.

    Attributes:
        ordinal: Which, from 0.
        content: Its text.
        event_type: What becomes of it, compared with the version before.
        chunk_id: The existing row that is reused, or None for a row that will be written.
        embedding_from: The row whose embedding it gets without being embedded again, where that is not its own.
        version_number: The kept version that `chunk_id` or `embedding_from` was written with; None: neither.
        is_pending: Whether the row that is reused waits for its embedding, and no other row has it.
        location: What was said of it beside its text.
        same_text: A row of the same text, that of the version before where it has one: what was read in it holds for
            a new row too.

    The embedding is the active model's.
    """

    ordinal: int
    content: str
    event_type: ChunkEventType
    chunk_id: UUID | None = None
    embedding_from: UUID | None = None
    version_number: int | None = None
    is_pending: bool = False
    location: Location = NOWHERE
    same_text: UUID | None = None


@dataclass(frozen=True)
class Gone:
    """A chunk of the version before that the new one does without, and its ordinal there."""

    chunk_id: UUID
    ordinal: int


@dataclass(frozen=True)
class ModelNeeds:
    """What a version needs of one embedding model.

    Attributes:
        model: The model.
        texts_to_embed: What it has not embedded yet in this document, in order, each text once; without the texts of
            rows that wait already, unless they were asked for.
        sources: By place, the row whose embedding the place gets, where that is not its own.
        is_pending: By place, whether the row that is reused waits for its embedding, and no other row has it.
    """

    model: LiveModel
    texts_to_embed: tuple[str, ...]
    sources: tuple[UUID | None, ...]
    is_pending: tuple[bool, ...]


@dataclass(frozen=True)
class VersionPlan:
    """A version to publish, and what was seen of its document.

    Attributes:
        article_id: The caller's key of the document.
        document_id: The document, or None where there is none yet.
        base_version_id: The version that was current, or None.
        base_version_number: Its number, 0 where there was none.
        text_config: Of a document that is yet to be made.
        metadata: As JSON; None: that of the current version.
        source: None: that of the current version where its source_hash is the same, and none otherwise.
        places: The new version's content, in order.
        gone: What it deletes.
        texts_to_embed: What the active model has not embedded yet in this document, in order, each text once;
            without the texts of rows that wait already, unless they were asked for.
        is_up_to_date: Whether the current version says the same already: then `publish` writes no version, and
            only fills in embeddings that rows wait for.
        live: The embedding models that were live.
        needs: What each of them needs.
        deleted_at: Since when the document is deleted; None: it is not.
        undelete: Whether search is to find it again, if it is.
        collection_ids: The collections that the document joins as it is published.
    """

    article_id: str
    source_hash: str
    chunker_version: str
    embedder_version: str | None
    title: str | None
    url: str | None
    text_config: str | None
    metadata: str | None = None
    source: Source | None = None
    document_id: UUID | None = None
    base_version_id: UUID | None = None
    base_version_number: int = 0
    places: tuple[Place, ...] = ()
    gone: tuple[Gone, ...] = ()
    texts_to_embed: tuple[str, ...] = ()
    is_up_to_date: bool = False
    live: LiveModels = NONE_REGISTERED
    needs: tuple[ModelNeeds, ...] = field(default=(), repr=False)
    deleted_at: datetime | None = None
    undelete: bool = False
    collection_ids: tuple[UUID, ...] = ()

    @property
    def is_withheld(self) -> bool:
        """Whether the document is deleted and stays so, so that there is nothing to publish."""
        return self.deleted_at is not None and not self.undelete

    @property
    def models(self) -> tuple[LiveModel, ...]:
        """The live embedding models; where none is registered, the column as the one model, by the key ``default``."""
        return self.live.all

    def texts_to_embed_for(self, key: str) -> tuple[str, ...]:
        """Return what a model has not embedded yet, as `texts_to_embed` of the active one.

        Raises:
            EmbeddingError: No such model is live.
        """
        needs = self.needs_of(self.live.find(key))
        return needs.texts_to_embed if needs else ()

    def needs_of(self, model: LiveModel) -> ModelNeeds | None:
        """Return what a model needs; None where the plan did not know it."""
        return next((needs for needs in self.needs if needs.model == model), None)

    @property
    def contents(self) -> tuple[str, ...]:
        """The texts of the new version, in order."""
        return tuple(place.content for place in self.places)

    @property
    def is_located(self) -> bool:
        """Whether anything was said of a chunk beside its text."""
        return any(place.location != NOWHERE for place in self.places)

    def count(self, event_type: ChunkEventType) -> int:
        """Return how many chunks become this."""
        if event_type is ChunkEventType.deleted:
            return len(self.gone)
        return sum(place.event_type is event_type for place in self.places)
