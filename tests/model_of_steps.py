"""The in-memory model that random steps are compared with: what each table should hold, and what follows from it.

`State` is the corpus row by row. What is derived from the rows, which of the chunks are current, is never believed:
`State.derived` works it out by its definition.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from uuid import UUID

import psycopg
import sqlalchemy as sa

COLUMN = 1
"""The model whose embeddings are a column of the chunks."""

TEXTS = tuple(f"text {number}" for number in range(7))


def mark_of(content: str) -> float:
    """Return the first number of a text's embedding, by which a stored one is known."""
    return float(TEXTS.index(content) + 1)


class Document(NamedTuple):
    """A row of rag_documents."""

    article: str
    current: UUID | None = None
    is_deleted: bool = False
    config: str = "simple"


class Version(NamedTuple):
    """A row of rag_document_versions."""

    document: UUID
    number: int
    source_hash: str
    title: str | None = None
    details: str = "{}"


class Chunk(NamedTuple):
    """A row of rag_chunks, with the ids of the models that have embedded it, and that will not."""

    version: UUID
    ordinal: int
    content: str
    is_current: bool = False
    config: str = ""
    embedded: frozenset[int] = frozenset()
    skipped: frozenset[int] = frozenset()


class Event(NamedTuple):
    """A row of rag_chunk_events."""

    version: UUID
    chunk: UUID | None
    ordinal: int | None
    kind: str


class SeenVersion(NamedTuple):
    """What a version says, whichever rows say it."""

    source_hash: str
    title: str | None
    details: str
    contents: tuple[str, ...]


class SeenDocument(NamedTuple):
    """What a document says, whichever rows say it; its current version by its number."""

    current: int | None
    is_deleted: bool
    config: str
    versions: tuple[tuple[int, SeenVersion], ...]


@dataclass
class State:
    """The corpus."""

    documents: dict[UUID, Document] = field(default_factory=dict)
    versions: dict[UUID, Version] = field(default_factory=dict)
    chunks: dict[UUID, Chunk] = field(default_factory=dict)
    events: dict[UUID, Event] = field(default_factory=dict)

    def copy(self) -> State:
        return State(dict(self.documents), dict(self.versions), dict(self.chunks), dict(self.events))

    def find(self, article: str) -> UUID | None:
        return next((id_ for id_, row in self.documents.items() if row.article == article), None)

    def versions_of(self, document: UUID | None) -> list[UUID]:
        """Return the versions of a document, the oldest first."""
        found = [id_ for id_, row in self.versions.items() if row.document == document]
        return sorted(found, key=lambda id_: self.versions[id_].number)

    def chunks_of(self, document: UUID | None) -> list[UUID]:
        """Return the chunks that were written with a document's versions, by version and ordinal."""
        places = {id_: place for place, id_ in enumerate(self.versions_of(document))}
        found = [id_ for id_, row in self.chunks.items() if row.version in places]
        return sorted(
            found, key=lambda id_: (places[self.chunks[id_].version], self.chunks[id_].ordinal, id_)
        )

    def events_of(self, document: UUID | None) -> list[UUID]:
        """Return the events of a document's versions, by version, kind and ordinal."""
        places = {id_: place for place, id_ in enumerate(self.versions_of(document))}
        found = [(places[row.version], row, id_) for id_, row in self.events.items() if row.version in places]
        key = lambda each: (each[0], each[1].kind, each[1].ordinal or 0, each[2])  # noqa: E731
        return [id_ for _, _, id_ in sorted(found, key=key)]

    def manifest(self, version: UUID | None) -> list[UUID]:
        """Return the chunks of a version in order: those its events list; where it has none, those written with it."""
        events = [row for row in self.events.values() if row.version == version]
        if not events:
            own = [(row.ordinal, id_) for id_, row in self.chunks.items() if row.version == version]
            return [id_ for _, id_ in sorted(own)]
        listed = [
            (
                row.ordinal if row.ordinal is not None else self.chunks[row.chunk].ordinal,  # type: ignore[index]
                row.chunk,
            )
            for row in events
            if row.kind != "deleted"
        ]
        return [id_ for _, id_ in sorted(listed)]  # type: ignore[misc]

    def contents(self, version: UUID | None) -> tuple[str, ...]:
        return tuple(self.chunks[id_].content for id_ in self.manifest(version))

    def seen(self) -> dict[str, SeenDocument]:
        """Return what the documents say, by article."""
        return {row.article: self.see(id_) for id_, row in self.documents.items()}

    def see(self, document: UUID) -> SeenDocument:
        row = self.documents[document]
        said = []
        for id_ in self.versions_of(document):
            its = self.versions[id_]
            said.append(
                (its.number, SeenVersion(its.source_hash, its.title, its.details, self.contents(id_)))
            )
        current = self.versions.get(row.current) if row.current else None
        return SeenDocument(current and current.number, row.is_deleted, row.config, tuple(said))

    def derived(self) -> State:
        """Return this with what follows: which chunks are current, and their text configurations."""
        other = self.copy()
        listed = {
            id_: row.config
            for row in self.documents.values()
            if row.current is not None and not row.is_deleted
            for id_ in self.manifest(row.current)
        }
        for id_, row in self.chunks.items():
            is_current = id_ in listed
            other.chunks[id_] = row._replace(is_current=is_current, config=listed.get(id_, ""))
        return other

    def is_dangling(self) -> bool:
        """Whether a document points at a version that is not its own: refused at the commit."""
        return any(
            row.current is not None
            and (row.current not in self.versions or self.versions[row.current].document != id_)
            for id_, row in self.documents.items()
        )

    def drop_document(self, document: UUID) -> None:
        for id_ in self.versions_of(document):
            self.drop_version(id_)
        del self.documents[document]

    def drop_version(self, version: UUID) -> None:
        """Delete a version as the foreign keys do, with its events and chunks."""
        for id_ in [id_ for id_, row in self.events.items() if row.version == version]:
            del self.events[id_]
        for id_ in [id_ for id_, row in self.chunks.items() if row.version == version]:
            self.drop_chunk(id_)
        del self.versions[version]

    def drop_chunk(self, chunk: UUID) -> None:
        for id_, row in self.events.items():
            if row.chunk == chunk and row.kind == "deleted":
                self.events[id_] = row._replace(chunk=None)
        del self.chunks[chunk]

    def is_listed(self, chunk: UUID, beside: UUID | None = None) -> bool:
        """Whether an event, but of the version ``beside``, keeps a chunk."""
        return any(
            row.chunk == chunk and row.kind != "deleted" and row.version != beside
            for row in self.events.values()
        )


@dataclass
class Model:
    """Everything that steps change: the corpus, and what each family of steps keeps beside it.

    Attributes:
        corpus: As far as the program has come.
        models: Of each embedding model by its id its state; none: only the column, which is not registered.
        families: What a family keeps, by its name; each has ``copy`` and ``check``.
    """

    corpus: State = field(default_factory=State)
    models: dict[int, str] = field(default_factory=dict)
    families: dict[str, Any] = field(default_factory=dict)

    def copy(self) -> Model:
        families = {name: each.copy() for name, each in self.families.items()}
        return Model(self.corpus.copy(), dict(self.models), families)

    @property
    def live(self) -> list[int]:
        """The ids of the models that rows are embedded by."""
        return [id_ for id_, state in self.models.items() if state != "retired"] or [COLUMN]

    @property
    def active(self) -> int:
        return next((id_ for id_, state in self.models.items() if state == "active"), COLUMN)


def read(connection: sa.Connection, statement: str) -> list[tuple[Any, ...]]:
    """Return the rows of a statement, read by the driver alone: SQLAlchemy takes as long as the server for each."""
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    return driver.execute(statement.encode()).fetchall()


def read_state(connection: sa.Connection) -> State:
    """Read the corpus; refuses an embedding that is not its text's."""
    documents = {id_: Document(*row) for id_, *row in read(connection, _DOCUMENTS)}
    versions = {
        id_: Version(document, number, source_hash, title, _json(details))
        for id_, document, number, source_hash, title, details in read(connection, _VERSIONS)
    }
    embedded: dict[UUID, set[int]] = {}
    skipped: dict[UUID, set[int]] = {}
    marks: Counter[tuple[UUID, float]] = Counter()
    for chunk_id, model_id, embedding_error, mark in read(connection, _EMBEDDINGS):
        if embedding_error is not None:
            skipped.setdefault(chunk_id, set()).add(model_id)
        if mark is not None:
            embedded.setdefault(chunk_id, set()).add(model_id)
            marks[chunk_id, mark] += 1
    chunks = {
        id_: Chunk(
            version,
            ordinal,
            content,
            is_current,
            text_config if is_current else "",  # of the others nothing is promised
            frozenset(embedded.get(id_, ())),
            frozenset(skipped.get(id_, ())),
        )
        for id_, version, ordinal, content, is_current, text_config in read(connection, _CHUNKS)
    }
    for chunk in skipped:
        assert not skipped[chunk] & embedded.get(chunk, set()), (
            f"chunk {chunk} is embedded, and is said not to be"
        )
    for chunk, mark in marks:
        assert mark == mark_of(chunks[chunk].content), f"chunk {chunk} has another text's embedding"
    events = {id_: Event(*row) for id_, *row in read(connection, _EVENTS)}
    return State(documents, versions, chunks, events)


def differences(expected: State, found: State) -> Iterator[str]:
    """Yield a line for each row that is not as expected."""
    for table in ("documents", "versions", "chunks", "events"):
        wanted, there = getattr(expected, table), getattr(found, table)
        for id_ in sorted({*wanted, *there}):
            if wanted.get(id_) != there.get(id_):
                yield f"{table} {id_}:\n    expected {wanted.get(id_)}\n    found    {there.get(id_)}"


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


_DOCUMENTS = (
    "SELECT id, article_id, current_version_id, deleted_at IS NOT NULL, text_config FROM rag_documents"
)
_VERSIONS = "SELECT id, document_id, version_number, source_hash, title, metadata FROM rag_document_versions"
_CHUNKS = "SELECT id, version_id, ordinal, content, is_current, text_config FROM rag_chunks"
_EMBEDDINGS = """
SELECT id AS chunk_id, 1 AS model_id, embedding_error,
    CAST(trim(both '[]' from CAST(subvector(embedding, 1, 1) AS text)) AS float8) AS mark
FROM rag_chunks WHERE embedding IS NOT NULL OR embedding_error IS NOT NULL
UNION ALL
SELECT chunk_id, model_id, embedding_error,
    CAST(trim(both '[]' from CAST(subvector(embedding, 1, 1) AS text)) AS float8)
FROM rag_chunk_embeddings
"""
_EVENTS = (
    "SELECT id, version_id, chunk_id, ordinal, CAST(event_type AS text) AS event_type FROM rag_chunk_events"
)
