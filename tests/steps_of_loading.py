"""Steps of loading: versions in transactions of their own, and what is stored of them later."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import strategies as st
from sqlalchemy.orm import sessionmaker

from ragschema import publishing
from ragschema.publishing import BulkDocument, DocumentDeleted
from ragschema.queries import pending_embeddings
from random_steps import Step, World, articles, numbers, pick
from steps_of_publishing import Said, check_embedded, embed, is_deleted


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
        if is_deleted(world.corpus, article):
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
            if not is_deleted(world.corpus, said.article) or self.undelete:
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
class Describe(Step):
    """The metadata of a version is replaced."""

    article: str
    details: str
    version: int

    weight = 6

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
    Ingest,
    PublishMany,
    Describe,
    StoreEmbeddings,
)
