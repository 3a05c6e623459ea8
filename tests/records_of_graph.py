"""Records of the graph in random steps, by the names of its entities, and how they are read from the database."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias
from uuid import UUID

import sqlalchemy as sa

from model_of_steps import State, read

Name: TypeAlias = tuple[str, str]
Said: TypeAlias = tuple[Name, str, Name]


def key_of(name: Name) -> Name:
    """Return what spellings of a name have in common."""
    return name[0], name[1].strip().lower()


class Facts(NamedTuple):
    """What was read in a chunk, and by which extractors."""

    entities: frozenset[Name] = frozenset()
    relations: frozenset[Said] = frozenset()
    extractors: frozenset[str] = frozenset()


NOTHING = Facts()


class SeenEntity(NamedTuple):
    """An entity."""

    is_current: bool
    is_imported: bool
    merged_into: Name | None
    description: str | None


class SeenRelation(NamedTuple):
    """A relation."""

    is_current: bool
    is_imported: bool
    weight: float
    description: str | None


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
    """Return what was read in each chunk of which something was."""
    found: dict[UUID, Facts] = {}
    for row in read(connection, _MENTIONED):
        facts = found.get(row[0], NOTHING)
        found[row[0]] = facts._replace(entities=facts.entities | {(row[1], row[2])})
    for row in read(connection, _RELATED):
        facts = found.get(row[0], NOTHING)
        found[row[0]] = facts._replace(relations=facts.relations | {_said(row[1:])})
    for row in read(connection, _READ):
        facts = found.get(row[0], NOTHING)
        found[row[0]] = facts._replace(extractors=facts.extractors | {row[1]})
    return found


def read_entities(connection: sa.Connection) -> dict[Name, SeenEntity]:
    return {
        (row[0], row[1]): SeenEntity(row[2], row[3], row[4] and (row[4], row[5]), row[6])
        for row in read(connection, _ENTITIES)
    }


def read_relations(connection: sa.Connection) -> dict[Said, SeenRelation]:
    """Return the relations in the order of their ids."""
    return {_said(row): SeenRelation(*row[5:]) for row in read(connection, _RELATIONS)}


def read_aliases(connection: sa.Connection) -> dict[Name, tuple[Name, UUID | None]]:
    """Return of each alias the entity, and the document that goes with it."""
    return {(row[0], row[1]): ((row[2], row[3]), row[4]) for row in read(connection, _ALIASES)}


def read_ids(connection: sa.Connection) -> dict[Name, UUID]:
    return {(row[0], row[1]): row[2] for row in read(connection, _IDS)}


def compare(connection: sa.Connection, *expected: object) -> None:
    """Compare the facts, entities, relations and aliases that are expected with what is there."""
    for look, each in zip((read_facts, read_entities, read_relations, read_aliases), expected, strict=True):
        found = look(connection)
        assert found == each, f"expected {each}\nfound    {found}"


def _said(row: Any) -> Said:
    return (row[0], row[1]), row[2], (row[3], row[4])


_ENTITIES = """
SELECT e.entity_type, e.name_key, e.is_current, e.is_imported, k.entity_type, k.name_key, e.description
FROM rag_entities e LEFT JOIN rag_entities k ON k.id = e.merged_into
"""
_IDS = "SELECT entity_type, name_key, id FROM rag_entities"
_ALIASES = """
SELECT a.entity_type, a.alias_key, e.entity_type, e.name_key, a.document_id
FROM rag_entity_aliases a JOIN rag_entities e ON e.id = a.entity_id
"""
_ENDS = "s.entity_type, s.name_key, r.relation_type, t.entity_type, t.name_key"
_JOINED = (
    "rag_relations r JOIN rag_entities s ON s.id = r.source_id JOIN rag_entities t ON t.id = r.target_id"
)
_RELATIONS = (
    f"SELECT {_ENDS}, r.is_current, r.is_imported, r.weight, r.description FROM {_JOINED} ORDER BY r.id"
)
_MENTIONED = """
SELECT m.chunk_id, e.entity_type, e.name_key FROM rag_entity_mentions m JOIN rag_entities e ON e.id = m.entity_id
"""
_RELATED = f"SELECT m.chunk_id, {_ENDS} FROM {_JOINED} JOIN rag_relation_mentions m ON m.relation_id = r.id"
_READ = "SELECT chunk_id, extractor_version FROM rag_extractions"
