"""Steps of writers that know nothing of this package: statements by hand, as the constraints and triggers allow them.

Each is done to the model's rows by the meaning of SQL; which chunks are current then is the triggers' work.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from hypothesis import strategies as st

from model_of_steps import Chunk, Document, Event, Version
from random_steps import Step, World, articles, contents, numbers, pick, texts


def execute(world: World, statement: str, **parameters: Any) -> None:
    world.is_by_hand = True
    world.connection.execute(sa.text(statement), parameters)


def write_document(world: World, article: str) -> UUID:
    document = world.corpus.find(article)
    if document is None:
        document = world.new_id()
        execute(
            world,
            "INSERT INTO rag_documents (id, article_id) VALUES (:id, :article)",
            id=document,
            article=article,
        )
        world.corpus.documents[document] = Document(article)
    return document


def point(world: World, document: UUID, version: UUID | None) -> None:
    execute(
        world,
        "UPDATE rag_documents SET current_version_id = :version WHERE id = :id",
        id=document,
        version=version,
    )
    world.corpus.documents[document] = world.corpus.documents[document]._replace(current=version)


def write_chunk(world: World, version: UUID, ordinal: int, content: str) -> UUID:
    chunk = world.new_id()
    execute(
        world,
        "INSERT INTO rag_chunks (id, version_id, ordinal, content) VALUES (:id, :version, :ordinal, :content)",
        id=chunk,
        version=version,
        ordinal=ordinal,
        content=content,
    )
    world.corpus.chunks[chunk] = Chunk(version, ordinal, content)
    return chunk


def write_event(world: World, event: Event) -> None:
    id_ = world.new_id()
    execute(
        world,
        "INSERT INTO rag_chunk_events (id, version_id, chunk_id, ordinal, event_type)"
        " VALUES (:id, :version, :chunk, :ordinal, CAST(:kind AS chunk_event_type))",
        id=id_,
        **event._asdict(),
    )
    world.corpus.events[id_] = event


@dataclass(frozen=True)
class WriteVersion(Step):
    """A whole version as the first services write one: every chunk a row of its own, with events or without."""

    article: str
    contents: tuple[str, ...]
    has_events: bool
    is_pointed_first: bool

    weight = 6

    @classmethod
    def drawn(cls) -> st.SearchStrategy[WriteVersion]:
        return st.builds(cls, articles, contents, st.booleans(), st.booleans())

    def run(self, world: World) -> None:
        corpus = world.corpus
        document = write_document(world, self.article)
        number = max((corpus.versions[id_].number for id_ in corpus.versions_of(document)), default=0) + 1
        version = world.new_id()
        execute(
            world,
            "INSERT INTO rag_document_versions"
            " (id, document_id, version_number, source_hash, chunker_version, embedder_version)"
            " VALUES (:id, :document, :number, 'by hand', 'c1', 'e1')",
            id=version,
            document=document,
            number=number,
        )
        corpus.versions[version] = Version(document, number, "by hand")
        if self.is_pointed_first:
            point(world, document, version)
        for ordinal, content in enumerate(self.contents):
            chunk = write_chunk(world, version, ordinal, content)
            if self.has_events:
                write_event(world, Event(version, chunk, ordinal, "added"))
        if not self.is_pointed_first:
            point(world, document, version)
        world.did(self)


@dataclass(frozen=True)
class PointAt(Step):
    """Another version is made current, or none."""

    article: str
    version: int
    is_none: bool

    @classmethod
    def drawn(cls) -> st.SearchStrategy[PointAt]:
        return st.builds(cls, articles, numbers, st.sampled_from([False, False, False, True]))

    def run(self, world: World) -> None:
        document = world.corpus.find(self.article)
        version = pick(world.corpus.versions_of(document), self.version)
        if document is not None and version is not None:
            point(world, document, None if self.is_none else version)
            world.did(self)


@dataclass(frozen=True)
class WriteChunk(Step):
    """A chunk more, which no event names, or one 'added' or 'deleted'."""

    article: str
    version: int
    content: str
    kind: str | None

    @classmethod
    def drawn(cls) -> st.SearchStrategy[WriteChunk]:
        return st.builds(
            cls, articles, numbers, texts, st.sampled_from([None, "added", "added", "updated", "deleted"])
        )

    def run(self, world: World) -> None:
        corpus = world.corpus
        version = pick(corpus.versions_of(corpus.find(self.article)), self.version)
        if version is None:
            return
        taken = [row.ordinal for row in corpus.chunks.values() if row.version == version]
        taken += [row.ordinal or 0 for row in corpus.events.values() if row.version == version]
        ordinal = max(taken, default=-1) + 1
        chunk = write_chunk(world, version, ordinal, self.content)
        if self.kind is not None:
            write_event(world, Event(version, chunk, ordinal, self.kind))
        world.did(self)


@dataclass(frozen=True)
class DropChunk(Step):
    """A chunk is deleted: refused where an event lists it."""

    article: str
    chunk: int

    weight = 5

    @classmethod
    def drawn(cls) -> st.SearchStrategy[DropChunk]:
        return st.builds(cls, articles, numbers)

    def run(self, world: World) -> None:
        corpus = world.corpus
        chunk = pick(corpus.chunks_of(corpus.find(self.article)), self.chunk)
        if chunk is None:
            return
        statement = "DELETE FROM rag_chunks WHERE id = :id"
        if corpus.is_listed(chunk):
            world.refuses(self, statement, id=chunk)
            return
        execute(world, statement, id=chunk)
        corpus.drop_chunk(chunk)
        world.did(self)


@dataclass(frozen=True)
class DropVersion(Step):
    """A version is deleted with all it has: refused where another one's event lists a chunk of it."""

    article: str
    version: int

    weight = 6

    @classmethod
    def drawn(cls) -> st.SearchStrategy[DropVersion]:
        return st.builds(cls, articles, numbers)

    def run(self, world: World) -> None:
        corpus = world.corpus
        version = pick(corpus.versions_of(corpus.find(self.article)), self.version)
        if version is None:
            return
        statement = "DELETE FROM rag_document_versions WHERE id = :id"
        own = [id_ for id_, row in corpus.chunks.items() if row.version == version]
        if any(corpus.is_listed(chunk, beside=version) for chunk in own):
            world.refuses(self, statement, id=version)
            return
        execute(world, statement, id=version)
        corpus.drop_version(version)
        world.did(self)


@dataclass(frozen=True)
class MoveChunk(Step):
    """A chunk is given to another version of its document, as pruning does."""

    article: str
    chunk: int
    version: int

    @classmethod
    def drawn(cls) -> st.SearchStrategy[MoveChunk]:
        return st.builds(cls, articles, numbers, numbers)

    def run(self, world: World) -> None:
        corpus = world.corpus
        document = corpus.find(self.article)
        chunk = pick(corpus.chunks_of(document), self.chunk)
        version = pick(corpus.versions_of(document), self.version)
        if chunk is None:
            return
        taken = [row.ordinal for row in corpus.chunks.values() if row.version == version]
        ordinal = max(taken, default=-1) + 1
        execute(
            world,
            "UPDATE rag_chunks SET version_id = :version, ordinal = :ordinal WHERE id = :id",
            id=chunk,
            version=version,
            ordinal=ordinal,
        )
        corpus.chunks[chunk] = corpus.chunks[chunk]._replace(version=version, ordinal=ordinal)
        world.did(self)


@dataclass(frozen=True)
class RewriteVersion(Step):
    """The text of a version is said to be another: refused."""

    version: int

    weight = 4

    @classmethod
    def drawn(cls) -> st.SearchStrategy[RewriteVersion]:
        return st.builds(cls, numbers)

    def run(self, world: World) -> None:
        version = pick(sorted(world.corpus.versions), self.version)
        if version is not None:
            world.refuses(
                self,
                "UPDATE rag_document_versions SET source_hash = 'another' WHERE id = :id",
                id=version,
            )


STEPS: tuple[type[Step], ...] = (
    WriteVersion,
    PointAt,
    WriteChunk,
    DropChunk,
    DropVersion,
    MoveChunk,
    RewriteVersion,
)
