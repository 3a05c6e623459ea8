"""Steps of the graph by the library: extractions recorded and asked for, entities merged, and merges taken back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
from hypothesis import strategies as st

from model_of_graph import EXTRACTORS, Graph
from model_of_steps import TEXTS
from ragschema.graph import (
    GraphError,
    NewEntity,
    NewRelation,
    merge_entities,
    pending_extraction,
    record_extraction,
    undo_merge,
)
from random_steps import Step, World, articles, numbers, pick
from records_of_graph import read_ids, read_relations
from steps_of_graph_sql import NAMES, ImportEntity, ImportRelation, chunks_of, graph_of, missing_end, names
from steps_of_publishing import Publish, Said

EXTRACTED = ("one", "two", None, None)

entities_drawn = st.builds(
    NewEntity,
    st.sampled_from(["person", "firm"]),
    st.sampled_from(sorted({name for _, name in NAMES})),
    st.sampled_from(EXTRACTED),
    st.none(),
    st.sampled_from([(), (), (), ("Bob",), ("CY",), ("Dee", "dee "), ("Dee",)]),
)
relations_drawn = st.builds(
    NewRelation,
    names,
    st.sampled_from(["knows", "owns"]),
    names,
    st.sampled_from([1.0, 0.5, 2.0, 0.0]),
    st.sampled_from(EXTRACTED),
)


@dataclass(frozen=True)
class Record(Step):
    """What an extractor found in a current chunk is recorded; a second time nothing of it is."""

    article: str
    chunk: int
    extractor: str
    entities: tuple[NewEntity, ...]
    relations: tuple[NewRelation, ...]

    weight = 8

    @classmethod
    def drawn(cls) -> st.SearchStrategy[Any]:
        several = st.lists(entities_drawn, max_size=3).map(tuple)
        said = st.lists(relations_drawn, max_size=2).map(tuple)
        return st.builds(cls, articles, numbers, st.sampled_from(EXTRACTORS), several, said)

    def needs(self, world: World) -> Step | None:
        if self._chunks(world):
            return None
        current = world.corpus.seen().get(self.article)
        said = dict(current.versions)[current.current].contents if current and current.current else ()
        new = next(text for text in TEXTS if text not in said)
        return Publish(Said(self.article, (new,), None, None), "asked", False, True, None, None)

    def run(self, world: World) -> None:
        chunk = pick(self._chunks(world), self.chunk)
        if chunk is None:
            return
        graph = graph_of(world)
        is_new = self.extractor not in graph.of(chunk).extractors
        recorded = record_extraction(world.connection, chunk, self.extractor, self.entities, self.relations)
        assert recorded.is_new == is_new
        if is_new:
            graph.record(chunk, self.extractor, self.entities, self.relations)
            self._call(world, graph, chunk)
        world.did(self)

    def _call(self, world: World, graph: Graph, chunk: UUID) -> None:
        ids = read_ids(world.connection)
        called = [
            (ids[entity], (each.entity_type, alias), entity)
            for each in self.entities
            for entity in [graph.resolve((each.entity_type, each.name))]
            for alias in each.aliases
        ]
        document = world.corpus.versions[world.corpus.chunks[chunk].version].document
        graph.call([(alias, entity) for _, alias, entity in sorted(called)], document)

    def _chunks(self, world: World) -> list[UUID]:
        return [id_ for id_, is_current in chunks_of(world, self.article) if is_current]


@dataclass(frozen=True)
class RecordOld(Record):
    """What an extractor found in a chunk that is current no more."""

    weight = 4

    def _chunks(self, world: World) -> list[UUID]:
        return [id_ for id_, is_current in chunks_of(world, self.article) if not is_current]


@dataclass(frozen=True)
class RecordAgain(Record):
    """What was found in a chunk that this extractor has read."""

    weight = 4

    def needs(self, world: World) -> Step | None:
        first = (self.article, self.chunk, self.extractor, self.entities, self.relations)
        return None if self._chunks(world) else Record(*first)

    def _chunks(self, world: World) -> list[UUID]:
        graph = graph_of(world)
        return [
            id_ for id_, _ in chunks_of(world, self.article) if self.extractor in graph.of(id_).extractors
        ]


@dataclass(frozen=True)
class Pending(Step):
    """What an extractor has not read is asked for, page by page."""

    extractor: str
    limit: int

    @classmethod
    def drawn(cls) -> st.SearchStrategy[Pending]:
        return st.builds(cls, st.sampled_from(EXTRACTORS), st.integers(1, 3))

    def run(self, world: World) -> None:
        if world.is_by_hand:  # triggers have not marked all chunks yet
            return
        found: list[UUID] = []
        after = None
        while page := pending_extraction(world.connection, self.extractor, after=after, limit=self.limit):
            assert len(page) <= self.limit
            assert [each.content for each in page] == [world.corpus.chunks[each.id].content for each in page]
            found += [each.id for each in page]
            after = found[-1]
        assert found == graph_of(world).pending(world.corpus.derived(), self.extractor)
        world.did(self)


@dataclass(frozen=True)
class MergeEntities(Step):
    """Two entities are one; refused of one that was merged before, or that is both."""

    kept: int
    other: int

    weight = 6

    @classmethod
    def drawn(cls) -> st.SearchStrategy[MergeEntities]:
        return st.builds(cls, numbers, numbers)

    def needs(self, world: World) -> Step | None:
        return missing_end(world, self.other)

    def run(self, world: World) -> None:
        graph = graph_of(world)
        there = sorted(graph.entities)
        kept, other = pick(there, self.kept), pick(there, self.other)
        ids = read_ids(world.connection)
        if kept == other or {kept, other} & {*graph.merged}:
            with pytest.raises(GraphError):
                merge_entities(world.connection, ids[kept], ids[other])
            world.did(self, is_refused=True)
            return
        ordered = read_relations(world.connection)
        [done] = merge_entities(world.connection, ids[kept], ids[other])
        merge = graph.merge(kept, other, ordered)
        assert (done.mentions, done.relations) == (len(merge.chunks), len(merge.relations))
        world.did(self)


@dataclass(frozen=True)
class UndoMerge(Step):
    """A merge is taken back; refused where the entity that was kept was merged since."""

    merge: int

    weight = 6

    @classmethod
    def drawn(cls) -> st.SearchStrategy[UndoMerge]:
        return st.builds(cls, numbers)

    def needs(self, world: World) -> Step | None:
        graph = graph_of(world)
        if graph.merges:
            return None
        there, living = sorted(graph.entities), graph.living()
        if len(living) < 2:
            return missing_end(world, self.merge)
        kept, other = living[self.merge % len(living)], living[(self.merge + 1) % len(living)]
        return MergeEntities(there.index(kept), there.index(other))

    def run(self, world: World) -> None:
        graph = graph_of(world)
        name = pick(sorted(graph.merges), self.merge)
        if name is None:
            return
        id_ = read_ids(world.connection)[name]
        if graph.merges[name].kept in graph.merged:
            with pytest.raises(GraphError):
                undo_merge(world.connection, id_)
            world.did(self, is_refused=True)
            return
        undo_merge(world.connection, id_)
        graph.undo(name, world.corpus.chunks)
        world.did(self)


STEPS: tuple[type[Step], ...] = (
    Record,
    RecordOld,
    RecordAgain,
    Pending,
    ImportEntity,
    ImportRelation,
    MergeEntities,
    UndoMerge,
)
