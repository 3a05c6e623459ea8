"""Column types of embeddings: checked before the round trip, binary on the wire."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pgvector.sqlalchemy import VECTOR
from sqlalchemy import ColumnElement, Dialect, LargeBinary, func, type_coerce
from sqlalchemy.exc import DontWrapMixin
from sqlalchemy.types import UserDefinedType

from ragschema.embeddings.wire import (
    BinaryArray,
    BinaryVector,
    EmbeddingLike,
    Vector,
    binds_binary,
    pgvector,
    read_vector,
    to_text,
)
from ragschema.errors import RagSchemaError

EMBEDDING_DIMENSION = 768
"""Of the column ``rag_chunks.embedding``: what reads and writes embeddings takes it from the column's type."""


class EmbeddingError(RagSchemaError, ValueError, DontWrapMixin):
    """A value is not an embedding that the column can hold. Raised before anything is sent."""


class Embedding(VECTOR):
    """A pgvector ``vector(dimension)`` column of finite float32 numbers, not all of them zero.

    Takes any sequence or array of real numbers of shape ``(dimension,)``, converts it to float32, and returns
    a float32 numpy array of that shape. None is NULL. The distance operators of `pgvector.sqlalchemy` and its
    ``avg`` and ``sum`` work on it.

    Values travel in pgvector's binary format: bound as such over psycopg 3, and read through
    ``vector_send``, because psycopg asks for text results. An engine that was made before this module was
    imported, or one of another driver, binds them as text: slower, the same rows.

    Args:
        dim: The dimension; `EMBEDDING_DIMENSION` in this schema.

    Raises:
        EmbeddingError: On binding a value of another dimension, one that holds NaN or infinity, or only zeros.
    """

    cache_ok = True
    hashable = False
    render_bind_cast = True
    dim: int

    def __init__(self, dim: int = EMBEDDING_DIMENSION) -> None:
        super().__init__(dim)

    def check(self, value: EmbeddingLike) -> Vector:
        """Return a value as a float32 array of shape ``(dim,)``.

        Raises:
            EmbeddingError: It is not one: another dimension, not real numbers, NaN or infinity, or zeros only,
                which have no direction: a search by cosine never returns them. Or its length leaves the float32
                that pgvector reckons with: such a vector has a distance of its own even to itself.
        """
        given = self._as_array(value)
        if given.dtype.kind not in "fiu":
            raise self._not_numbers(f"{type(value).__name__} of {given.dtype}")
        if given.shape != (self.dim,):
            dimension = "x".join(map(str, given.shape)) or "no"
            raise EmbeddingError(
                f"An embedding has {dimension} dimensions, the column takes {self.dim}.",
                "Use the embedding model that the column was made for."
                if given.ndim == 1
                else "Pass a flat list of numbers for each text.",
            )
        with np.errstate(all="ignore"):  # what overflows float32 becomes infinity, refused below
            array = given.astype(np.float32, copy=False)
        finite = np.isfinite(array)
        if not finite.all():
            place = int(np.argmin(finite))
            raise EmbeddingError(
                f"An embedding of {self.dim} dimensions holds {given[place]} at position {place}; "
                f"the column takes {self.dim} finite float32 numbers.",
                "Look at the model's output: NaN, infinity and numbers beyond 3.4e38 cannot be stored.",
            )
        if not array.any():
            raise EmbeddingError(
                f"An embedding of {self.dim} dimensions is zero, so no search by cosine would return it.",
                "Look at the text: models return this for one that is empty; use None for an embedding to come.",
            )
        if not _has_length(array).all():
            length = float(np.linalg.norm(array.astype(np.float64)))
            raise EmbeddingError(
                f"An embedding of {self.dim} dimensions has length {length:.3g}, whose square is no float32: distances"
                " to it would be wrong.",
                "Divide it by its length.",
            )
        return array

    def check_all(self, values: Sequence[EmbeddingLike] | NDArray[Any]) -> Vector:
        """Return values as a float32 array of shape ``(n, dim)``; an array is checked at once.

        Raises:
            EmbeddingError: One of them is none; see `check`.
        """
        if isinstance(values, np.ndarray) and values.dtype.kind in "fiu" and values.shape[1:] == (self.dim,):
            with np.errstate(all="ignore"):
                array = values.astype(np.float32, copy=False)
            if not np.ma.isMaskedArray(values) and np.isfinite(array).all() and _has_length(array).all():
                return array
        return np.array([self.check(value) for value in values], np.float32).reshape(-1, self.dim)

    def _as_array(self, value: EmbeddingLike) -> NDArray[Any]:
        if isinstance(value, pgvector.Vector | pgvector.HalfVector):
            return np.asarray(value.to_numpy())
        if np.ma.isMaskedArray(value):
            raise EmbeddingError(
                "An embedding is a masked array, and what is masked would be stored as if it were a number.",
                "Pass its data, or the values to put where it is masked: array.filled(0).",
            )
        try:
            return np.asarray(value)
        except (TypeError, ValueError, RuntimeError) as exc:
            if not hasattr(value, "__array__"):  # a list of lists of unequal lengths, for one
                raise self._not_numbers(type(value).__name__) from exc
            # a tensor that is on another device, of bfloat16, or that a gradient is kept for
            raise EmbeddingError(
                f"An embedding of type {type(value).__name__} does not become an array: {exc}.",
                "Pass tensor.detach().float().cpu().numpy().",
            ) from exc

    def _not_numbers(self, what: str) -> EmbeddingError:
        return EmbeddingError(
            f"An embedding must be {self.dim} real numbers, not {what}.",
            "Pass a list of numbers or a numpy array.",
        )

    def bind_processor(self, dialect: Dialect) -> Any:
        if binds_binary(dialect):
            header = self.dim.to_bytes(2, "big") + b"\0\0"
            return lambda value: (
                None if value is None else BinaryVector(header + self.check(value).astype(">f4").tobytes())
            )
        return lambda value: None if value is None else to_text(self.check(value))

    def literal_processor(self, dialect: Dialect) -> Any:
        # with its type, for some functions take either
        return lambda value: f"CAST('{to_text(self.check(value))}' AS vector)"

    def column_expression(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        return type_coerce(func.vector_send(column, type_=LargeBinary()), self)

    def result_processor(self, dialect: Dialect, coltype: object) -> Any:
        return lambda value: None if value is None else read_vector(value, ">f4")

    def compare_values(self, x: Any, y: Any) -> bool:
        """Whether the column would hold the same for both, so that a flush need not write it."""
        if x is y or x is None or y is None:
            return x is y
        try:
            return np.array_equal(self.check(x), self.check(y))
        except EmbeddingError:  # written, and so refused where it is bound
            return False


def _has_length(vectors: Vector) -> NDArray[np.bool_]:
    """Whether the squared length of vectors, of shape ``(..., dim)``, is a float32 that keeps its precision."""
    with np.errstate(all="ignore"):
        squares = np.einsum("...i,...i->...", vectors, vectors)
    found: NDArray[np.bool_] = np.isfinite(squares) & (squares >= np.finfo(np.float32).tiny)
    return found


class EmbeddingArray(UserDefinedType[Vector]):
    """A parameter of many embeddings: their numbers, one after another, as ``real[]``.

    pgvector has no binary format for arrays of vectors that does without the type's oid, which differs by
    database; the elements of ``real[]`` have the same one everywhere. Takes an array of shape ``(n, dimension)``.
    """

    cache_ok = True

    def get_col_spec(self, **kw: Any) -> str:
        return "REAL[]"

    def bind_processor(self, dialect: Dialect) -> Any:
        if binds_binary(dialect):
            return BinaryArray
        if dialect.driver == "asyncpg":  # it encodes arrays itself, from a list
            return lambda value: value.ravel().tolist()
        return lambda value: "{" + ",".join(map(str, value.ravel().tolist())) + "}"
