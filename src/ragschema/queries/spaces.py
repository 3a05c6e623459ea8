"""Embedding spaces: whose embeddings a query is compared with, and by which distance and index."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ragschema.embeddings.column_type import EMBEDDING_DIMENSION, Embedding, EmbeddingError
from ragschema.embeddings.half_column_type import check_half
from ragschema.embeddings.wire import EmbeddingLike, Vector, pgvector
from ragschema.queries.arguments import EMBEDDING, MODEL, QueryError
from ragschema.schema.embedding_models import COLUMN_MODEL, Distance, EmbeddingModel, IndexType
from ragschema.values import check_text
from ragschema.words import counted

_MOST_DIMENSIONS = 16_000  # of halfvec and vector
_MOST_INDEXED = 4_000  # of halfvec, by HNSW


@dataclass(frozen=True)
class Space:
    """Embeddings that a query may be compared with: part of a statement's shape.

    Attributes:
        dimensions: Of the query.
        distance: By which it is compared.
        index_type: Of the index that is read.
        model_id: Of the model, where the search was given it; None where the statement finds it out by its key.
    """

    dimensions: int
    distance: Distance
    index_type: IndexType
    model_id: int | None

    @property
    def has_column(self) -> bool:
        """Whether the model may be the column of the chunks."""
        if self.model_id is not None:
            return self.model_id == COLUMN_MODEL
        return self.dimensions == EMBEDDING_DIMENSION

    @property
    def has_partition(self) -> bool:
        """Whether the model may have a partition."""
        return self.model_id != COLUMN_MODEL

    @property
    def is_full(self) -> bool:
        """Whether the query is sent in full precision: to the column, and to an index of vector."""
        return self.has_column or self.index_type == "vector"


def find_space(
    embedding: EmbeddingLike, model: str | EmbeddingModel | None
) -> tuple[Space, dict[str, Vector | str | None]]:
    """Return the space of a query, and the values of its parameters.

    Raises:
        EmbeddingError: The embedding is none, or not one of the model.
        QueryError: The model is neither a key nor one that was read from the database.
    """
    if isinstance(model, EmbeddingModel):
        if model.id is None:
            raise QueryError(
                f"The embedding model {model.key!r} was not read from the database.",
                "Pass its key, or what find_model of ragschema.embedding_models returns.",
            )
        space = Space(
            model.dimensions, cast(Distance, model.distance), cast(IndexType, model.index_type), model.id
        )
        query = _check(embedding, space.dimensions, model.key)
        key: str | None = model.key
    elif model is None or isinstance(model, str):
        if model is not None:
            check_text("model", model, QueryError)
        array = _as_array(embedding)
        dimensions = array.shape[0] if array is not None and array.ndim == 1 else 0
        if not 1 <= dimensions <= _MOST_DIMENSIONS:
            Embedding().check(embedding)
        space = Space(dimensions, "cosine", "halfvec" if dimensions <= _MOST_INDEXED else "bit", None)
        query = Embedding(dimensions).check(embedding if array is None else array)
        key = model
    else:
        raise QueryError(
            f"The model of a search is a {type(model).__name__}.", "Pass its key, or an EmbeddingModel."
        )
    if not space.is_full:  # of length 1, which no cosine distance notices, any query fits float16
        query = query / np.linalg.norm(query) if space.distance == "cosine" else check_half(query)
    return space, {EMBEDDING.key: query, MODEL.key: key}


def _check(embedding: EmbeddingLike, dimensions: int, key: str) -> Vector:
    array = _as_array(embedding)
    if array is not None and array.ndim == 1 and len(array) != dimensions:
        raise EmbeddingError(
            f"An embedding has {counted(len(array), 'dimension')}, the model {key!r} has {dimensions}.",
            "Embed the query with the model that the search names.",
        )
    return Embedding(dimensions).check(embedding if array is None else array)


def _as_array(embedding: EmbeddingLike) -> NDArray[Any] | None:
    """Return an embedding as an array; None where it is none, so that its check says what it is."""
    if isinstance(embedding, pgvector.Vector | pgvector.HalfVector):
        return np.asarray(embedding.to_numpy())
    try:
        return np.asanyarray(embedding)
    except (TypeError, ValueError, RuntimeError):
        return None
