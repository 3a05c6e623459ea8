"""Steps of the graph in SQL: facts imported, mentions written and deleted."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

import sqlalchemy as sa
from hypothesis import strategies as st

from model_of_graph import Graph
from random_steps import Step, World, articles, numbers, pick
from records_of_graph import Facts, Name, key_of

NAMES = tuple((kind, name) for kind in ("person", "firm") for name in ("Ada", "ADA ", "Bob", "Cy"))

names = st.sampled_from(NAMES)


def graph_of(world: World) -> Graph:
    """Return the model of the graph, without what was said in chunks that are gone."""
    found = world.model.families["graph"]
    assert isinstance(found, Graph)
    found.keep(world.corpus)
    return found


def chunks_of(world: World, article: str) -> list[tuple[UUID, bool]]:
    """Return the chunks of a document, and whether search finds them."""
    corpus = world.corpus.derived()
    return [(id_, corpus.chunks[id_].is_current) for id_ in corpus.chunks_of(corpus.find(article))]


def missing_end(world: World, number: int) -> ImportEntity | None:
    """Return what imports another entity where fewer than two are there that were not merged; None: two are."""
    graph = graph_of(world)
    new = [name for name in NAMES if key_of(name) not in graph.entities]
    return ImportEntity(new[number % len(new)]) if new and len(graph.living()) < 2 else None


@dataclass(frozen=True)
class ImportEntity(Step):
    """An entity is imported, which no chunk needs to mention."""

    name: Name

    weight = 3

    @classmethod
    def drawn(cls) -> st.SearchStrategy[ImportEntity]:
        return st.builds(cls, names)

    def run(self, world: World) -> None:
        graph, name = graph_of(world), key_of(self.name)
        if name in graph.merged:
            return
        world.connection.execute(_IMPORT_ENTITY, {"type": self.name[0], "name": self.name[1]})
        graph.add(name)
        graph.entities[name] = True
        world.did(self)


@dataclass(frozen=True)
class ImportRelation(Step):
    """A relation of two entities that are there is imported; these need not have been."""

    source: int
    target: int

    weight = 3

    @classmethod
    def drawn(cls) -> st.SearchStrategy[ImportRelation]:
        return st.builds(cls, numbers, numbers)

    def needs(self, world: World) -> ImportEntity | None:
        return missing_end(world, self.target)

    def run(self, world: World) -> None:
        graph = graph_of(world)
        there = graph.living()
        source, target = pick(there, self.source), pick(there, self.target)
        world.connection.execute(
            _IMPORT_RELATION,
            {"type": source[0], "name": source[1], "other_type": target[0], "other_name": target[1]},
        )
        said = (source, "knows", target)
        if said not in graph.relations:
            graph.weighed[said] = (1, None)
        graph.relations[said] = True
        world.did(self)


@dataclass(frozen=True)
class WriteMention(Step):
    """Somebody says in SQL that a chunk mentions an entity."""

    article: str
    chunk: int
    entity: int

    @classmethod
    def drawn(cls) -> st.SearchStrategy[WriteMention]:
        return st.builds(cls, articles, numbers, numbers)

    def needs(self, world: World) -> ImportEntity | None:
        return missing_end(world, self.entity)

    def run(self, world: World) -> None:
        graph = graph_of(world)
        chunk, name = (
            pick(chunks_of(world, self.article), self.chunk),
            pick(graph.living(), self.entity),
        )
        if chunk is None:
            return
        world.connection.execute(_WRITE_MENTION, {"chunk": chunk[0], "type": name[0], "name": name[1]})
        facts = graph.of(chunk[0])
        graph.facts[chunk[0]] = facts._replace(entities=facts.entities | {name})
        world.did(self)


@dataclass(frozen=True)
class DropMentions(Step):
    """Somebody deletes in SQL what a chunk mentions."""

    article: str
    chunk: int

    @classmethod
    def drawn(cls) -> st.SearchStrategy[DropMentions]:
        return st.builds(cls, articles, numbers)

    def needs(self, world: World) -> WriteMention | None:
        return None if self._mentioning(world) else WriteMention(self.article, self.chunk, self.chunk)

    def run(self, world: World) -> None:
        chunk = pick(self._mentioning(world), self.chunk)
        if chunk is None:
            return
        for statement in _DROP_MENTIONS:
            world.connection.execute(statement, {"chunk": chunk})
        graph = graph_of(world)
        graph.facts[chunk] = Facts(extractors=graph.of(chunk).extractors)
        world.did(self)

    def _mentioning(self, world: World) -> list[UUID]:
        graph = graph_of(world)
        moved = frozenset().union(*(merge.chunks for merge in graph.merges.values()))
        return [
            id_ for id_, _ in chunks_of(world, self.article) if graph.of(id_).entities and id_ not in moved
        ]


STEPS: tuple[type[Step], ...] = (WriteMention, DropMentions)

_IMPORT_ENTITY = sa.text("""
INSERT INTO rag_entities (entity_type, name, is_imported, is_current) VALUES (:type, :name, true, true)
ON CONFLICT (entity_type, name_key) DO UPDATE SET is_imported = true, is_current = true
""")
_IMPORT_RELATION = sa.text("""
INSERT INTO rag_relations (source_id, relation_type, target_id, is_imported, is_current)
SELECT s.id, 'knows', t.id, true, true FROM rag_entities s CROSS JOIN rag_entities t
WHERE (s.entity_type, s.name_key, t.entity_type, t.name_key) = (:type, :name, :other_type, :other_name)
ON CONFLICT (source_id, relation_type, target_id) DO UPDATE SET is_imported = true, is_current = true
""")
_WRITE_MENTION = sa.text("""
INSERT INTO rag_entity_mentions (chunk_id, entity_id)
SELECT :chunk, e.id FROM rag_entities e WHERE (e.entity_type, e.name_key) = (:type, :name) ON CONFLICT DO NOTHING
""")
_DROP_MENTIONS = tuple(
    sa.text(f"DELETE FROM rag_{kind}_mentions WHERE chunk_id = :chunk") for kind in ("entity", "relation")
)
