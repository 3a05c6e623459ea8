"""Steps of collections: created, filled, emptied, deleted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from uuid import UUID

import pytest
import sqlalchemy as sa
from hypothesis import strategies as st

from model_of_steps import Model
from ragschema import collections
from ragschema.collections import CollectionError
from random_steps import Step, World, articles, numbers

NAMES = ("laws", "news", "notes")


@dataclass
class Kept:
    """A collection, and the documents that were put into it; those that are gone are in none."""

    id: UUID
    name: str
    description: str
    config: str
    documents: set[UUID] = field(default_factory=set)


@dataclass
class Collections:
    """The collections there are, in the order in which they were created."""

    kept: list[Kept] = field(default_factory=list)

    def copy(self) -> Collections:
        return Collections(
            [Kept(each.id, each.name, each.description, each.config, {*each.documents}) for each in self.kept]
        )

    def pick(self, number: int | None) -> Kept | None:
        return self.kept[number % len(self.kept)] if number is not None and self.kept else None

    def find(self, id_: UUID) -> Kept | None:
        return next((each for each in self.kept if each.id == id_), None)

    def named(self, name: str) -> Kept | None:
        return next((each for each in self.kept if each.name == name), None)

    def forget(self, ids: Mapping[str, UUID | None], *, is_erased: bool) -> None:
        """Nothing: a document that is gone is in no collection."""

    def check(self, connection: sa.Connection, model: Model) -> None:
        expected = {
            each.name: (
                each.id,
                each.description,
                each.config,
                {model.corpus.documents[id_].article for id_ in each.documents & {*model.corpus.documents}},
            )
            for each in self.kept
        }
        found = {
            row.name: (row.id, row.description, row.text_config, {*row.articles})
            for row in connection.execute(_READ)
        }
        assert found == expected


def _of(world: World) -> Collections:
    found = world.model.families["collections"]
    assert isinstance(found, Collections)
    return found


names = st.sampled_from(NAMES)


@dataclass(frozen=True)
class Create(Step):
    """A collection is created: refused where there is one of its name."""

    name: str
    config: str

    @classmethod
    def drawn(cls) -> st.SearchStrategy[Create]:
        return st.builds(cls, names, st.sampled_from(["simple", "english"]))

    def run(self, world: World) -> None:
        kept = _of(world)
        if kept.named(self.name) is not None:
            with pytest.raises(CollectionError):
                collections.create_collection(
                    world.connection, self.name, "anything", text_config=self.config
                )
            world.did(self, is_refused=True)
            return
        made = collections.create_collection(
            world.connection, self.name, f"All {self.name}", text_config=self.config
        )
        kept.kept.append(Kept(made.id, self.name, made.description, self.config))
        world.did(self)


@dataclass(frozen=True)
class Rename(Step):
    """A collection gets another name: refused where there is one of that name; or another description."""

    collection: int
    name: str

    weight = 4

    @classmethod
    def drawn(cls) -> st.SearchStrategy[Rename]:
        return st.builds(cls, numbers, names)

    def needs(self, world: World) -> Create | None:
        return None if _of(world).kept else Create("laws", "simple")

    def run(self, world: World) -> None:
        kept = _of(world)
        found = kept.pick(self.collection)
        assert found is not None
        if kept.named(self.name) not in (None, found):
            with pytest.raises(CollectionError):
                collections.update_collection(world.connection, found.id, name=self.name)
            world.did(self, is_refused=True)
            return
        description = f"{found.description}, called {self.name}"[:60]
        collections.update_collection(world.connection, found.id, name=self.name, description=description)
        found.name, found.description = self.name, description
        world.did(self)


@dataclass(frozen=True)
class Add(Step):
    """Documents are put into a collection; those that are not there are named."""

    collection: int
    articles: tuple[str, ...]

    weight = 6

    @classmethod
    def drawn(cls) -> st.SearchStrategy[Add]:
        return st.builds(cls, numbers, st.lists(articles, min_size=1, max_size=3, unique=True).map(tuple))

    def needs(self, world: World) -> Create | None:
        return None if _of(world).kept else Create("laws", "simple")

    def run(self, world: World) -> None:
        found = _of(world).pick(self.collection)
        assert found is not None
        ids = {each: world.corpus.find(each) for each in self.articles}
        there = {id_ for id_ in ids.values() if id_ is not None}
        done = collections.add_documents(world.connection, found.id, self.articles)
        assert done.added == len(there - found.documents)
        assert {*done.unknown} == {each for each, id_ in ids.items() if id_ is None}
        found.documents |= there
        world.did(self)


@dataclass(frozen=True)
class Remove(Step):
    """Documents are taken out of a collection."""

    collection: int
    articles: tuple[str, ...]

    @classmethod
    def drawn(cls) -> st.SearchStrategy[Remove]:
        return st.builds(cls, numbers, st.lists(articles, min_size=1, max_size=2, unique=True).map(tuple))

    def needs(self, world: World) -> Create | None:
        return None if _of(world).kept else Create("laws", "simple")

    def run(self, world: World) -> None:
        found = _of(world).pick(self.collection)
        assert found is not None
        ids = {id_ for each in self.articles if (id_ := world.corpus.find(each)) is not None}
        done = collections.remove_documents(world.connection, found.id, self.articles)
        assert done.removed == len(ids & found.documents)
        found.documents -= ids
        world.did(self)


@dataclass(frozen=True)
class Drop(Step):
    """A collection is deleted; its documents stay."""

    collection: int

    weight = 4

    @classmethod
    def drawn(cls) -> st.SearchStrategy[Drop]:
        return st.builds(cls, numbers)

    def needs(self, world: World) -> Create | None:
        return None if _of(world).kept else Create("laws", "simple")

    def run(self, world: World) -> None:
        kept = _of(world)
        found = kept.pick(self.collection)
        assert found is not None
        done = collections.delete_collection(world.connection, found.id)
        assert done.documents == len(found.documents & {*world.corpus.documents})
        kept.kept.remove(found)
        world.did(self)


STEPS: tuple[type[Step], ...] = (Create, Rename, Add, Remove, Drop)

_READ = sa.text("""
SELECT c.id, c.name, c.description, c.text_config, ARRAY(
    SELECT d.article_id FROM rag_collection_documents m JOIN rag_documents d ON d.id = m.document_id
    WHERE m.collection_id = c.id
) AS articles FROM rag_collections c
""")
