"""What every system under comparison can do, so that the parts measure all of them alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from compare.workload import Text
from ragschema.database.settings import Database


@dataclass(frozen=True)
class Answer:
    """One search: how long it took, the texts of the rows, nearest first, and the CPU seconds of the client."""

    seconds: float
    texts: list[Text]
    cpu: float = 0.0


@dataclass(frozen=True)
class Republished:
    """One re-ingested document: how long it took, and how many texts the embedder was sent."""

    seconds: float
    texts_sent: int


class System(Protocol):
    """A store in a database of its own."""

    name: str
    database: Database

    def search(self, kind: str, count: int, start: int, stop: int) -> list[Answer]:
        """Run some of the queries of a kind, ten rows each."""
        ...

    def republish(self, document: int, states: Sequence[int], way: str) -> Republished:
        """Re-ingest a document whose chunks are in these states now."""
        ...
