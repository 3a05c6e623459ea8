"""The model of the graph that random steps are compared with: facts by the names of their entities."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from uuid import UUID

import sqlalchemy as sa

from model_of_steps import Model, State
from ragschema.graph import NewEntity, NewRelation, pending_extraction
from ragschema.schema.fact_rules import broken_facts
from records_of_graph import (
    NOTHING,
    Facts,
    Merge,
    MovedRelation,
    Name,
    Said,
    SeenEntity,
    SeenRelation,
    compare,
    key_of,
    originals,
    read_facts,
)

EXTRACTORS = ("x1", "x2")


@dataclass
class Graph:
    """The graph by the names of its entities.

    Attributes:
        facts: Of each chunk.
        entities: Of each entity whether it was imported.
        relations: Of each relation the same.
        merged: Of each entity that was merged the one that it leads to.
        merges: Of each such entity what the merge has moved.
        described: Of each entity its description.
        weighed: Of each relation its weight and description.
        aliases: Of each alias the entity, and the document that goes with it.
    """

    facts: dict[UUID, Facts] = field(default_factory=dict)
    entities: dict[Name, bool] = field(default_factory=dict)
    relations: dict[Said, bool] = field(default_factory=dict)
    merged: dict[Name, Name] = field(default_factory=dict)
    merges: dict[Name, Merge] = field(default_factory=dict)
    described: dict[Name, str | None] = field(default_factory=dict)
    weighed: dict[Said, tuple[float, str | None]] = field(default_factory=dict)
    aliases: dict[Name, tuple[Name, UUID | None]] = field(default_factory=dict)

    def copy(self) -> Graph:
        return Graph(*(dict(getattr(self, each.name)) for each in fields(self)))

    def living(self) -> list[Name]:
        """Return the entities that were not merged."""
        return sorted({*self.entities} - {*self.merged})

    def resolve(self, name: Name) -> Name:
        """Return the entity that a spelling of a name leads to."""
        key = key_of(name)
        if key not in self.entities and key in self.aliases:
            key = self.aliases[key][0]
        return self.merged.get(key, key)

    def of(self, chunk: UUID) -> Facts:
        return self.facts.get(chunk, NOTHING)

    def keep(self, corpus: State) -> None:
        """Let what was read in chunks that are gone go; entities and relations stay, as nobody has purged them."""
        self.facts = {id_: facts for id_, facts in self.facts.items() if id_ in corpus.chunks}
        self.aliases = {alias: said for alias, said in self.aliases.items() if said[1] in corpus.documents}

    def add(self, name: Name) -> None:
        """Let there be an entity, if there is none yet."""
        self.entities.setdefault(name, False)
        self.described.setdefault(name, None)

    def relate(self, said: Said) -> None:
        """Let there be a relation, if there is none yet."""
        self.relations.setdefault(said, False)
        self.weighed.setdefault(said, (0, None))

    def record(
        self, chunk: UUID, extractor: str, entities: Sequence[NewEntity], relations: Sequence[NewRelation]
    ) -> None:
        """Let an extractor have read a chunk; what the entities' aliases are is to be said after that."""
        given = [(self.resolve((each.entity_type, each.name)), each) for each in entities]
        said = [
            ((self.resolve(each.source), each.relation_type, self.resolve(each.target)), each)
            for each in relations
        ]
        mentioned = {name for name, _ in given} | {end for each, _ in said for end in (each[0], each[2])}
        for name in mentioned:
            self.add(name)
        for name, new in given:
            self.described[name] = self.described[name] or new.description
        for relation, stated in said:
            self.relate(relation)
            weight, description = self.weighed[relation]
            self.weighed[relation] = (max(weight, stated.weight), description or stated.description)
        before = self.of(chunk)
        self.facts[chunk] = Facts(
            before.entities | mentioned,
            before.relations | {relation for relation, _ in said},
            before.extractors | {extractor},
        )

    def call(self, called: Iterable[tuple[Name, Name]], document: UUID) -> None:
        """Let entities have aliases that a document says: the first of each, of what is no entity's own name."""
        for alias, entity in called:
            if key_of(alias) not in self.entities:
                self.aliases.setdefault(key_of(alias), (entity, document))

    def adopt(self, connection: sa.Connection, planned: State, before: State, found: State) -> None:
        """Follow the library, which has written and removed chunks.

        Args:
            connection: On the database as it is after that.
            planned: The corpus by which new chunks were planned.
            before: The corpus before.
            found: The corpus now.
        """
        self.keep(before)
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
        chunks = {*chunks}
        gone = [self.facts.pop(id_, NOTHING) for id_ in chunks]
        for relation in frozenset().union(*(each.relations for each in gone)):
            if not self._is_said(relation):
                self._unsay(relation)
        mentioned = frozenset().union(*(each.entities for each in gone))
        for name, merge in self.merges.items():
            if self.merged.get(name) in mentioned:
                self._forget_moved(merge, chunks, left)
        for name, merge in list(self.merges.items()):
            if self.merged.get(name) in mentioned and not merge.is_imported and not merge.chunks & {*left}:
                self._drop(name)
        for name in mentioned:
            is_mentioned = any(name in each.entities for each in self.facts.values())
            is_end = any(name in (said[0], said[2]) and self._is_said(said) for said in self.relations)
            if not (is_mentioned or is_end or self.entities[name]):
                self._drop(name)

    def _forget_moved(self, merge: Merge, chunks: Collection[UUID], left: Collection[UUID]) -> None:
        """Let relations of an entity that was merged go, which only chunks said that are gone."""
        for moved in merge.relations:
            is_forgotten = moved.chunks & {*chunks} and not (moved.is_imported or moved.chunks & {*left})
            if is_forgotten and moved.relation in self.relations and not self._is_said(moved.relation):
                self._unsay(moved.relation)

    def _is_said(self, relation: Said) -> bool:
        return self.relations[relation] or any(relation in each.relations for each in self.facts.values())

    def _drop(self, name: Name) -> None:
        """Delete an entity as the foreign keys do, with those that were merged into it."""
        del self.entities[name]
        del self.described[name]
        self.aliases = {alias: said for alias, said in self.aliases.items() if said[0] != name}
        self.merged.pop(name, None)
        self.merges.pop(name, None)
        for other in [other for other, merge in self.merges.items() if merge.kept == name]:
            del self.merges[other]
        for other in [other for other, kept in self.merged.items() if kept == name]:
            self._drop(other)
        for said in [said for said in self.relations if name in (said[0], said[2])]:
            self._unsay(said)

    def _unsay(self, said: Said) -> None:
        del self.relations[said]
        del self.weighed[said]

    def merge(self, kept: Name, gone: Name, ordered: Collection[Said]) -> Merge:
        """Let an entity have what another one had, its relations in an order: that of their ids."""
        moved = tuple(
            self._move(said, kept, gone)
            for said in ordered
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
        self.weighed.setdefault(twin, self.weighed[said])
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
        if moved.twin not in self.relations:  # what only gone chunks said
            return
        if moved.is_imported:
            self.relations[moved.twin] = moved.is_twin_imported
        if moved.is_twin_made and not self._is_said(moved.twin):
            self._unsay(moved.twin)

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
        self.keep(corpus)
        said = {id_: each for id_, each in self.facts.items() if each != NOTHING}
        current = [each for id_, each in self.facts.items() if corpus.chunks[id_].is_current]
        entities = {
            name: SeenEntity(
                is_imported or any(name in each.entities for each in current),
                is_imported,
                self.merged.get(name),
                self.described[name],
            )
            for name, is_imported in self.entities.items()
        }
        relations = {
            relation: SeenRelation(
                is_imported or any(relation in each.relations for each in current),
                is_imported,
                *self.weighed[relation],
            )
            for relation, is_imported in self.relations.items()
        }
        compare(connection, said, entities, relations, self.aliases)
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
