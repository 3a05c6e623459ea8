"""Embeddings as a caller gives them to be published, and as they are sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ragschema.embeddings.column_type import Embedding, EmbeddingError
from ragschema.embeddings.wire import EmbeddingLike, Vector
from ragschema.publishing.version_plan import VersionPlan
from ragschema.values import several
from ragschema.words import counted

Embeddings: TypeAlias = Mapping[str, EmbeddingLike | None] | Sequence[EmbeddingLike | None] | NDArray[Any]


def collect(plan: VersionPlan, embeddings: Embeddings) -> tuple[dict[str, int], Vector]:
    """Return which row of an array each text's embedding is, and the array; of those that were given.

    Raises:
        EmbeddingError: One is missing, there are too many, or one cannot be stored.
    """
    texts: Sequence[str] = plan.texts_to_embed
    given: Sequence[EmbeddingLike | None] | NDArray[Any]
    if isinstance(embeddings, Mapping):
        missing = next((text for text in texts if text not in embeddings), None)
        if missing is not None:
            raise EmbeddingError(
                f"There is no embedding of chunk {plan.contents.index(missing)} of article {plan.article_id!r}.",
                "Pass one for each of plan.texts_to_embed, or None for one that is to come.",
            )
        pending = (place.content for place in plan.places if place.is_pending)
        texts = [*dict.fromkeys((*texts, *(text for text in pending if text in embeddings)))]
        given = [embeddings[text] for text in texts]
    else:
        given = (
            embeddings
            if isinstance(embeddings, np.ndarray)
            else several("embeddings", embeddings, EmbeddingError, is_ordered=True)
        )
        if len(given) != len(texts):
            raise EmbeddingError(
                f"The plan of article {plan.article_id!r} has {counted(len(texts), 'text')} to embed"
                f" and was given {counted(len(given), 'embedding')}.",
                "Pass one for each of plan.texts_to_embed, in their order, or None for one that is to come.",
            )
    if isinstance(given, np.ndarray):
        return {text: row for row, text in enumerate(texts)}, Embedding().check_all(given)
    there = [(text, value) for text, value in zip(texts, given, strict=True) if value is not None]
    slots = {text: row for row, (text, _) in enumerate(there)}
    return slots, Embedding().check_all([value for _, value in there])
