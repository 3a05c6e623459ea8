"""Recording of what an extractor found in a chunk, and what is left for it to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from ragschema.database.atomicity import refuse_autocommit
from ragschema.graph import recording_statements as statements
from ragschema.graph.errors import GraphError, unknown_chunk
from ragschema.graph.records import (
    EntityName,
    NewEntity,
    NewRelation,
    PendingChunk,
    RecordedExtraction,
    check_id,
    check_word,
)
from ragschema.json_text import write_object
from ragschema.schema.base import Executor, connection_in
from ragschema.schema.ids import uuid7s
from ragschema.values import several

_PROPERTIES_BYTES = 1 << 20
_ATTEMPTS = 5


def record_extraction(
    session: Executor,
    chunk_id: UUID,
    extractor_version: str,
    entities: Sequence[NewEntity] = (),
    relations: Sequence[NewRelation] = (),
) -> RecordedExtraction:
    """Record what an extractor found in a chunk, in the caller's transaction; once, however often it is called.

    Entities and relations that are there already are mentioned, those that are not are made; all of them are current
    if the chunk is. A name that was merged into another entity, or that is an alias, leads to that entity. What
    another extractor found in the chunk before stays. About ten statements, for any number of entities. Locks the
    chunk, the entities and the relations, in an order that lets two workers wait rather than deadlock: commit after
    each chunk, as one who holds the entities of a first may be waited for with those of a second. Beside a merge of the
    same entities, which shows others in the middle of it, PostgreSQL may end either for a deadlock: roll back, and
    record it again.

    Args:
        session: A session or connection, in READ COMMITTED.
        chunk_id: The chunk; one that is no longer current may be recorded too.
        extractor_version: The caller's own word for model, prompt and settings; by another one, a chunk is read again.
        entities: What the chunk mentions. None at all is an extraction too.
        relations: What the chunk says of entities, which need not be among the former.

    Raises:
        GraphError: Something cannot be kept; or entities of these names were merged and deleted by others all the time.
        UnknownChunk: It was pruned or purged since.
    """
    check_id("chunk_id", chunk_id)
    check_word("extractor_version", extractor_version)
    found = several("entities", entities, GraphError, each=NewEntity, is_ordered=True)
    said = several("relations", relations, GraphError, each=NewRelation, is_ordered=True)
    parameters = _entity_parameters(found), _relation_parameters(said)
    refuse_autocommit(connection_in(session), "record_extraction", GraphError)
    document_id = session.execute(statements.LOCK_CHUNK, {"chunk_id": chunk_id}).scalar_one_or_none()
    if document_id is None:
        raise unknown_chunk(chunk_id)
    extraction = {"chunk_id": chunk_id, "extractor_version": extractor_version}
    if session.execute(statements.ADD_EXTRACTION, extraction).first() is None:
        return RecordedExtraction(is_new=False)
    names = [(each.entity_type, each.name) for each in found]
    names += [end for each in said for end in (each.source, each.target)]
    ids = _write_entities(session, names, parameters[0])
    if found:
        session.execute(
            statements.DESCRIBE_ENTITIES, parameters[0] | {"ids": [ids[name] for name in names[: len(found)]]}
        )
    _write_aliases(session, found, ids, document_id)
    relation_ids = _write_relations(session, said, ids, parameters[1])
    if ids:
        session.execute(
            statements.MENTION,
            {
                "chunk_id": chunk_id,
                "entity_ids": sorted({*ids.values()}),
                "relation_ids": sorted({*relation_ids}),
            },
        )
    return RecordedExtraction(True, tuple(ids[name] for name in names[: len(found)]), tuple(relation_ids))


def pending_extraction(
    session: Executor, extractor_version: str, *, after: UUID | None = None, limit: int = 100
) -> list[PendingChunk]:
    """Return current chunks that an extractor has not read, in the order of their ids.

    A version that changes little has few: unchanged chunks, and new rows of the same text, keep what was read in them.

    Args:
        session: A session or connection.
        extractor_version: Which extractor.
        after: The id of the last chunk of the page before; None: the first page. Chunks that were published meanwhile
            may come before it: begin again when there are none left.
        limit: How many at most.

    Raises:
        GraphError: An argument makes no sense.
    """
    check_word("extractor_version", extractor_version)
    if after is not None:
        check_id("after", after)
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= 2**31 - 1:
        raise GraphError(f"The limit of a page is {limit!r:.60}.", "Pass a whole number, 1 or more.")
    parameters = {"extractor_version": extractor_version, "after": after or UUID(int=0), "limit": limit}
    return [PendingChunk(*row) for row in session.execute(statements.PENDING, parameters)]


def _entity_parameters(entities: Sequence[NewEntity]) -> dict[str, Any]:
    return {
        "descriptions": [each.description for each in entities],
        "properties": [_properties(each.properties, f"entities[{at}]") for at, each in enumerate(entities)],
    }


def _relation_parameters(relations: Sequence[NewRelation]) -> dict[str, Any]:
    return {
        "weights": [float(each.weight) for each in relations],
        "descriptions": [each.description for each in relations],
        "properties": [_properties(each.properties, f"relations[{at}]") for at, each in enumerate(relations)],
    }


def _properties(properties: Mapping[str, Any] | None, what: str) -> str:
    return write_object(properties or {}, f"{what}.properties", GraphError, _PROPERTIES_BYTES)


def _write_entities(
    session: Executor, names: Sequence[EntityName], described: Mapping[str, Any]
) -> dict[EntityName, UUID]:
    """Make the entities that are missing; return each name's, locked.

    What is merged or deleted between two statements is looked up again.
    """
    if not names:
        return {}
    wanted = {"types": [name[0] for name in names], "names": [name[1] for name in names]}
    padding = len(names) - len(described["descriptions"])
    new = {
        "ids": uuid7s(len(names)),
        "descriptions": described["descriptions"] + [None] * padding,
        "properties": described["properties"] + ["{}"] * padding,
    }
    locked: set[UUID] = set()
    for _ in range(_ATTEMPTS):
        session.execute(statements.ADD_ENTITIES, wanted | new)
        locked |= {*session.execute(statements.LOCK_ENTITIES, wanted).scalars()}
        resolved = session.execute(statements.RESOLVE, wanted).scalars().all()
        if all(each in locked for each in resolved):
            return dict(zip(names, resolved, strict=True))
    raise GraphError(
        "The entities of this extraction are merged or deleted by others, again and again.",
        "Roll back, and record it again.",
    )


def _write_aliases(
    session: Executor, found: Sequence[NewEntity], ids: Mapping[EntityName, UUID], document_id: UUID
) -> None:
    aliases = [
        (each.entity_type, alias, ids[each.entity_type, each.name])
        for each in found
        for alias in each.aliases
    ]
    if aliases:
        types, names, entity_ids = (list(column) for column in zip(*aliases, strict=True))
        session.execute(
            statements.ADD_ALIASES,
            {"types": types, "aliases": names, "entity_ids": entity_ids, "document_id": document_id},
        )


def _write_relations(
    session: Executor,
    said: Sequence[NewRelation],
    ids: Mapping[EntityName, UUID],
    described: Mapping[str, Any],
) -> list[UUID]:
    """Make the relations that are missing; return all of them, in their order, locked."""
    if not said:
        return []
    wanted = {
        "source_ids": [ids[each.source] for each in said],
        "types": [each.relation_type for each in said],
        "target_ids": [ids[each.target] for each in said],
    }
    session.execute(statements.ADD_RELATIONS, {"ids": uuid7s(len(said)), **wanted, **described})
    rows = session.execute(statements.LOCK_RELATIONS, wanted).all()
    found = {(row.source_id, row.relation_type, row.target_id): row.id for row in rows}
    relation_ids = [found[key] for key in zip(*wanted.values(), strict=True)]
    session.execute(statements.DESCRIBE_RELATIONS, {"ids": relation_ids, **described})
    return relation_ids
