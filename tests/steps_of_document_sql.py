"""Steps of writers who know nothing of this package: documents and what search finds of them, by hand."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st

from random_steps import Step, World, articles, numbers, pick
from steps_of_sql import execute


@dataclass(frozen=True)
class DropDocument(Step):
    """A document is deleted with all it has."""

    document: int

    @classmethod
    def drawn(cls) -> st.SearchStrategy[DropDocument]:
        return st.builds(cls, numbers)

    def run(self, world: World) -> None:
        document = pick(sorted(world.corpus.documents), self.document)
        if document is not None:
            execute(world, "DELETE FROM rag_documents WHERE id = :id", id=document)
            world.corpus.drop_document(document)
            world.did(self)


@dataclass(frozen=True)
class MarkDeleted(Step):
    """A document is marked as deleted, or as there again."""

    article: str
    is_deleted: bool

    @classmethod
    def drawn(cls) -> st.SearchStrategy[MarkDeleted]:
        return st.builds(cls, articles, st.booleans())

    def run(self, world: World) -> None:
        document = world.corpus.find(self.article)
        if document is not None:
            execute(
                world,
                "UPDATE rag_documents SET deleted_at = CASE WHEN :is_deleted THEN now() END WHERE id = :id",
                id=document,
                is_deleted=self.is_deleted,
            )
            row = world.corpus.documents[document]
            world.corpus.documents[document] = row._replace(is_deleted=self.is_deleted)
            world.did(self)


@dataclass(frozen=True)
class ShowChunks(Step):
    """A release that does not know of deletion shows the chunks of a version that is current already."""

    article: str

    @classmethod
    def drawn(cls) -> st.SearchStrategy[ShowChunks]:
        return st.builds(cls, articles)

    def run(self, world: World) -> None:
        corpus = world.corpus
        document = corpus.find(self.article)
        if document is not None and corpus.documents[document].current in corpus.versions:
            ids = corpus.manifest(corpus.documents[document].current)
            execute(world, "UPDATE rag_chunks SET is_current = true WHERE id = ANY(:ids)", ids=ids)
            world.did(self)


@dataclass(frozen=True)
class Configure(Step):
    """A document gets another text configuration."""

    article: str
    config: str

    @classmethod
    def drawn(cls) -> st.SearchStrategy[Configure]:
        return st.builds(cls, articles, st.sampled_from(["simple", "english"]))

    def run(self, world: World) -> None:
        document = world.corpus.find(self.article)
        if document is not None:
            execute(
                world,
                "UPDATE rag_documents SET text_config = :config WHERE id = :id",
                id=document,
                config=self.config,
            )
            row = world.corpus.documents[document]
            world.corpus.documents[document] = row._replace(config=self.config)
            world.did(self)


STEPS: tuple[type[Step], ...] = (
    DropDocument,
    MarkDeleted,
    ShowChunks,
    Configure,
)
