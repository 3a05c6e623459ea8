"""Steps of publishing: versions planned and published with something in between."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from hypothesis import strategies as st

from model_of_steps import COLUMN, SeenDocument, SeenVersion, State, mark_of
from ragschema import publishing
from ragschema.models import ChunkEventType
from ragschema.publishing import DocumentDeleted, StalePlan, VersionPlan
from random_steps import Step, World, articles, contents, numbers, titles
from steps_of_collections import Collections

LATE = datetime(9999, 1, 1, tzinfo=UTC)
DIMENSIONS = {COLUMN: 768}
OTHER_DIMENSIONS = 3

details = st.sampled_from([None, None, '{"kind": "law"}', '{"kind": "news"}'])
several_articles = st.lists(articles, min_size=1, max_size=3, unique=True).map(tuple)


def embed(model: int, texts: Sequence[str]) -> np.ndarray[Any, Any]:
    """Return embeddings whose first number says of which text they are."""
    vectors = np.zeros((len(texts), DIMENSIONS.get(model, OTHER_DIMENSIONS)), np.float32)
    vectors[:, 0] = [mark_of(text) for text in texts]
    vectors[:, 1] = 1
    return vectors


@dataclass(frozen=True)
class Said:
    """What is said of a version."""

    article: str
    contents: tuple[str, ...]
    title: str | None
    details: str | None

    @classmethod
    def drawn(cls) -> st.SearchStrategy[Said]:
        return st.builds(cls, articles, contents, titles, details)

    @property
    def source_hash(self) -> str:
        return " ".join(self.contents)

    @property
    def names(self) -> dict[str, Any]:
        return {
            "source_hash": self.source_hash,
            "chunker_version": "c1",
            "embedder_version": "e1",
            "title": self.title,
            "metadata": None if self.details is None else json.loads(self.details),
        }

    def is_said_by(self, seen: SeenDocument | None) -> bool:
        """Whether the current version of a document says the same."""
        current = current_of(seen)
        return (
            current is not None
            and (current.source_hash, current.title) == (self.source_hash, self.title)
            and current.contents == self.contents
            and self.details in (None, current.details)
        )

    def published(
        self, seen: SeenDocument | None, config: str = "simple", *, is_new: bool = False
    ) -> SeenDocument:
        """Return what the document says once this is published; ``is_new``: as another version in any case."""
        seen = seen or SeenDocument(None, False, config, ())
        if not is_new and self.is_said_by(seen):
            return seen._replace(is_deleted=False)
        base = current_of(seen)
        number = max((number for number, _ in seen.versions), default=0) + 1
        kept = base.details if base else "{}"
        version = SeenVersion(self.source_hash, self.title, self.details or kept, self.contents)
        return seen._replace(current=number, is_deleted=False, versions=(*seen.versions, (number, version)))


def current_of(seen: SeenDocument | None) -> SeenVersion | None:
    return dict(seen.versions).get(seen.current or 0) if seen else None


def embedded_texts(corpus: State, article: str, model: int) -> set[str]:
    """Return the texts of a document that a model has embedded."""
    return {
        corpus.chunks[id_].content
        for id_ in corpus.chunks_of(corpus.find(article))
        if model in corpus.chunks[id_].embedded
    }


def check_embedded(
    world: World, before: State, article: str, given: dict[int, set[str]], later: State | None = None
) -> None:
    """Compare which chunks of a current version have embeddings with what was there and what was given.

    What was embedded ``later`` than a version was planned may be missing where the text is there again: it is pending.
    """
    document = world.corpus.find(article)
    assert document is not None
    for model in world.model.live:
        must = embedded_texts(before, article, model) | given.get(model, set())
        may = must | embedded_texts(later or before, article, model)
        for id_ in world.corpus.manifest(world.corpus.documents[document].current):
            chunk = world.corpus.chunks[id_]
            is_wrong = chunk.content not in may if model in chunk.embedded else chunk.content in must
            if is_wrong:
                raise AssertionError(f"model {model} and {chunk}: must {must}, may {may}")


def is_deleted(corpus: State, article: str) -> bool:
    document = corpus.find(article)
    return document is not None and corpus.documents[document].is_deleted


@dataclass(frozen=True)
class Publish(Step):
    """Plan and publish a version, with something in between.

    Attributes:
        said: The version.
        given: Which embeddings come with it: those that are ``asked`` for, of ``all`` texts, of all
            ``models``, or none.
        copies: Whether unchanged chunks are copied.
        undelete: Whether it is undeleted.
        between: What happens between plan and publication.
        collection: Which collection it joins; None: none.
    """

    said: Said
    given: str
    copies: bool
    undelete: bool
    between: Step | None
    collection: int | None

    weight = 20

    @classmethod
    def drawn(cls) -> st.SearchStrategy[Publish]:
        return st.builds(
            cls,
            Said.drawn(),
            st.sampled_from(["asked", "asked", "all", "models", "none"]),
            st.sampled_from([False, False, False, True]),
            st.booleans(),
            st.none(),
            st.none() | numbers,
        )

    def run(self, world: World) -> None:
        said, article = self.said, self.said.article
        collections: Collections = world.model.families["collections"]
        joined = collections.pick(self.collection)
        ids = [joined.id] if joined else []
        is_withheld = is_deleted(world.corpus, article) and not self.undelete
        if is_withheld:
            with pytest.raises(DocumentDeleted):
                self._plan(world, ids)
            world.did(self, is_refused=True)
            return
        plan = self._plan(world, ids)
        self._check_plan(world, plan)
        at_plan = world.corpus.copy()
        config = joined.config if joined else "simple"
        if self.between is not None:
            world.do(self.between)
            refusal = self._refusal(world, plan)
            if refusal is not None or (ids and collections.find(ids[0]) is None):
                with pytest.raises(refusal or StalePlan), world.connection.begin_nested():
                    self._publish(world, plan)
                world.did(self, is_refused=True)
                return
        expected = world.corpus.seen()
        if plan.is_up_to_date:
            expected[article] = expected[article]._replace(is_deleted=False)
        else:
            expected[article] = said.published(expected.get(article), config, is_new=True)
        given = self._publish(world, plan)
        before = world.adopt(expected, world.connection, at_plan)
        if not plan.is_up_to_date or self.between is None:
            check_embedded(world, at_plan, article, given, before)
        document = world.corpus.find(article)
        if joined is not None and document is not None:
            joined.documents.add(document)
        world.did(self)

    def _plan(self, world: World, collection_ids: list[UUID]) -> VersionPlan:
        return publishing.plan_version(
            world.connection,
            self.said.article,
            self.said.contents,
            undelete=self.undelete,
            collection_ids=collection_ids,
            **self.said.names,
        )

    def _check_plan(self, world: World, plan: VersionPlan) -> None:
        seen = world.corpus.seen().get(self.said.article)
        assert plan.is_up_to_date == self.said.is_said_by(seen)
        before = Counter(current.contents) if (current := current_of(seen)) else Counter()
        new = Counter(self.said.contents)
        assert plan.count(ChunkEventType.unchanged) == (before & new).total()
        assert plan.count(ChunkEventType.updated) + len(plan.gone) == (before - new).total()
        for model in world.model.live:
            key = next(each.key for each in plan.models if each.id == model)
            had = embedded_texts(world.corpus, self.said.article, model)
            assert not had.intersection(plan.texts_to_embed_for(key)), "what is embedded is not asked for"

    def _refusal(self, world: World, plan: VersionPlan) -> type[Exception] | None:
        """Return what refuses a plan that something has happened to."""
        corpus = world.corpus
        document = corpus.find(self.said.article)
        row = corpus.documents[document] if document else None
        if row is not None and row.is_deleted and not self.undelete:
            return DocumentDeleted
        if (plan.document_id, plan.base_version_id) != (document, row.current if row else None):
            return StalePlan
        if plan.is_up_to_date:
            return None
        needed = {place.chunk_id for place in plan.places}.union(*(each.sources for each in plan.needs))
        return StalePlan if needed - {None} - {*corpus.chunks} else None

    def _publish(self, world: World, plan: VersionPlan) -> dict[int, set[str]]:
        """Publish; return by model the texts that it was given embeddings of."""
        asked = list(plan.texts_to_embed)
        every = list(dict.fromkeys(self.said.contents))
        active = plan.live.active
        embeddings: Any = None
        others: dict[str, Any] = {}
        given: dict[int, set[str]] = {}
        if self.given != "none" and active is not None:
            texts = asked if self.given == "asked" else every
            vectors = embed(active.id, texts)
            embeddings = vectors if self.given == "asked" else dict(zip(texts, vectors, strict=True))
            given[active.id] = {*texts}
        if self.given == "models":
            for model in plan.live.all:
                if model != active:
                    others[model.key] = dict(zip(every, embed(model.id, every), strict=True))
                    given[model.id] = {*every}
        publishing.publish(
            world.connection, plan, embeddings, model_embeddings=others or None, copy_unchanged=self.copies
        )
        return given


@dataclass(frozen=True)
class PublishLate(Publish):
    """A version is published some time after it was planned."""

    weight = 10
    is_around = True

    @classmethod
    def drawn_around(cls, inner: st.SearchStrategy[Step]) -> st.SearchStrategy[PublishLate]:
        return st.builds(
            cls,
            Said.drawn(),
            st.sampled_from(["asked", "all", "none"]),
            st.just(False),
            st.booleans(),
            inner,
            st.none(),
        )


STEPS: tuple[type[Step], ...] = (
    Publish,
    PublishLate,
)
