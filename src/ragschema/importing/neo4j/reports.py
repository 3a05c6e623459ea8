"""Results of an import of a graph."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class GraphRefusal:
    """A node or relationship that cannot be kept.

    Attributes:
        where: The file and line, or which of all it is.
        reason: Why.
    """

    where: str
    reason: str


@dataclass(frozen=True)
class GraphImport:
    """What an import did, or would do.

    Attributes:
        files: What was read.
        is_dry_run: Whether nothing was changed.
        resumed_after: Nodes and relationships that an interrupted import of these files had done; 0: it began.
        nodes: Nodes that were read.
        entities_added: Entities that are new.
        entities_changed: Nodes whose entity was there, and has other properties now, or was not imported before.
        relationships: Relationships that were read and not done before.
        relations_added: Relations that are new.
        relations_changed: Relationships whose relation was there, and has other properties now.
        refused: Nodes and relationships that cannot be kept: left out.
        refusals: The first of them, each with the reason.
    """

    files: tuple[str, ...]
    is_dry_run: bool
    resumed_after: int
    nodes: int
    entities_added: int
    entities_changed: int
    relationships: int
    relations_added: int
    relations_changed: int
    refused: int
    refusals: tuple[GraphRefusal, ...]
