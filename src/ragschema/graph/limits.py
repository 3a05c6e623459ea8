"""Limits of a local search: part of its statement's shape, so that the planner reckons with them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """How many of each are looked for at most.

    Attributes:
        chunks: The nearest chunks.
        entities: Entities that these mention.
        fanout: Relations of each entity and end.
        relations: Relations in all.
        evidence: Chunks of each relation.
    """

    chunks: int
    entities: int
    fanout: int
    relations: int
    evidence: int
