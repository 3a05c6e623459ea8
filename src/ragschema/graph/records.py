"""Records of the graph: what an extractor found in a chunk, and what became of it."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, TypeAlias
from uuid import UUID

from ragschema.graph.errors import GraphError
from ragschema.values import as_real, check_text, several

NAME_BYTES = 1_000
"""The longest name of an entity, in bytes of UTF-8."""
WORD_BYTES = 200
"""The longest type of an entity or relation, and the longest extractor_version."""

EntityName: TypeAlias = tuple[str, str]
"""The type and the name of an entity: ``("person", "Ada Lovelace")``."""


@dataclass(frozen=True)
class NewEntity:
    """An entity that a chunk mentions.

    Attributes:
        entity_type: ``person``, ``place``, ...: in the extractor's own word.
        name: However it is spelled: capitals, white space and compatible characters make no other entity.
        description: Kept where the entity has none yet.
        properties: As JSON; kept of keys that the entity has not yet.
        aliases: What else the chunk calls it.
    """

    entity_type: str
    name: str
    description: str | None = None
    properties: Mapping[str, Any] | None = None
    aliases: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_word("entity_type", self.entity_type)
        check_name("name", self.name)
        if self.description is not None:
            check_text("description", self.description, GraphError)
        aliases = several("aliases", self.aliases, GraphError, each=str)
        for place, alias in enumerate(aliases):
            check_name(f"aliases[{place}]", alias)
        object.__setattr__(self, "aliases", tuple(aliases))


@dataclass(frozen=True)
class NewRelation:
    """A relation that a chunk says.

    Attributes:
        source: Type and name of the entity that it is from; it need not be among the entities.
        relation_type: ``works_for``, ``part_of``, ...: in the extractor's own word.
        target: Type and name of the entity that it is to.
        weight: How much it counts, 0 or more; of a relation that is there the greater one is kept.
        description: Kept where the relation has none yet.
        properties: As JSON; kept of keys that the relation has not yet.
    """

    source: EntityName
    relation_type: str
    target: EntityName
    weight: float = 1.0
    description: str | None = None
    properties: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        for name in ("source", "target"):
            _check_end(name, getattr(self, name))
        check_word("relation_type", self.relation_type)
        if self.description is not None:
            check_text("description", self.description, GraphError)
        object.__setattr__(self, "weight", _read_weight(self.weight))


@dataclass(frozen=True)
class RecordedExtraction:
    """What `record_extraction` did.

    Attributes:
        is_new: False where this extractor had read the chunk before: then nothing was written.
        entity_ids: The entities, in the order in which they were passed; empty where nothing was written.
        relation_ids: The relations, likewise.
    """

    is_new: bool
    entity_ids: tuple[UUID, ...] = ()
    relation_ids: tuple[UUID, ...] = ()


@dataclass(frozen=True)
class PendingChunk:
    """A current chunk that an extractor has not read.

    Attributes:
        id: Of the chunk.
        content: Its text.
        document_id: Its document.
        article_id: The caller's own key for the document.
        title: Of the version that is current.
    """

    id: UUID
    content: str
    document_id: UUID
    article_id: str
    title: str | None


def check_word(name: str, value: object) -> None:
    """Refuse what is no word for a type.

    Raises:
        GraphError: It is no text, empty, or too long.
    """
    check_text(name, value, GraphError)
    assert isinstance(value, str)
    if not value.strip() or len(value.encode()) > WORD_BYTES:
        raise GraphError(
            f"{name} is {value!r:.60}, which is no word of 1 to {WORD_BYTES} bytes.",
            "Pass the extractor's own short word.",
        )


def check_name(name: str, value: object) -> None:
    """Refuse what is no name.

    Raises:
        GraphError: It is no text, nobody can see it, or it is too long.
    """
    check_text(name, value, GraphError)
    assert isinstance(value, str)
    seen = "".join(filter(str.isprintable, value)).strip()
    key = unicodedata.normalize("NFKC", value).lower()
    if not seen or len(value.encode()) > NAME_BYTES or len(key.encode()) > 2 * NAME_BYTES:
        raise GraphError(
            f"{name} is {value!r:.60}, which is no name of 1 to {NAME_BYTES:,} bytes that can be seen.",
            "Pass a name; what is longer is a description.",
        )


def check_id(name: str, value: object) -> None:
    """Refuse what is no UUID.

    Raises:
        GraphError: It is none.
    """
    if not isinstance(value, UUID):
        raise GraphError(
            f"{name} is {type(value).__name__}, not UUID.", "Pass the id of a result, or UUID(text)."
        )


def _check_end(name: str, value: object) -> None:
    if not isinstance(value, tuple) or len(value) != 2:
        raise GraphError(
            f"{name} is {value!r:.60}, not a type and a name.", 'Pass both: ("person", "Ada Lovelace").'
        )
    check_word(f"{name}[0]", value[0])
    check_name(f"{name}[1]", value[1])


def _read_weight(weight: object) -> float:
    # numpy's are of Real too
    if isinstance(weight, Real) and not isinstance(weight, bool) and weight <= 3e38 and not weight < 0:
        return as_real(float(weight))
    raise GraphError(
        f"The weight of a relation is {weight!r:.60}.", "Pass a number from 0 to 3e38, 1 by default."
    )
