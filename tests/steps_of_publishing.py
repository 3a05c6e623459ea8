"""Steps of publishing: versions planned and published in every way, and what becomes of documents later."""

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
import sqlalchemy as sa
from hypothesis import strategies as st
from sqlalchemy.orm import sessionmaker

from model_of_steps import COLUMN, SeenDocument, SeenVersion, State, mark_of
from ragschema import publishing
from ragschema.models import ChunkEventType
from ragschema.publishing import BulkDocument, DocumentDeleted, StalePlan, UnknownDocument, VersionPlan
from ragschema.queries import pending_embeddings
from random_steps import Step, World, articles, contents, numbers, pick, titles
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
        current = _current(seen)
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
        base = _current(seen)
        number = max((number for number, _ in seen.versions), default=0) + 1
        kept = base.details if base else "{}"
        version = SeenVersion(self.source_hash, self.title, self.details or kept, self.contents)
        return seen._replace(current=number, is_deleted=False, versions=(*seen.versions, (number, version)))


def _current(seen: SeenDocument | None) -> SeenVersion | None:
    return dict(seen.versions).get(seen.current or 0) if seen else None


def embedded_texts(corpus: State, article: str, model: int) -> set[str]:
    """Return the texts of a document that a model has embedded."""
    return {
        corpus.chunks[id_].content
        for id_ in corpus.chunks_of(corpus.find(article))
        if model in corpus.chunks[id_].embedded
    }


def check_embedded(world: World, before: State, article: str, given: dict[int, set[str]]) -> None:
    """Compare which chunks of a current version have embeddings with what was there and what was given."""
    document = world.corpus.find(article)
    assert document is not None
    for model in world.model.live:
        had = embedded_texts(before, article, model)
        for id_ in world.corpus.manifest(world.corpus.documents[document].current):
            chunk = world.corpus.chunks[id_]
            is_embedded = model in chunk.embedded
            if is_embedded != (chunk.content in had | given.get(model, set())):
                raise AssertionError(f"model {model} and {chunk}: had {had}, given {given}")


def _is_deleted(corpus: State, article: str) -> bool:
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
        is_withheld = _is_deleted(world.corpus, article) and not self.undelete
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
            check_embedded(world, _both(at_plan, before), article, given)
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
        before = Counter(current.contents) if (current := _current(seen)) else Counter()
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


def _both(one: State, other: State) -> State:
    """Return a corpus with the chunks of two, for the question what was embedded."""
    found = other.copy()
    found.chunks = {**one.chunks, **other.chunks}
    return found


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


@dataclass(frozen=True)
class Ingest(Step):
    """A version is ingested: planned, embedded and published in transactions of its own."""

    said: Said

    weight = 8
    commits = True

    @classmethod
    def drawn(cls) -> st.SearchStrategy[Ingest]:
        return st.builds(cls, Said.drawn())

    def run(self, world: World) -> None:
        article = self.said.article
        active = world.model.active
        asked: set[str] = set()

        def embedder(texts: list[str]) -> Any:
            asked.update(texts)
            return embed(active, texts)

        arguments = (sessionmaker(world.engine), article, self.said.contents, embedder)
        if _is_deleted(world.corpus, article):
            with pytest.raises(DocumentDeleted):
                publishing.ingest(*arguments, **self.said.names)
            world.did(self, is_refused=True)
            return
        expected = world.corpus.seen()
        expected[article] = self.said.published(expected.get(article))
        publishing.ingest(*arguments, **self.said.names)
        with world.engine.connect() as connection:
            before = world.adopt(expected, connection)
        check_embedded(world, before, article, {active: asked})
        world.did(self)


@dataclass(frozen=True)
class PublishMany(Step):
    """Several documents are loaded at once: deleted ones are left out, or undeleted."""

    said: tuple[Said, ...]
    is_embedded: bool
    undelete: bool

    weight = 11
    commits = True

    @classmethod
    def drawn(cls) -> st.SearchStrategy[PublishMany]:
        several = st.lists(Said.drawn(), min_size=1, max_size=3, unique_by=lambda said: said.article)
        return st.builds(cls, several.map(tuple), st.sampled_from([True, True, False]), st.booleans())

    def run(self, world: World) -> None:
        active = world.model.active
        documents = [
            BulkDocument(
                said.article,
                said.contents,
                embed(active, said.contents) if self.is_embedded else None,
                **said.names,
            )
            for said in self.said
        ]
        expected = world.corpus.seen()
        written = []
        for said in self.said:
            if not _is_deleted(world.corpus, said.article) or self.undelete:
                expected[said.article] = said.published(expected.get(said.article))
                written.append(said)
        with world.engine.connect() as connection:
            publishing.publish_many(connection, documents, undelete=self.undelete)
        with world.engine.connect() as connection:
            before = world.adopt(expected, connection)
        for said in written:
            given = {active: {*said.contents}} if self.is_embedded else {}
            check_embedded(world, before, said.article, given)
        world.did(self)


@dataclass(frozen=True)
class Activate(Step):
    """A kept version is made current."""

    article: str
    version: int

    weight = 6

    @classmethod
    def drawn(cls) -> st.SearchStrategy[Activate]:
        return st.builds(cls, articles, numbers)

    def run(self, world: World) -> None:
        corpus = world.corpus
        version = pick(corpus.versions_of(corpus.find(self.article)), self.version)
        if version is None:
            return
        number = corpus.versions[version].number
        if _is_deleted(corpus, self.article):
            with pytest.raises(DocumentDeleted):
                publishing.activate_version(world.connection, self.article, number)
            world.did(self, is_refused=True)
            return
        expected = corpus.seen()
        expected[self.article] = expected[self.article]._replace(current=number)
        publishing.activate_version(world.connection, self.article, number)
        world.adopt(expected, world.connection)
        world.did(self)


@dataclass(frozen=True)
class Retire(Step):
    """A document is retired: a version without chunks is current."""

    article: str

    weight = 5

    @classmethod
    def drawn(cls) -> st.SearchStrategy[Retire]:
        return st.builds(cls, articles)

    def run(self, world: World) -> None:
        expected = world.corpus.seen()
        seen = expected.get(self.article)
        current = _current(seen)
        refusal: type[Exception] | None = None
        if seen is None or (current is None and not seen.is_deleted):
            refusal = UnknownDocument
        elif seen.is_deleted:
            refusal = DocumentDeleted
        if refusal is not None:
            with pytest.raises(refusal):
                publishing.retire_document(world.connection, self.article)
            world.did(self, is_refused=True)
            return
        assert seen is not None
        assert current is not None
        if current.contents:
            number = max(number for number, _ in seen.versions) + 1
            version = SeenVersion("", current.title, current.details, ())
            expected[self.article] = seen._replace(
                current=number, versions=(*seen.versions, (number, version))
            )
        publishing.retire_document(world.connection, self.article)
        world.adopt(expected, world.connection)
        world.did(self)


@dataclass(frozen=True)
class Delete(Step):
    """Documents are deleted, in one set."""

    articles: tuple[str, ...]

    @classmethod
    def drawn(cls) -> st.SearchStrategy[Delete]:
        return st.builds(cls, several_articles)

    def run(self, world: World) -> None:
        _set_deleted(world, self.articles, is_deleted=True)
        done = publishing.delete_documents(world.connection, self.articles)
        found = [each for each in self.articles if world.corpus.find(each) is not None]
        assert done.documents + done.already == len(found)
        assert {*done.unknown} == {*self.articles} - {*found}
        world.did(self)


@dataclass(frozen=True)
class Undelete(Step):
    """Documents are undeleted, in one set."""

    articles: tuple[str, ...]

    weight = 6

    @classmethod
    def drawn(cls) -> st.SearchStrategy[Undelete]:
        return st.builds(cls, several_articles)

    def run(self, world: World) -> None:
        found = [each for each in self.articles if world.corpus.find(each) is not None]
        were = [each for each in found if _is_deleted(world.corpus, each)]
        expected = world.corpus.seen()
        expected |= {each: expected[each]._replace(is_deleted=False) for each in found}
        done = publishing.undelete_documents(world.connection, self.articles)
        assert {*done.undeleted} == {*were}
        assert done.already == len(found) - len(were)
        assert {*done.unknown} == {*self.articles} - {*found}
        world.adopt(expected, world.connection)
        world.did(self)


def _set_deleted(world: World, names: Sequence[str], *, is_deleted: bool) -> None:
    for article in names:
        document = world.corpus.find(article)
        if document is not None:
            row = world.corpus.documents[document]
            world.corpus.documents[document] = row._replace(is_deleted=is_deleted)


@dataclass(frozen=True)
class Purge(Step):
    """Documents are destroyed, and what speaks of them elsewhere is erased."""

    articles: tuple[str, ...]
    erase: bool

    weight = 3

    @classmethod
    def drawn(cls) -> st.SearchStrategy[Purge]:
        return st.builds(
            cls, st.lists(articles, min_size=1, max_size=2, unique=True).map(tuple), st.booleans()
        )

    def run(self, world: World) -> None:
        ids = {each: world.corpus.find(each) for each in self.articles}
        expected = {each: seen for each, seen in world.corpus.seen().items() if each not in ids}
        done = publishing.purge_documents(world.connection, self.articles, erase=self.erase)
        world.adopt(expected, world.connection)
        assert done.documents == sum(id_ is not None for id_ in ids.values())
        for family in world.model.families.values():
            family.forget(ids, is_erased=self.erase)
        world.did(self)


@dataclass(frozen=True)
class PurgeDeleted(Step):
    """The documents that are deleted are destroyed."""

    erase: bool

    weight = 9
    commits = True

    @classmethod
    def drawn(cls) -> st.SearchStrategy[PurgeDeleted]:
        return st.builds(cls, st.booleans())

    def run(self, world: World) -> None:
        ids: dict[str, UUID | None] = {
            row.article: id_ for id_, row in world.corpus.documents.items() if row.is_deleted
        }
        expected = {each: seen for each, seen in world.corpus.seen().items() if each not in ids}
        with world.engine.connect() as connection:
            done = publishing.purge_deleted(connection, before=LATE, batch_size=1, erase=self.erase)
        assert done.documents == len(ids)
        with world.engine.connect() as connection:
            world.adopt(expected, connection)
        for family in world.model.families.values():
            family.forget(ids, is_erased=self.erase)
        world.did(self)


@dataclass(frozen=True)
class Prune(Step):
    """Old versions are removed, without a chunk that a kept one uses."""

    keep: int

    weight = 8
    commits = True

    @classmethod
    def drawn(cls) -> st.SearchStrategy[Prune]:
        return st.builds(cls, st.integers(0, 3))

    def run(self, world: World) -> None:
        expected = {
            article: seen._replace(
                versions=tuple(
                    each
                    for age, each in enumerate(reversed(seen.versions), start=1)
                    if age <= self.keep or each[0] == seen.current
                )[::-1]
            )
            for article, seen in world.corpus.seen().items()
        }
        with world.engine.connect() as connection:
            publishing.prune_versions(connection, keep=self.keep)
        with world.engine.connect() as connection:
            world.adopt(expected, connection)
        world.did(self)


@dataclass(frozen=True)
class Describe(Step):
    """The metadata of a version is replaced."""

    article: str
    details: str
    version: int

    weight = 3

    @classmethod
    def drawn(cls) -> st.SearchStrategy[Describe]:
        return st.builds(cls, articles, st.sampled_from(['{"kind": "law"}', '{"page": 1}']), numbers)

    def run(self, world: World) -> None:
        corpus = world.corpus
        version = pick(corpus.versions_of(corpus.find(self.article)), self.version)
        if version is not None:
            number = corpus.versions[version].number
            publishing.set_metadata(
                world.connection, self.article, json.loads(self.details), version_number=number
            )
            corpus.versions[version] = corpus.versions[version]._replace(details=self.details)
            world.did(self)


@dataclass(frozen=True)
class StoreEmbeddings(Step):
    """Chunks that wait for their embedding get it, or a reason why they will not."""

    model: int
    chunk: int
    is_skipped: bool

    weight = 6

    @classmethod
    def drawn(cls) -> st.SearchStrategy[StoreEmbeddings]:
        return st.builds(cls, numbers, numbers, st.booleans())

    def run(self, world: World) -> None:
        corpus = world.corpus
        model = pick(world.model.live, self.model)
        key = world.connection.scalar(
            sa.text("SELECT key FROM rag_embedding_models WHERE id = :id"), {"id": model}
        )
        waiting = {
            id_
            for id_, row in corpus.derived().chunks.items()
            if row.is_current and model not in row.embedded | row.skipped
        }
        found = {row.chunk_id for row in world.connection.execute(pending_embeddings(limit=1000, model=key))}
        if not world.is_by_hand:
            assert found == waiting
        chunk = pick(sorted(found & waiting), self.chunk)
        if chunk is None:
            return
        row = corpus.chunks[chunk]
        if self.is_skipped:
            assert publishing.skip_embeddings(world.connection, {chunk: "too long"}, key) == 1
            corpus.chunks[chunk] = row._replace(skipped=row.skipped | {model})
        else:
            done = publishing.store_embeddings(world.connection, [chunk], embed(model, [row.content]), key)
            assert done.stored == (chunk,)
            corpus.chunks[chunk] = row._replace(embedded=row.embedded | {model})
        world.did(self)


STEPS: tuple[type[Step], ...] = (
    Publish,
    PublishLate,
    Ingest,
    PublishMany,
    Activate,
    Retire,
    Delete,
    Undelete,
    Purge,
    PurgeDeleted,
    Prune,
    Describe,
    StoreEmbeddings,
)
