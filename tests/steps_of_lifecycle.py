"""Steps of the lifecycle: versions activated and pruned, documents retired, deleted, undeleted and purged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import pytest
from hypothesis import strategies as st

from model_of_steps import SeenVersion
from ragschema import publishing
from ragschema.publishing import DocumentDeleted, UnknownDocument
from random_steps import Step, World, articles, numbers, pick
from steps_of_publishing import LATE, current_of, is_deleted, several_articles


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
        if is_deleted(corpus, self.article):
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
        current = current_of(seen)
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
        were = [each for each in found if is_deleted(world.corpus, each)]
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


STEPS: tuple[type[Step], ...] = (
    Activate,
    Retire,
    Delete,
    Undelete,
    Purge,
    PurgeDeleted,
    Prune,
)
