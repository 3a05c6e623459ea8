"""The embedding column type: checked before the round trip, binary on the wire."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import psycopg
from numpy.typing import ArrayLike, NDArray
from pgvector.sqlalchemy import VECTOR
from psycopg.adapt import Dumper
from psycopg.pq import Format
from sqlalchemy import ColumnElement, Dialect, LargeBinary, func, type_coerce
from sqlalchemy.exc import DontWrapMixin

from ragschema.errors import RagSchemaError

EMBEDDING_DIMENSION = 768

Vector: TypeAlias = NDArray[np.float32]


class EmbeddingError(RagSchemaError, ValueError, DontWrapMixin):
    """A value is not an embedding that the column can hold. Raised before anything is sent."""


class Embedding(VECTOR):
    """A pgvector ``vector(dimension)`` column of finite float32 numbers.

    Takes any sequence or array of shape ``(dimension,)`` and returns a float32 numpy array of that shape.
    All distance operators of `pgvector.sqlalchemy` and its ``avg`` and ``sum`` work on it.

    Values travel in pgvector's binary format: bound as such over psycopg 3, and read through
    ``vector_send``, because psycopg asks for text results. An engine made before this module was imported,
    or one of another driver, binds them as text: slower, the same rows.

    Args:
        dim: The dimension; `EMBEDDING_DIMENSION` in this schema.

    Raises:
        EmbeddingError: On binding a value of another dimension, or one that holds NaN or infinity.
    """

    cache_ok = True
    hashable = False
    render_bind_cast = True
    dim: int

    def __init__(self, dim: int = EMBEDDING_DIMENSION) -> None:
        super().__init__(dim)

    def check(self, value: ArrayLike) -> Vector:
        """Return a value as a float32 array of shape ``(dim,)``.

        Raises:
            EmbeddingError: It is not one: another dimension, not numbers, NaN or infinity.
        """
        try:
            with np.errstate(
                over="ignore"
            ):  # a float64 too large for float32 becomes infinity, refused below
                array = np.asarray(value, dtype=np.float32)
        except (TypeError, ValueError) as exc:
            raise EmbeddingError(
                f"An embedding must be {self.dim} numbers, not {type(value).__name__}.",
                "Pass a list of numbers or a numpy array.",
            ) from exc
        if array.shape != (self.dim,):
            dimension = "x".join(map(str, array.shape)) or "no"
            raise EmbeddingError(
                f"An embedding has {dimension} dimensions, the column takes {self.dim}.",
                "Use the embedding model that the column was made for.",
            )
        if not np.isfinite(array).all():
            place = int(np.flatnonzero(~np.isfinite(array))[0])
            raise EmbeddingError(
                f"An embedding of {self.dim} dimensions holds {array[place]} at position {place}; "
                f"the column takes {self.dim} finite numbers.",
                "Look at the model's output: pgvector stores no NaN and no infinity.",
            )
        return array

    def bind_processor(self, dialect: Dialect) -> Any:
        if _binds_binary(dialect):
            prefix = self.dim.to_bytes(2, "big") + b"\0\0"
            return lambda value: (
                None if value is None else _Binary(prefix + self.check(value).astype(">f4").tobytes())
            )
        return lambda value: None if value is None else self._to_text(value)

    def literal_processor(self, dialect: Dialect) -> Any:
        return lambda value: f"'{self._to_text(value)}'"

    def _to_text(self, value: ArrayLike) -> str:
        return "[" + ",".join(map(str, self.check(value).tolist())) + "]"

    def column_expression(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        return type_coerce(func.vector_send(column, type_=LargeBinary()), self)

    def result_processor(self, dialect: Dialect, coltype: object) -> Any:
        def process(value: bytes | str | None) -> Vector | None:
            if value is None:
                return None
            if isinstance(value, str):  # raw SQL, declared with this type, past column_expression
                return np.array(value[1:-1].split(","), dtype=np.float32)
            return np.frombuffer(value, dtype=">f4", offset=4).astype(np.float32)

        return process

    def compare_values(self, x: Any, y: Any) -> bool:
        return x is y or (x is not None and y is not None and np.array_equal(x, y))


class _Binary:
    """A vector in pgvector's binary format: int16 dimension, int16 unused, float4s, all big-endian."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data


class _BinaryDumper(Dumper):
    format = Format.BINARY
    oid = 0  # the type's oid differs by database: the cast that SQLAlchemy renders names it

    def dump(self, obj: _Binary) -> bytes:
        return obj.data


psycopg.adapters.register_dumper(_Binary, _BinaryDumper)


def _binds_binary(dialect: Dialect) -> bool:
    """Whether the dialect's connections know `_Binary`: one made before this module's import does not."""
    adapters = getattr(dialect, "_psycopg_adapters_map", None)
    if adapters is None:
        return False
    try:
        adapters.get_dumper(_Binary, psycopg.adapt.PyFormat.AUTO)
    except psycopg.ProgrammingError:
        return False
    return True
