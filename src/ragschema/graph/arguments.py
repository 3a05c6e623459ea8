"""Arguments of questions to the graph, checked before anything is sent."""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

from ragschema.graph.errors import GraphError
from ragschema.values import several


def check_id(name: str, value: object) -> None:
    """Refuse what is no UUID.

    Raises:
        GraphError: It is none.
    """
    if not isinstance(value, UUID):
        raise GraphError(
            f"{name} is {type(value).__name__}, not UUID.", "Pass the id of a result, or UUID(text)."
        )


def check_number(name: str, value: object, lowest: int, highest: int) -> None:
    """Refuse what is no whole number of a range; True is none.

    Raises:
        GraphError: It is none.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
        raise GraphError(f"{name} is {value!r:.60}.", f"Pass a whole number from {lowest:,} to {highest:,}.")


def check_types(name: str, values: Collection[str] | None) -> list[str] | None:
    """Return the types that are given, as a list; None where none are.

    Raises:
        GraphError: They are one string, or no strings.
    """
    return None if values is None else several(name, values, GraphError, each=str)
