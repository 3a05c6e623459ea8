"""Embeddings as a caller gives them to be published, and as they are sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from ragschema.embeddings.column_type import EmbeddingError
from ragschema.embeddings.wire import EmbeddingLike, Vector
from ragschema.publishing.errors import PublishingError
from ragschema.publishing.version_plan import ModelNeeds, VersionPlan
from ragschema.values import several
from ragschema.words import counted

T = TypeVar("T")
Embeddings: TypeAlias = Mapping[str, EmbeddingLike | None] | Sequence[EmbeddingLike | None] | NDArray[Any]
ModelEmbeddings: TypeAlias = Mapping[str, Embeddings | None]
"""Embeddings by the key of their model; None: all are to come."""


@dataclass(frozen=True, eq=False)
class Given:
    """The embeddings of one model that were given.

    Attributes:
        needs: What the version needs of the model.
        slots: Which row of the array a text's embedding is.
        vectors: Of shape ``(n, dimensions)``.
    """

    needs: ModelNeeds
    slots: Mapping[str, int]
    vectors: Vector


def collect(
    plan: VersionPlan, embeddings: Embeddings | None, model_embeddings: ModelEmbeddings | None
) -> list[Given]:
    """Return the embeddings of each live model that were given.

    Raises:
        EmbeddingError: One is missing, there are too many, one cannot be stored, or the model is not live.
    """
    if not isinstance(plan, VersionPlan):
        raise PublishingError(
            f"The plan is {type(plan).__name__}, not VersionPlan.", "Pass what plan_version has returned."
        )
    by_model: dict[int, tuple[str, Embeddings | None]] = {}
    for key, given in checked_keys(model_embeddings).items():
        by_model[plan.live.find(key).id] = (f"model_embeddings[{key!r}]", given)
    active = plan.live.active
    if active is not None and active.id not in by_model:
        by_model[active.id] = ("embeddings", embeddings)
    elif embeddings is not None and not (isinstance(embeddings, Sized) and len(embeddings) == 0):
        raise EmbeddingError(
            f"The embeddings of article {plan.article_id!r} are {'given twice' if active else 'of no active model'}.",
            "Pass them as embeddings, which are the active model's, or by the key of their model.",
        )
    return [_collect(plan, needs, *by_model.get(needs.model.id, ("", None))) for needs in plan.needs]


def checked_keys(model_embeddings: Mapping[str, T] | None) -> Mapping[str, T]:
    """Return embeddings by the key of their model; none where none are given.

    Raises:
        EmbeddingError: They are not by key.
    """
    if model_embeddings is None:
        return {}
    if not isinstance(model_embeddings, Mapping):
        raise EmbeddingError(
            f"model_embeddings is a {type(model_embeddings).__name__}, not embeddings by the key of their model.",
            "Pass model_embeddings={key: embeddings}.",
        )
    return model_embeddings


def _collect(plan: VersionPlan, needs: ModelNeeds, name: str, embeddings: Embeddings | None) -> Given:
    texts: Sequence[str] = needs.texts_to_embed
    model = needs.model
    given: Sequence[EmbeddingLike | None] | NDArray[Any]
    if embeddings is None:
        given = [None] * len(texts)
    elif isinstance(embeddings, Mapping):
        missing = next((text for text in texts if text not in embeddings), None)
        if missing is not None and model.is_active:
            raise EmbeddingError(
                f"There is no embedding of chunk {plan.contents.index(missing)} of article {plan.article_id!r}.",
                "Pass one for each of plan.texts_to_embed, or None for one that is to come.",
            )
        waiting = (text for text, waits in zip(plan.contents, needs.is_pending, strict=True) if waits)
        texts = [*dict.fromkeys((*texts, *(text for text in waiting if text in embeddings)))]
        given = [embeddings.get(text) for text in texts]
    else:
        given = (
            embeddings
            if isinstance(embeddings, np.ndarray)
            else several(name, embeddings, EmbeddingError, is_ordered=True)
        )
        if len(given) != len(texts):
            of_model = f" by {model.key!r}" if model.is_registered else ""
            raise EmbeddingError(
                f"The plan of article {plan.article_id!r} has {counted(len(texts), 'text')} to embed{of_model}"
                f" and was given {counted(len(given), 'embedding')}.",
                "Pass one for each of plan.texts_to_embed, in their order, or None for one that is to come.",
            )
    if isinstance(given, np.ndarray):
        return Given(needs, {text: row for row, text in enumerate(texts)}, model.check_all(given))
    there = [(text, value) for text, value in zip(texts, given, strict=True) if value is not None]
    slots = {text: row for row, (text, _) in enumerate(there)}
    return Given(needs, slots, model.check_all([value for _, value in there]))
