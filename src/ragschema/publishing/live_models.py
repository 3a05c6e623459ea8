"""Embedding models that are live: building, active or standing by; rows are embedded by each of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.exc import DBAPIError

from ragschema.embeddings.column_type import EMBEDDING_DIMENSION, Embedding, EmbeddingError
from ragschema.embeddings.half_column_type import HalfEmbedding
from ragschema.embeddings.wire import EmbeddingLike, Vector
from ragschema.models import EmbeddingModel
from ragschema.publishing.errors import ContentError
from ragschema.publishing.transactions import connection_of
from ragschema.schema.base import Executor
from ragschema.schema.embedding_models import COLUMN_KEY, COLUMN_MODEL


@dataclass(frozen=True)
class LiveModel:
    """An embedding model that rows are embedded by.

    Attributes:
        id: 1: its embeddings are the column of the chunks; n: they are in partition n.
        key: What services call it.
        dimensions: Of its embeddings.
        is_active: Whether it is the one that new text is embedded for first.
        is_registered: False of the column where no model is registered, so that it is the only one.
    """

    id: int
    key: str
    dimensions: int
    is_active: bool
    is_registered: bool = True

    @property
    def is_column(self) -> bool:
        """Whether its embeddings are the column ``rag_chunks.embedding``."""
        return self.id == COLUMN_MODEL

    def check(self, value: EmbeddingLike) -> Vector:
        """Return an embedding as float32, of shape ``(dimensions,)``.

        Raises:
            EmbeddingError: It is none of this model, or cannot be stored; the message names the model.
        """
        try:
            return self._type.check(value)
        except EmbeddingError as exc:
            raise self._named(exc) from exc

    def check_all(self, values: Sequence[EmbeddingLike] | NDArray[Any]) -> Vector:
        """Return embeddings as float32, of shape ``(n, dimensions)``; see `check`."""
        try:
            return self._type.check_all(values)
        except EmbeddingError as exc:
            raise self._named(exc) from exc

    @cached_property
    def _type(self) -> Embedding | HalfEmbedding:
        return Embedding() if self.is_column else HalfEmbedding(self.dimensions)

    def _named(self, exc: EmbeddingError) -> EmbeddingError:
        if not self.is_registered:
            return exc
        return EmbeddingError(f"Embedding model {self.key!r}: {exc.message}", exc.remedy, exc.evidence)


@dataclass(frozen=True)
class LiveModels:
    """The live models of a database.

    Attributes:
        all: Those that are registered; where none is, the column as the one model, by the key ``default``.
        is_registered: Whether a model is registered, so that an embedding's model is known by where it is stored;
            otherwise the embedder_version of a version says what embedded its rows.
    """

    all: tuple[LiveModel, ...]
    is_registered: bool

    @classmethod
    def of_rows(cls, rows: Iterable[sa.Row[Any]]) -> LiveModels:
        """Return them by the rows of the registry: model_id, model_key, dimensions and state."""
        registered = sorted(rows, key=lambda row: row.model_id)
        if not registered:
            return NONE_REGISTERED
        return cls(
            tuple(
                LiveModel(row.model_id, row.model_key, row.dimensions, row.state == "active")
                for row in registered
                if row.state != "retired"
            ),
            is_registered=True,
        )

    @property
    def active(self) -> LiveModel | None:
        """The model that new text is embedded for first; None where no registered one is."""
        return next((model for model in self.all if model.is_active), None)

    def label(self, article_id: str, embedder_version: str | None) -> str:
        """Return what a version says of its embedder: what the caller says, or else the active model's key.

        Raises:
            ContentError: Neither is there.
        """
        if embedder_version is not None:
            return embedder_version
        if self.active is None or not self.is_registered:
            raise ContentError(
                f"Article {article_id!r} has no embedder_version, and no embedding model is active that would name it.",
                "Pass embedder_version, such as the name of the model, or add the model by `rag models add`.",
            )
        return self.active.key

    def find(self, model: str | EmbeddingModel | None) -> LiveModel:
        """Return a model by its key; the active one where none is named.

        Raises:
            EmbeddingError: There is none.
        """
        key = model.key if isinstance(model, EmbeddingModel) else model
        named = (each for each in self.all if isinstance(key, str) and each.key == key)
        found = self.active if key is None else next(named, None)
        if found is None:
            what = (
                "No embedding model is active" if key is None else f"There is no live embedding model {key!r}"
            )
            raise EmbeddingError(
                f"{what}; live are: {', '.join(repr(each.key) for each in self.all) or 'none'}.",
                "Look at `rag models list`, and plan again where a model was added meanwhile.",
            )
        return found


NONE_REGISTERED = LiveModels(
    (LiveModel(COLUMN_MODEL, COLUMN_KEY, EMBEDDING_DIMENSION, is_active=True, is_registered=False),),
    is_registered=False,
)


def read_live_models(session: Executor) -> LiveModels:
    """Return the live models."""
    return LiveModels.of_rows(connection_of(session).execute(_READ_MODELS))


def half_oid(connection: sa.Connection) -> int:
    """Return the oid of ``halfvec``, by which many embeddings are sent at once: asked once for each connection.

    It is that of the node of Citus that the connection is to.
    """
    found = connection.info.get(_KEY)
    if found is None:
        found = connection.execute(_HALF_OID).scalar_one()
        connection.info[_KEY] = found
    return int(found)


def has_no_partition(exc: DBAPIError) -> bool:
    """Whether rows were written for a model whose partition was dropped meanwhile."""
    if getattr(exc.orig, "sqlstate", None) != "23514":  # check_violation, here of the partitions' bounds
        return False
    return getattr(getattr(exc.orig, "diag", None), "constraint_name", None) is None


# Of models that rows are written for: those whose embeddings have nowhere to go any more.
GONE_MODELS = """
SELECT n.id FROM unnest(CAST(:model_ids AS smallint[])) AS n (id)
LEFT JOIN rag_embedding_models m ON m.id = n.id
WHERE coalesce(m.state = 'retired', n.id <> 1 OR EXISTS (SELECT FROM rag_embedding_models))
"""
_KEY = "ragschema.half_oid"
_HALF_OID = sa.text("SELECT CAST(to_regtype('halfvec') AS oid)")
_READ_MODELS = sa.text("SELECT id AS model_id, key AS model_key, dimensions, state FROM rag_embedding_models")
