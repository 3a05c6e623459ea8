"""Steps of the graph: extractions recorded and asked for, facts imported, entities merged; which are current then."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias
from uuid import UUID

import pytest
import sqlalchemy as sa
from hypothesis import strategies as st

from model_of_steps import Model, State
from ragschema.graph import (
    GraphError,
    NewEntity,
    NewRelation,
    merge_entities,
    pending_extraction,
    record_extraction,
    undo_merge,
)
from ragschema.schema.fact_rules import broken_facts
from random_steps import Step, World, articles, numbers, pick

Name: TypeAlias = tuple[str, str]
Said: TypeAlias = tuple[Name, str, Name]

EXTRACTORS = ("x1", "x2")
NAMES = tuple((kind, name) for kind in ("person", "firm") for name in ("Ada", "ADA ", "Bob", "Cy"))


def key_of(name: Name) -> Name:
    """Return what spellings of a name have in common."""
    return name[0], name[1].strip().lower()


class Facts(NamedTuple):
    """What was read in a chunk, and by which extractors."""

    entities: frozenset[Name] = frozenset()
    relations: frozenset[Said] = frozenset()
    extractors: frozenset[str] = frozenset()


NOTHING = Facts()


class MovedRelation(NamedTuple):
    """A relation of an entity that was merged, and the one that has its evidence since."""

    relation: Said
    is_imported: bool
    twin: Said
    is_twin_made: bool
    is_twin_imported: bool
    chunks: frozenset[UUID]
    shared: frozenset[UUID]


class Merge(NamedTuple):
    """What a merge has moved to the entity that was kept; ``shared`` are the chunks that mentioned both."""

    kept: Name
    is_imported: bool
    is_kept_imported: bool
    chunks: frozenset[UUID]
    shared: frozenset[UUID]
    relations: tuple[MovedRelation, ...]


@dataclass
class Graph:
    """The graph by the names of its entities.

    Attributes:
        facts: Of each chunk.
        entities: Of each entity whether it was imported.
        relations: Of each relation the same.
        merged: Of each entity that was merged the one that it leads to.
        merges: Of each such entity what the merge has moved.
    """

    facts: dict[UUID, Facts] = field(default_factory=dict)
    entities: dict[Name, bool] = field(default_factory=dict)
    relations: dict[Said, bool] = field(default_factory=dict)
    merged: dict[Name, Name] = field(default_factory=dict)
    merges: dict[Name, Merge] = field(default_factory=dict)

    def copy(self) -> Graph:
        return Graph(
            dict(self.facts),
            dict(self.entities),
            dict(self.relations),
            dict(self.merged),
            dict(self.merges),
        )

    def living(self) -> list[Name]:
        """Return the entities that were not merged."""
        return sorted({*self.entities} - {*self.merged})

    def resolve(self, name: Name) -> Name:
        """Return the entity that a spelling of a name leads to."""
        return self.merged.get(key_of(name), key_of(name))

    def of(self, chunk: UUID) -> Facts:
        return self.facts.get(chunk, NOTHING)

    def keep(self, chunks: Collection[UUID]) -> None:
        """Let what was read in other chunks go with these; entities and relations stay, as nobody has purged them."""
        self.facts = {id_: facts for id_, facts in self.facts.items() if id_ in chunks}

    def adopt(self, connection: sa.Connection, planned: State, before: State, found: State) -> None:
        """Follow the library, which has written and removed chunks.

        Args:
            connection: On the database as it is after that.
            planned: The corpus by which new chunks were planned.
            before: The corpus before.
            found: The corpus now.
        """
        self.keep(before.chunks)
        new = [id_ for id_ in found.chunks if id_ not in before.chunks]
        stored = read_facts(connection) if new else {}
        for id_ in new:
            facts = stored.get(id_, NOTHING)
            expected = {self.of(each) for each in originals(planned, found, id_)} or {NOTHING}
            assert facts in expected, f"chunk {id_} has {facts}, and its text had {expected}"
            self.facts[id_] = facts
        self._forget([id_ for id_ in before.chunks if id_ not in found.chunks], {*found.chunks})

    def _forget(self, chunks: Iterable[UUID], left: Collection[UUID]) -> None:
        """Let chunks go, and what only they have mentioned, so that only some are left."""
        gone = [self.facts.pop(id_, NOTHING) for id_ in chunks]
        for relation in frozenset().union(*(each.relations for each in gone)):
            if not self._is_said(relation):
                del self.relations[relation]
        mentioned = frozenset().union(*(each.entities for each in gone))
        for name, merge in list(self.merges.items()):
            if self.merged.get(name) in mentioned and not merge.is_imported and not merge.chunks & {*left}:
                self._drop(name)
        for name in mentioned:
            is_mentioned = any(name in each.entities for each in self.facts.values())
            is_end = any(name in (said[0], said[2]) and self._is_said(said) for said in self.relations)
            if not (is_mentioned or is_end or self.entities[name]):
                self._drop(name)

    def _is_said(self, relation: Said) -> bool:
        return self.relations[relation] or any(relation in each.relations for each in self.facts.values())

    def _drop(self, name: Name) -> None:
        """Delete an entity as the foreign keys do, with those that were merged into it."""
        del self.entities[name]
        self.merged.pop(name, None)
        self.merges.pop(name, None)
        for other in [other for other, merge in self.merges.items() if merge.kept == name]:
            del self.merges[other]
        for other in [other for other, kept in self.merged.items() if kept == name]:
            self._drop(other)
        for said in [said for said in self.relations if name in (said[0], said[2])]:
            del self.relations[said]

    def merge(self, kept: Name, gone: Name) -> Merge:
        """Let an entity have what another one had."""
        moved = tuple(
            self._move(said, kept, gone)
            for said in [*self.relations]
            if gone in (said[0], said[2]) and self._is_said(said)
        )
        chunks = frozenset(id_ for id_, each in self.facts.items() if gone in each.entities)
        shared = frozenset(id_ for id_ in chunks if kept in self.of(id_).entities)
        merge = Merge(kept, self.entities[gone], self.entities[kept], chunks, shared, moved)
        self._say(chunks, add={kept}, remove={gone})
        self.entities[kept] |= self.entities[gone]
        self.entities[gone] = False
        self.merged = {other: kept if into == gone else into for other, into in self.merged.items()}
        self.merged[gone] = kept
        self.merges[gone] = merge
        return merge

    def _move(self, said: Said, kept: Name, gone: Name) -> MovedRelation:
        """Let a relation of the entity that is kept have the evidence of one of the other."""
        source, kind, target = said
        twin = (kept if source == gone else source, kind, kept if target == gone else target)
        is_made = twin not in self.relations
        self.relations.setdefault(twin, False)
        chunks = frozenset(id_ for id_, each in self.facts.items() if said in each.relations)
        shared = frozenset(id_ for id_ in chunks if twin in self.of(id_).relations)
        moved = MovedRelation(said, self.relations[said], twin, is_made, self.relations[twin], chunks, shared)
        self._relate(chunks, add={twin}, remove={said})
        self.relations[twin] |= self.relations[said]
        self.relations[said] = False
        return moved

    def undo(self, gone: Name, left: Collection[UUID]) -> None:
        """Take a merge back, as far as its chunks are left."""
        merge = self.merges.pop(gone)
        for moved in reversed(merge.relations):
            if moved.relation in self.relations:
                self._move_back(moved, left)
        self._say(merge.chunks & {*left}, add={gone})
        self._say((merge.chunks - merge.shared) & {*left}, remove={merge.kept})
        del self.merged[gone]
        self.entities[gone] = merge.is_imported
        if merge.is_imported:
            self.entities[merge.kept] = merge.is_kept_imported
        former = {gone}
        while new := {name for name, each in self.merges.items() if each.kept in former} - former:
            former |= new
        for name in former & {name for name, into in self.merged.items() if into == merge.kept}:
            self.merged[name] = gone

    def _move_back(self, moved: MovedRelation, left: Collection[UUID]) -> None:
        self._relate(moved.chunks & {*left}, add={moved.relation})
        self._relate((moved.chunks - moved.shared) & {*left}, remove={moved.twin})
        if moved.is_imported:
            self.relations[moved.relation] = True
            self.relations[moved.twin] = moved.is_twin_imported
        if moved.is_twin_made and not self._is_said(moved.twin):
            del self.relations[moved.twin]

    def _say(self, chunks: Iterable[UUID], add: Collection[Name] = (), remove: Collection[Name] = ()) -> None:
        for id_ in chunks:
            facts = self.of(id_)
            self.facts[id_] = facts._replace(entities=facts.entities - {*remove} | {*add})

    def _relate(
        self, chunks: Iterable[UUID], add: Collection[Said] = (), remove: Collection[Said] = ()
    ) -> None:
        for id_ in chunks:
            facts = self.of(id_)
            self.facts[id_] = facts._replace(relations=facts.relations - {*remove} | {*add})

    def forget(self, ids: Mapping[str, UUID | None], *, is_erased: bool) -> None:
        """Nothing more: what purged documents said has gone with their chunks."""

    def check(self, connection: sa.Connection, model: Model) -> None:
        corpus = model.corpus.derived()
        self.keep(corpus.chunks)
        stored = read_facts(connection)
        said = {id_: each for id_, each in self.facts.items() if each != NOTHING}
        assert stored == said, f"expected {said}\nfound    {stored}"
        current = [each for id_, each in self.facts.items() if corpus.chunks[id_].is_current]
        entities = {
            name: (
                is_imported or any(name in each.entities for each in current),
                is_imported,
                self.merged.get(name),
            )
            for name, is_imported in self.entities.items()
        }
        relations = {
            said: (is_imported or any(said in each.relations for each in current), is_imported)
            for said, is_imported in self.relations.items()
        }
        found = {
            (row[0], row[1]): (row[2], row[3], row[4] and (row[4], row[5]))
            for row in connection.execute(_ENTITIES)
        }
        assert found == entities, f"expected {entities}\nfound    {found}"
        ends = {_said(row): (row[5], row[6]) for row in connection.execute(_RELATIONS)}
        assert ends == relations, f"expected {relations}\nfound    {ends}"
        assert connection.execute(broken_facts()).all() == []
        for extractor in EXTRACTORS:
            pending = [row.id for row in pending_extraction(connection, extractor, limit=1000)]
            assert pending == self.pending(corpus, extractor)

    def pending(self, corpus: State, extractor: str) -> list[UUID]:
        """Return the current chunks of a corpus, derived, that an extractor has not read."""
        return sorted(
            id_
            for id_, row in corpus.chunks.items()
            if row.is_current and extractor not in self.of(id_).extractors
        )


def originals(planned: State, found: State, chunk: UUID) -> list[UUID]:
    """Return the rows of which a new chunk may be a copy: of its text in its document, current ones or else newest."""
    row = found.chunks[chunk]
    document = found.versions[row.version].document
    same = [id_ for id_ in planned.chunks_of(document) if planned.chunks[id_].content == row.content]
    if not same:
        return []
    listed = {*planned.manifest(planned.documents[document].current)}
    if current := [id_ for id_ in same if id_ in listed]:
        return current
    newest = planned.chunks[same[-1]].version
    return [id_ for id_ in same if planned.chunks[id_].version == newest]


def read_facts(connection: sa.Connection) -> dict[UUID, Facts]:
    """Read what was read in each chunk of which something was."""
    found: dict[UUID, Facts] = {}
    for row in connection.execute(_MENTIONED):
        facts = found.get(row[0], NOTHING)
        found[row[0]] = facts._replace(entities=facts.entities | {(row[1], row[2])})
    for row in connection.execute(_RELATED):
        facts = found.get(row[0], NOTHING)
        found[row[0]] = facts._replace(relations=facts.relations | {_said(row[1:])})
    for row in connection.execute(_READ):
        facts = found.get(row[0], NOTHING)
        found[row[0]] = facts._replace(extractors=facts.extractors | {row[1]})
    return found


def _said(row: Any) -> Said:
    return (row[0], row[1]), row[2], (row[3], row[4])


def _of(world: World) -> Graph:
    found = world.model.families["graph"]
    assert isinstance(found, Graph)
    found.keep(world.corpus.chunks)
    return found


names = st.sampled_from(NAMES)
relations_drawn = st.lists(st.tuples(names, st.sampled_from(["knows", "owns"]), names), max_size=2).map(tuple)


@dataclass(frozen=True)
class Record(Step):
    """What an extractor found in a current chunk is recorded; a second time nothing of it is."""

    article: str
    chunk: int
    extractor: str
    entities: tuple[Name, ...]
    relations: tuple[Said, ...]

    weight = 8

    @classmethod
    def drawn(cls) -> st.SearchStrategy[Any]:
        several = st.lists(names, max_size=3).map(tuple)
        return st.builds(cls, articles, numbers, st.sampled_from(EXTRACTORS), several, relations_drawn)

    def run(self, world: World) -> None:
        chunk = pick(self._chunks(world), self.chunk)
        if chunk is None:
            return
        graph = _of(world)
        before = graph.of(chunk)
        recorded = record_extraction(
            world.connection,
            chunk,
            self.extractor,
            [NewEntity(*name) for name in self.entities],
            [NewRelation(*said) for said in self.relations],
        )
        assert recorded.is_new == (self.extractor not in before.extractors)
        if recorded.is_new:
            self._keep(graph, chunk, before)
        world.did(self)

    def _chunks(self, world: World) -> list[UUID]:
        return [id_ for id_, is_current in _chunks(world, self.article) if is_current]

    def _keep(self, graph: Graph, chunk: UUID, before: Facts) -> None:
        said = {(graph.resolve(each[0]), each[1], graph.resolve(each[2])) for each in self.relations}
        mentioned = {graph.resolve(name) for name in self.entities}
        mentioned |= {end for each in said for end in (each[0], each[2])}
        for name in mentioned:
            graph.entities.setdefault(name, False)
        for each in said:
            graph.relations.setdefault(each, False)
        graph.facts[chunk] = Facts(
            before.entities | mentioned, before.relations | said, before.extractors | {self.extractor}
        )


def _chunks(world: World, article: str) -> list[tuple[UUID, bool]]:
    """Return the chunks of a document, and whether search finds them."""
    corpus = world.corpus.derived()
    return [(id_, corpus.chunks[id_].is_current) for id_ in corpus.chunks_of(corpus.find(article))]


@dataclass(frozen=True)
class RecordOld(Record):
    """What an extractor found in a chunk that is current no more."""

    weight = 4

    def _chunks(self, world: World) -> list[UUID]:
        return [id_ for id_, is_current in _chunks(world, self.article) if not is_current]


@dataclass(frozen=True)
class RecordAgain(Record):
    """What was found in a chunk that this extractor has read."""

    weight = 3

    def _chunks(self, world: World) -> list[UUID]:
        graph = _of(world)
        return [id_ for id_, _ in _chunks(world, self.article) if self.extractor in graph.of(id_).extractors]


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
        assert found == _of(world).pending(world.corpus.derived(), self.extractor)
        world.did(self)


@dataclass(frozen=True)
class ImportEntity(Step):
    """An entity is imported, which no chunk needs to mention."""

    name: Name

    weight = 2

    @classmethod
    def drawn(cls) -> st.SearchStrategy[ImportEntity]:
        return st.builds(cls, names)

    def run(self, world: World) -> None:
        if key_of(self.name) in _of(world).merged:
            return
        world.connection.execute(_IMPORT_ENTITY, {"type": self.name[0], "name": self.name[1]})
        _of(world).entities[key_of(self.name)] = True
        world.did(self)


@dataclass(frozen=True)
class ImportRelation(Step):
    """A relation of two entities that are there is imported; these need not have been."""

    source: int
    target: int

    weight = 2

    @classmethod
    def drawn(cls) -> st.SearchStrategy[ImportRelation]:
        return st.builds(cls, numbers, numbers)

    def run(self, world: World) -> None:
        graph = _of(world)
        there = graph.living()
        source, target = pick(there, self.source), pick(there, self.target)
        if source is None:
            return
        world.connection.execute(
            _IMPORT_RELATION,
            {"type": source[0], "name": source[1], "other_type": target[0], "other_name": target[1]},
        )
        graph.relations[source, "knows", target] = True
        world.did(self)


@dataclass(frozen=True)
class MergeEntities(Step):
    """Two entities are one; refused of one that was merged before, or that is both."""

    kept: int
    other: int

    weight = 5

    @classmethod
    def drawn(cls) -> st.SearchStrategy[MergeEntities]:
        return st.builds(cls, numbers, numbers)

    def run(self, world: World) -> None:
        graph = _of(world)
        there = sorted(graph.entities)
        kept, other = pick(there, self.kept), pick(there, self.other)
        if kept is None:
            return
        ids = _ids(world)
        if kept == other or {kept, other} & {*graph.merged}:
            with pytest.raises(GraphError):
                merge_entities(world.connection, ids[kept], ids[other])
            world.did(self, is_refused=True)
            return
        [done] = merge_entities(world.connection, ids[kept], ids[other])
        merge = graph.merge(kept, other)
        assert (done.mentions, done.relations) == (len(merge.chunks), len(merge.relations))
        world.did(self)


@dataclass(frozen=True)
class UndoMerge(Step):
    """A merge is taken back; refused where the entity that was kept was merged since."""

    merge: int

    weight = 4

    @classmethod
    def drawn(cls) -> st.SearchStrategy[UndoMerge]:
        return st.builds(cls, numbers)

    def run(self, world: World) -> None:
        graph = _of(world)
        name = pick(sorted(graph.merges), self.merge)
        if name is None:
            return
        id_ = _ids(world)[name]
        if graph.merges[name].kept in graph.merged:
            with pytest.raises(GraphError):
                undo_merge(world.connection, id_)
            world.did(self, is_refused=True)
            return
        undo_merge(world.connection, id_)
        graph.undo(name, world.corpus.chunks)
        world.did(self)


def _ids(world: World) -> dict[Name, UUID]:
    return {(row[0], row[1]): row[2] for row in world.connection.execute(_IDS)}


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


@dataclass(frozen=True)
class WriteMention(Step):
    """Somebody says in SQL that a chunk mentions an entity."""

    article: str
    chunk: int
    entity: int

    weight = 2

    @classmethod
    def drawn(cls) -> st.SearchStrategy[WriteMention]:
        return st.builds(cls, articles, numbers, numbers)

    def run(self, world: World) -> None:
        graph = _of(world)
        chunk, name = (
            pick(_chunks(world, self.article), self.chunk),
            pick(graph.living(), self.entity),
        )
        if chunk is None or name is None:
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

    weight = 2

    @classmethod
    def drawn(cls) -> st.SearchStrategy[DropMentions]:
        return st.builds(cls, articles, numbers)

    def run(self, world: World) -> None:
        graph = _of(world)
        moved = frozenset().union(*(merge.chunks for merge in graph.merges.values()))
        mentioning = [
            id_ for id_, _ in _chunks(world, self.article) if graph.of(id_).entities and id_ not in moved
        ]
        chunk = pick(mentioning, self.chunk)
        if chunk is None:
            return
        for statement in _DROP_MENTIONS:
            world.connection.execute(statement, {"chunk": chunk})
        graph.facts[chunk] = Facts(extractors=graph.of(chunk).extractors)
        world.did(self)


BY_HAND: tuple[type[Step], ...] = (WriteMention, DropMentions)

_ENTITIES = sa.text("""
SELECT e.entity_type, e.name_key, e.is_current, e.is_imported, k.entity_type, k.name_key
FROM rag_entities e LEFT JOIN rag_entities k ON k.id = e.merged_into
""")
_IDS = sa.text("SELECT entity_type, name_key, id FROM rag_entities")
_ENDS = "s.entity_type, s.name_key, r.relation_type, t.entity_type, t.name_key"
_JOINED = (
    "rag_relations r JOIN rag_entities s ON s.id = r.source_id JOIN rag_entities t ON t.id = r.target_id"
)
_RELATIONS = sa.text(f"SELECT {_ENDS}, r.is_current, r.is_imported FROM {_JOINED}")
_MENTIONED = sa.text("""
SELECT m.chunk_id, e.entity_type, e.name_key FROM rag_entity_mentions m JOIN rag_entities e ON e.id = m.entity_id
""")
_RELATED = sa.text(
    f"SELECT m.chunk_id, {_ENDS} FROM {_JOINED} JOIN rag_relation_mentions m ON m.relation_id = r.id"
)
_READ = sa.text("SELECT chunk_id, extractor_version FROM rag_extractions")
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
