"""Wire formats of embeddings: ``vector``, ``halfvec``, ``real[]`` and ``halfvec[]``, as psycopg sends them."""

from __future__ import annotations

import logging
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pgvector as pgvector  # from here elsewhere: before 0.4 its values were in another module
import psycopg
from numpy.typing import ArrayLike, NDArray
from psycopg.adapt import Dumper, PyFormat
from psycopg.pq import Format
from sqlalchemy import Dialect

log = logging.getLogger(__name__)

_FLOAT4_OID = 700

if not TYPE_CHECKING and not hasattr(pgvector, "Vector"):  # before 0.4
    from pgvector import utils as pgvector

Vector: TypeAlias = NDArray[np.float32]
EmbeddingLike: TypeAlias = ArrayLike | pgvector.Vector | pgvector.HalfVector
"""An embedding as callers have it: numbers, an array or tensor, or a value of pgvector's."""


def to_text(vector: Vector) -> str:
    return "[" + ",".join(map(str, vector.tolist())) + "]"


def read_vector(value: Any, numbers: str) -> Vector:
    """Return a vector that a driver has read, of shape ``(dimension,)``.

    Args:
        value: As bytes, in pgvector's binary format; or, from raw SQL that bypasses a type's column_expression, as
            text, or what ``register_vector`` of pgvector makes of it: before its 0.5 an array.
        numbers: How numpy calls the numbers of the binary format.
    """
    if isinstance(value, str):
        return np.array(value[1:-1].split(","), dtype=np.float32)
    if isinstance(value, pgvector.Vector | pgvector.HalfVector):
        return np.asarray(value.to_numpy(), np.float32)
    if isinstance(value, np.ndarray):
        return value
    return np.frombuffer(value, dtype=numbers, offset=4).astype(np.float32)


class BinaryVector:
    """A vector in pgvector's binary format: int16 dimension, int16 unused, float4s, all big-endian."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data


class BinaryHalfVector(BinaryVector):
    """A vector in pgvector's binary format of halfvec: as `BinaryVector`, with float2s."""

    @classmethod
    def of(cls, vector: Vector) -> BinaryHalfVector:
        """Return it of a float32 array of shape ``(dimension,)``."""
        return cls(len(vector).to_bytes(2, "big") + b"\0\0" + vector.astype(">f2").tobytes())


class BinaryArray(BinaryVector):
    """Numbers in PostgreSQL's binary format of real[]."""

    def __init__(self, numbers: Vector) -> None:
        elements = np.empty(numbers.size, dtype=[("length", ">i4"), ("number", ">f4")])
        elements["length"] = 4
        elements["number"] = numbers.ravel()
        dimensions = (numbers.size, 1) if numbers.size else ()
        header = (len(dimensions) // 2, 0, _FLOAT4_OID, *dimensions)
        super().__init__(struct.pack(f">{len(header)}i", *header) + elements.tobytes())


@dataclass(frozen=True, eq=False)
class HalfVectors:
    """Embeddings to send as one ``halfvec[]``, of one dimension or of several.

    Attributes:
        type_oid: Of ``halfvec``, which differs by database: the binary format of an array names it.
        blocks: Each of shape ``(n, dimension)``, one after another.
    """

    type_oid: int
    blocks: Sequence[Vector]

    def text(self) -> str:
        """Return them as PostgreSQL writes an array."""
        return "{" + ",".join(f'"{to_text(vector)}"' for block in self.blocks for vector in block) + "}"


class BinaryHalfArray(BinaryVector):
    """Embeddings in PostgreSQL's binary format of ``halfvec[]``."""

    __slots__ = ("vectors",)

    def __init__(self, vectors: HalfVectors) -> None:
        self.vectors = vectors
        count = sum(len(block) for block in vectors.blocks)
        dimensions = (count, 1) if count else ()
        header = struct.pack(">iiI", len(dimensions) // 2, 0, vectors.type_oid)
        elements = (half_fields(block) for block in vectors.blocks)
        super().__init__(b"".join((header, struct.pack(f">{len(dimensions)}i", *dimensions), *elements)))


def half_fields(vectors: Vector) -> bytes:
    """Return vectors, of shape ``(n, dimension)``, each with its length before it: in an array, or in a row."""
    dimension = vectors.shape[1]
    fields = np.zeros(
        len(vectors), [("length", ">i4"), ("dim", ">i2"), ("unused", ">i2"), ("numbers", ">f2", (dimension,))]
    )
    fields["length"] = 4 + 2 * dimension
    fields["dim"] = dimension
    fields["numbers"] = vectors
    return fields.tobytes()


class _BinaryDumper(Dumper):
    format = Format.BINARY
    oid = 0  # the type's oid differs by database: the cast that SQLAlchemy renders names it

    def dump(self, obj: BinaryVector) -> bytes:
        return obj.data


class _TextDumper(Dumper):
    """For psycopg's ClientCursor, which writes values into the statement."""

    def dump(self, obj: BinaryVector) -> bytes:
        return to_text(np.frombuffer(obj.data, dtype=">f4", offset=4)).encode()


class _HalfTextDumper(Dumper):
    def dump(self, obj: BinaryVector) -> bytes:
        return to_text(np.frombuffer(obj.data, dtype=">f2", offset=4).astype(np.float32)).encode()


class _ArrayTextDumper(Dumper):
    def dump(self, obj: BinaryArray) -> bytes:
        numbers = np.frombuffer(obj.data, dtype=">f4", offset=20)[1::2] if len(obj.data) > 20 else ()
        return ("{" + ",".join(str(float(number)) for number in numbers) + "}").encode()


class _HalfArrayTextDumper(Dumper):
    def dump(self, obj: BinaryHalfArray) -> bytes:
        return obj.vectors.text().encode()


psycopg.adapters.register_dumper(BinaryVector, _TextDumper)
psycopg.adapters.register_dumper(BinaryVector, _BinaryDumper)  # the last one is preferred
psycopg.adapters.register_dumper(BinaryHalfVector, _HalfTextDumper)
psycopg.adapters.register_dumper(BinaryHalfVector, _BinaryDumper)
psycopg.adapters.register_dumper(BinaryArray, _ArrayTextDumper)
psycopg.adapters.register_dumper(BinaryArray, _BinaryDumper)
psycopg.adapters.register_dumper(BinaryHalfArray, _HalfArrayTextDumper)
psycopg.adapters.register_dumper(BinaryHalfArray, _BinaryDumper)


def binds_binary(dialect: Dialect) -> bool:
    """Whether the dialect's connections know `BinaryVector`: one made before this module's import does not."""
    adapters = getattr(dialect, "_psycopg_adapters_map", None)
    if adapters is None:
        return False
    try:
        adapters.get_dumper(BinaryVector, PyFormat.AUTO)
    except psycopg.ProgrammingError:
        log.warning(
            "This engine was made before ragschema.embeddings.column_type was imported, so embeddings travel as text, "
            "several times slower. Import ragschema.models before create_engine()."
        )
        return False
    return True
