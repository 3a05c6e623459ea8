"""Steps of writers who know nothing of this package: the events of versions, by hand."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st

from model_of_steps import Event
from random_steps import ARTICLES, Step, World, articles, numbers, pick
from steps_of_sql import execute, write_event


@dataclass(frozen=True)
class WriteEvent(Step):
    """An event of a version for a chunk that is there, of any version of the document."""

    article: str
    version: int
    chunk: int
    kind: str

    @classmethod
    def drawn(cls) -> st.SearchStrategy[WriteEvent]:
        return st.builds(cls, articles, numbers, numbers, st.sampled_from(["added", "unchanged", "deleted"]))

    def run(self, world: World) -> None:
        corpus = world.corpus
        document = corpus.find(self.article)
        version = pick(corpus.versions_of(document), self.version)
        chunk = pick(corpus.chunks_of(document), self.chunk)
        if version is None or chunk is None:
            return
        taken = [row.ordinal or 0 for row in corpus.events.values() if row.version == version]
        write_event(world, Event(version, chunk, max(taken, default=-1) + 1, self.kind))
        world.did(self)


@dataclass(frozen=True)
class WriteForeignEvent(Step):
    """An event that names a chunk of another document: refused."""

    article: str
    other: str
    version: int
    chunk: int

    weight = 5

    @classmethod
    def drawn(cls) -> st.SearchStrategy[WriteForeignEvent]:
        two = st.permutations(ARTICLES)
        return st.builds(lambda two, *of: cls(*two[:2], *of), two, numbers, numbers)

    def run(self, world: World) -> None:
        corpus = world.corpus
        version = pick(corpus.versions_of(corpus.find(self.article)), self.version)
        chunk = pick(corpus.chunks_of(corpus.find(self.other)), self.chunk)
        if version is not None and chunk is not None:
            world.refuses(
                self,
                "INSERT INTO rag_chunk_events (version_id, chunk_id, ordinal, event_type)"
                " VALUES (:version, :chunk, 999, 'added')",
                version=version,
                chunk=chunk,
            )


@dataclass(frozen=True)
class CorrectEvent(Step):
    """An event gets another type, or another chunk of the document."""

    article: str
    event: int
    chunk: int
    kind: str | None

    @classmethod
    def drawn(cls) -> st.SearchStrategy[CorrectEvent]:
        return st.builds(
            cls, articles, numbers, numbers, st.sampled_from([None, "added", "unchanged", "deleted"])
        )

    def run(self, world: World) -> None:
        corpus = world.corpus
        document = corpus.find(self.article)
        event = pick(corpus.events_of(document), self.event)
        chunk = pick(corpus.chunks_of(document), self.chunk)
        if event is None or chunk is None:
            return
        row = corpus.events[event]
        changed = row._replace(chunk=chunk) if self.kind is None else row._replace(kind=self.kind)
        is_taken = changed.kind != "deleted" and any(
            (each.version, each.ordinal) == (row.version, row.ordinal) and each.kind != "deleted"
            for id_, each in corpus.events.items()
            if id_ != event
        )
        statement = (
            "UPDATE rag_chunk_events SET chunk_id = :chunk, event_type = CAST(:kind AS chunk_event_type)"
            " WHERE id = :id"
        )
        parameters = {"id": event, "chunk": changed.chunk, "kind": changed.kind}
        if is_taken or (changed.kind != "deleted" and changed.chunk is None):
            world.refuses(self, statement, **parameters)
            return
        execute(world, statement, **parameters)
        corpus.events[event] = changed
        world.did(self)


@dataclass(frozen=True)
class DropEvent(Step):
    """An event is deleted; a version without any lists the chunks that were written with it."""

    article: str
    event: int

    weight = 5

    @classmethod
    def drawn(cls) -> st.SearchStrategy[DropEvent]:
        return st.builds(cls, articles, numbers)

    def run(self, world: World) -> None:
        event = pick(world.corpus.events_of(world.corpus.find(self.article)), self.event)
        if event is not None:
            execute(world, "DELETE FROM rag_chunk_events WHERE id = :id", id=event)
            del world.corpus.events[event]
            world.did(self)


@dataclass(frozen=True)
class DropEvents(Step):
    """All events of a version are deleted."""

    article: str
    version: int

    weight = 3

    @classmethod
    def drawn(cls) -> st.SearchStrategy[DropEvents]:
        return st.builds(cls, articles, numbers)

    def run(self, world: World) -> None:
        corpus = world.corpus
        version = pick(corpus.versions_of(corpus.find(self.article)), self.version)
        if version is not None:
            execute(world, "DELETE FROM rag_chunk_events WHERE version_id = :id", id=version)
            for id_ in [id_ for id_, row in corpus.events.items() if row.version == version]:
                del corpus.events[id_]
            world.did(self)


STEPS: tuple[type[Step], ...] = (
    WriteEvent,
    WriteForeignEvent,
    CorrectEvent,
    DropEvent,
    DropEvents,
)
