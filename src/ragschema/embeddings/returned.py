"""Embeddings as a model's function has returned them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar, cast

import numpy as np

from ragschema.embeddings.column_type import EmbeddingError
from ragschema.values import refuse_one

T = TypeVar("T")


def read_embedded(name: str, embedded: Iterable[T]) -> list[T]:
    """Return the embeddings that a model's function has returned, each read once.

    Arrays are copied as they are read: a function may use one again for its next text, or its next call.

    Args:
        name: Of the function.
        embedded: What it returned.

    Raises:
        EmbeddingError: They are no embeddings in an order.
    """
    refuse_one(f"What {name} returned", embedded, EmbeddingError, is_ordered=True)
    return [cast(T, each.copy()) if isinstance(each, np.ndarray) else each for each in embedded]
