"""Arguments of statements: checked where they are given, bound so that plans stay good.

Building a search takes longer than running it (measured: 1.6 ms against 1.0). So the statement of each shape is
built once, with the parameters below in it, and a call only adds their values.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, ParamSpec, TypeVar
from uuid import UUID

from sqlalchemy import ARRAY, BindParameter, ClauseElement, Double, Integer, Text, Uuid, bindparam

from ragschema.embeddings.column_type import Embedding
from ragschema.embeddings.wire import Vector
from ragschema.errors import RagSchemaError

P = ParamSpec("P")
T = TypeVar("T")

EMBEDDING: BindParameter[Vector] = bindparam("rag_embedding", type_=Embedding())
"""Of the column's dimension; one of another has the same name."""
MODEL: BindParameter[str | None] = bindparam("rag_model", type_=Text())
MAX_DISTANCE: BindParameter[float] = bindparam("rag_max_distance", type_=Double())
SEARCHED: BindParameter[str] = bindparam("rag_text", type_=Text())
# One array parameter each, so that the statement is the same however many there are.
ARTICLE_IDS: BindParameter[Any] = bindparam("rag_article_ids", type_=ARRAY(Text()))
DOCUMENT_IDS: BindParameter[Any] = bindparam("rag_document_ids", type_=ARRAY(Uuid()))
METADATA: BindParameter[Any] = bindparam("rag_metadata", type_=Text())
COLLECTION_IDS: BindParameter[Any] = bindparam("rag_collection_ids", type_=ARRAY(Uuid()))


_MOST = 2_147_483_647


class QueryError(RagSchemaError, ValueError):
    """A statement or a setting was asked for that cannot be."""


def built_once(build: Callable[P, T]) -> Callable[P, T]:
    """Keep what was built for the latest 256 combinations of arguments."""
    return lru_cache(256)(build)  # type: ignore[return-value]  # its call takes any hashable


def checked_count(name: str, count: int, most: int = _MOST) -> int:
    """Return a number of rows.

    Raises:
        QueryError: It is no whole number from 1 to ``most``.
    """
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= most:
        raise QueryError(f"{name} is {count!r}.", f"Pass a whole number from 1 to {most:,}.")
    return count


def checked_number(name: str, number: Any) -> float:
    """Return a number, of whatever library's type, as Python's own.

    Raises:
        QueryError: It is none, or not a number.
    """
    try:
        found = math.nan if isinstance(number, str | bytes | bool) else float(number)
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    if math.isnan(found):
        raise QueryError(f"{name} is not a number.", "Pass one.")
    return number if type(number) is int else found


def checked_id(name: str, value: Any) -> Any:
    """Return an id, of which its text is one too; what stands for one in a statement as it is.

    Raises:
        QueryError: It is none.
    """
    if isinstance(value, UUID | ClauseElement):
        return value
    try:
        return UUID(value)
    except (TypeError, ValueError, AttributeError) as exc:
        raise QueryError(f"{name} is {value!r}.", "Pass a UUID.") from exc


def row_count(count: int) -> BindParameter[int]:
    """Bind a number of rows as a literal of the statement, so that a generic plan reckons with it."""
    return bindparam("rag_rows", count, Integer(), unique=True, literal_execute=True)
