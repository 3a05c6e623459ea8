"""Column type of embeddings in half precision: pgvector's ``halfvec``, checked and binary as `Embedding` is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pgvector.sqlalchemy import HALFVEC
from sqlalchemy import BindParameter, ColumnElement, Dialect, LargeBinary, func, type_coerce
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.visitors import InternalTraversal
from sqlalchemy.types import UserDefinedType

from ragschema.embeddings.column_type import Embedding, EmbeddingError
from ragschema.embeddings.wire import (
    BinaryHalfArray,
    BinaryHalfVector,
    EmbeddingLike,
    HalfVectors,
    Vector,
    binds_binary,
    pgvector,
    read_vector,
    to_text,
)

_LARGEST = float(np.finfo(np.float16).max)
_VANISHING = float(np.finfo(np.float16).smallest_subnormal) / 2
"""What becomes zero in float16, and so does all that is smaller: halfway to the least number, rounded to even."""


class HalfEmbedding(HALFVEC):
    """A pgvector ``halfvec`` column of finite float16 numbers, not all of them zero; of any dimension by default.

    Takes what `Embedding` takes, and returns float32 numpy arrays of shape ``(dim,)``: what was given, rounded to
    float16. A cosine distance changes by about 1e-4 at most.

    Args:
        dim: The dimension; None for a column that holds several models' embeddings.

    Raises:
        EmbeddingError: On binding a value that `Embedding` would refuse, one that holds a number above 65,504, or one
            that is all zeros in float16.
    """

    cache_ok = True
    hashable = False
    render_bind_cast = True

    def __init__(self, dim: int | None = None) -> None:
        super().__init__(dim)

    def check(self, value: EmbeddingLike) -> Vector:
        """Return a value as a float32 array of shape ``(dim,)`` whose numbers fit float16.

        Raises:
            EmbeddingError: It is no embedding that the column can hold.
        """
        if self.dim is not None:
            return check_half(Embedding(self.dim).check(value))
        array = np.asarray(
            value.to_numpy() if isinstance(value, pgvector.Vector | pgvector.HalfVector) else value
        )
        return check_half(Embedding(array.shape[0] if array.ndim == 1 else 0).check(value))

    def check_all(self, values: Sequence[EmbeddingLike] | NDArray[Any]) -> Vector:
        """Return values as a float32 array of shape ``(n, dim)`` whose numbers fit float16; see `check`."""
        assert self.dim is not None
        return check_half(Embedding(self.dim).check_all(values))

    def bind_processor(self, dialect: Dialect) -> Any:
        if binds_binary(dialect):
            return lambda value: None if value is None else BinaryHalfVector.of(self.check(value))
        return lambda value: None if value is None else to_text(self.check(value))

    def literal_processor(self, dialect: Dialect) -> Any:
        # with its type, for some functions take either
        return lambda value: f"CAST('{to_text(self.check(value))}' AS halfvec)"

    def column_expression(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        return type_coerce(func.halfvec_send(column, type_=LargeBinary()), self)

    def result_processor(self, dialect: Dialect, coltype: object) -> Any:
        return lambda value: None if value is None else read_vector(value, ">f2")

    def compare_values(self, x: Any, y: Any) -> bool:
        """Whether the column would hold the same for both, so that a flush need not write it."""
        if x is y or x is None or y is None:
            return x is y
        try:
            return np.array_equal(self.check(x).astype(np.float16), self.check(y).astype(np.float16))
        except EmbeddingError:  # written, and so refused where it is bound
            return False


class HalfEmbeddingArray(UserDefinedType[HalfVectors]):
    """A parameter of many embeddings, as ``halfvec[]``: a quarter of the bytes of ``real[]``, and no cast row by row.

    Binary over psycopg 3; with another driver, or an engine that does not know our formats, it travels as text.
    """

    cache_ok = True

    def bind_processor(self, dialect: Dialect) -> Any:
        return BinaryHalfArray if binds_binary(dialect) else HalfVectors.text

    def bind_expression(self, bindvalue: BindParameter[Any]) -> ColumnElement[Any]:
        return _AsHalfVectors(bindvalue)


class _AsHalfVectors(ColumnElement[Any]):
    inherit_cache = True
    _traverse_internals = [("bindvalue", InternalTraversal.dp_clauseelement)]

    def __init__(self, bindvalue: BindParameter[Any]) -> None:
        self.bindvalue = bindvalue


@compiles(_AsHalfVectors)
def _cast_to_half_vectors(element: _AsHalfVectors, compiler: SQLCompiler, **kw: Any) -> str:
    given = compiler.process(element.bindvalue, **kw)
    # a driver that asks the server for a parameter's type has no codec of halfvec
    return f"CAST({given if binds_binary(compiler.dialect) else f'CAST({given} AS TEXT)'} AS halfvec[])"


def check_half(vectors: Vector) -> Vector:
    """Return float32 embeddings, of shape ``(..., dim)``, that have been checked, where float16 can hold them.

    Raises:
        EmbeddingError: A number is too large, or an embedding would be all zeros.
    """
    # twice as fast as the maximum of np.abs, and looking for zeros in float16 would convert everything once more
    largest = np.maximum(vectors.max(axis=-1, initial=0.0), -vectors.min(axis=-1, initial=0.0))
    if (largest > _LARGEST).any():
        raise EmbeddingError(
            f"An embedding of {vectors.shape[-1]} dimensions holds {largest.max():.6g}; halfvec takes numbers up to"
            f" {_LARGEST:,.0f}.",
            "Divide it by its length.",
        )
    if vectors.size and (largest <= _VANISHING).any():
        raise EmbeddingError(
            f"An embedding of {vectors.shape[-1]} dimensions is all zeros in float16, which is what halfvec keeps.",
            "Divide it by its length.",
        )
    return vectors
