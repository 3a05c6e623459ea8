"""Runs: an import that is under way, what was wished of it, and what stands in its way."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

import sqlalchemy as sa

from ragschema.errors import ImportRefused
from ragschema.importing.documents import ImportedDocument, Models, Naming, Tally, read_documents
from ragschema.importing.reports import Refusal
from ragschema.importing.sources import Source
from ragschema.importing.targets import read_standing
from ragschema.publishing.live_models import LiveModels
from ragschema.words import counted

BATCH = 5_000
"""Chunks of a transaction."""

LOOKED_UP = 500
"""Documents that are asked for at once."""
_SHOWN = 100  # refusals


@dataclass(frozen=True)
class Wishes:
    """How to import.

    Attributes:
        models: Keys of the models that embeddings go to, where their dimensions do not tell.
        embedder: What the versions say of their embedder, where no model is registered.
        text_config: The text search configuration of new documents.
        skip_refused: Whether to leave out what cannot be stored, and say so; otherwise the import ends there.
        skip_deleted: Whether to leave out documents that the source has deleted; otherwise they are deleted here too.
        retire_gone: Whether to retire documents of an earlier run that the source has no more.
        defer_index: Whether to build the indexes afterwards: search is slow meanwhile.
        batch_size: Chunks of a transaction.
    """

    models: Sequence[str] = ()
    embedder: str | None = None
    text_config: str = "simple"
    skip_refused: bool = False
    skip_deleted: bool = False
    retire_gone: bool = False
    defer_index: bool = False
    batch_size: int = BATCH


@dataclass
class Run:
    """An import that is under way."""

    source: Source
    wishes: Wishes
    naming: Naming
    connection: sa.Connection
    own: Iterator[str]
    live: LiveModels
    tally: Tally = field(default_factory=Tally)
    left_alone: int = 0
    added: int = 0
    changed: int = 0
    unchanged: int = 0
    reembedded: int = 0
    refused: int = 0
    refusals: list[Refusal] = field(default_factory=list)
    gone: int = 0
    gone_now: list[str] = field(default_factory=list)
    next_own: str | None = None

    def begin(self) -> None:
        self.next_own = next(self.own, None)

    def pass_own(self, article_id: str | None) -> None:
        """Note the documents of an earlier run that stand before one, and that the source did not have."""
        while self.next_own is not None and (article_id is None or self.next_own < article_id):
            self.gone += 1
            self.gone_now.append(self.next_own)
            self.next_own = next(self.own, None)
        if self.next_own is not None and self.next_own == article_id:
            self.next_own = next(self.own, None)

    def count(self, counted_as: str, number: int) -> None:
        setattr(self, counted_as, getattr(self, counted_as) + number)

    def refuse(self, article_id: str, error: Exception) -> None:
        self.refused += 1
        if len(self.refusals) < _SHOWN:
            message = getattr(error, "message", str(error))
            self.refusals.append(Refusal(article_id, message))

    def documents(self, models: Models, after: str | None) -> Generator[ImportedDocument, None, None]:
        """Yield the documents to publish: without those that somebody else has published or retired since."""
        reading = read_documents(
            self.source, after, models, self.naming, self.tally, skip_deleted=self.wishes.skip_deleted
        )
        while some := list(islice(reading, LOOKED_UP)):
            with self.connection.begin():
                standing = read_standing(self.connection, [each.article_id for each in some])
            for document in some:
                self.pass_own(document.article_id)
                found = standing.get(document.article_id)
                if found is not None and (found.chunker != self.naming.chunker or not found.source_hash):
                    self.left_alone += 1
                    continue
                if found is None:
                    counted_as = "added"
                elif found.source_hash == document.source_hash:
                    counted_as = "unchanged"
                else:
                    counted_as = "changed"
                self.count(counted_as, 1)
                yield replace(document, is_known=found is not None, counted_as=counted_as)
        self.pass_own(None)


def find_obstacles(run: Run) -> Iterator[str]:
    """Yield what would end an import that does not leave it out."""
    if run.tally.empty_chunks and not run.wishes.skip_refused:
        yield empty_obstacle(run.tally.empty_chunks)
    if run.refused and not run.wishes.skip_refused:
        yield (
            f"{counted(run.refused, 'document')} of the source cannot be stored."
            " Pass --skip-refused to leave such documents out."
        )


def empty_obstacle(number: int) -> str:
    """Say that chunks have no text."""
    return (
        f"The source has {counted(number, 'chunk')} without text."
        " Pass --skip-refused to leave such chunks out."
    )


def refusal_of(obstacle: str) -> ImportRefused:
    """Return the error of an obstacle, whose first sentence is the fact."""
    fact, _, remedy = obstacle.partition(". ")
    return ImportRefused(f"{fact}.", remedy)
