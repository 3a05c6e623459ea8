"""Statuses of embedding models: which there are, how full they are, and how their indexes stand."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

import sqlalchemy as sa
from psycopg import sql

from ragschema.database.server import Connection
from ragschema.embedding_models.backfill_status import Backfill, read_backfill
from ragschema.embedding_models.indexes import IndexState, find_index
from ragschema.embedding_models.recall import measure_recall
from ragschema.embedding_models.registry import all_models, looking, unknown
from ragschema.migrations.request import DatabaseArgument
from ragschema.models import EmbeddingModel
from ragschema.schema.base import Executor
from ragschema.state.partitions import RegisteredModel

_COUNT_COLUMN = """
SELECT count(*), count(embedding), count(embedding_error) FILTER (WHERE embedding IS NULL)
FROM {chunks} WHERE is_current
"""
# Each row of a partition is of a chunk that is current where it is: the foreign key says so.
_COUNT_PARTITION = """
SELECT (SELECT count(*) FROM {chunks} WHERE is_current), count(embedding), count(embedding_error)
FROM {table} WHERE is_current
"""


@dataclass(frozen=True)
class ModelStatus:
    """An embedding model, and how far its embeddings are.

    Attributes:
        id: 1 is the column ``rag_chunks.embedding``, n the partition ``rag_chunk_embeddings_n``.
        key: What services and commands call it.
        dimensions: Of its embeddings.
        distance: ``cosine``, ``l2`` or ``inner_product``.
        index_type: What its HNSW index holds: ``vector``, ``halfvec`` or ``bit``; ``none``: it has no index.
        state: ``building``, ``active``, ``standby`` or ``retired``.
        rows: The current chunks that have an embedding of it.
        missing: The current chunks that wait for one.
        refused: The current chunks that will have none, by ``skip_embeddings``.
        index: How its index stands: ``valid``, ``invalid``, ``building``, ``missing``, ``different`` or ``none``.
        index_size: Of the index, in bytes.
        recall: Of the index, None where it was not asked for or there is nothing to measure.
        backfill: The jobs that fill it, None where none is enqueued.
        created_at: When it was registered; None of the column where no model is.
        activated_at: When it last became the active one.
    """

    id: int
    key: str
    dimensions: int
    distance: str
    index_type: str
    state: str
    rows: int
    missing: int
    refused: int
    index: IndexState
    index_size: int
    recall: float | None
    backfill: Backfill | None
    created_at: datetime | None
    activated_at: datetime | None


@dataclass(frozen=True)
class Counts:
    """How many current chunks have an embedding of a model, wait for one, and will have none."""

    rows: int
    missing: int
    refused: int


def list_models(
    database: DatabaseArgument = None, *, schema: str | None = None, recall: bool = False
) -> list[ModelStatus]:
    """Return the embedding models by id; reads only, counts the current chunks of each.

    Where none is registered, the one model is the column, under the key ``default``.

    Args:
        database: A database, its URL, an engine, a connection or `Options`; the settings decide by default.
        schema: The schema of the tables; the first of the search_path by default.
        recall: Whether to measure the recall of each valid index, as `check_recall` does.

    Raises:
        PendingRevisions: The database has no registry yet.
        RowsHidden: Row security hides rows of our tables from this role.
    """
    with looking(database, schema) as at:
        connection, target = at.connection, at.schemas.target
        found = [read_status(connection, target, model) for model in all_models(connection, target)]
        if not recall:
            return found
        models = {model.id: model for model in all_models(connection, target)}
        return [
            replace(each, recall=measure_recall(connection, target, models[each.id]).recall)
            if each.index == "valid"
            else each
            for each in found
        ]


def find_model(session: Executor, key: str) -> EmbeddingModel:
    """Return an embedding model, of no session: what searches take as ``model=``. One SELECT.

    Args:
        session: A session or connection.
        key: The model.

    Raises:
        UnknownModel: None of this key is registered.
    """
    table = EmbeddingModel.__table__
    rows = {row["key"]: row for row in session.execute(sa.select(*table.c)).mappings()}
    if key not in rows:
        raise unknown(key, [*rows])
    return EmbeddingModel(**rows[key])


def read_status(connection: Connection, schema: str, model: RegisteredModel) -> ModelStatus:
    """Return the status of a model, without its recall."""
    counts = count_chunks(connection, schema, model) if model.is_live else Counts(0, 0, 0)
    index = find_index(connection, schema, model)
    return ModelStatus(
        model.id,
        model.key,
        model.dimensions,
        model.distance,
        model.index_type,
        model.state,
        counts.rows,
        counts.missing,
        counts.refused,
        index.state,
        index.size,
        None,
        read_backfill(connection, schema, model.key) if model.is_live else None,
        model.created_at,
        model.activated_at,
    )


def count_chunks(connection: Connection, schema: str, model: RegisteredModel) -> Counts:
    """Count the current chunks by what a model has of them, in one statement."""
    statement = sql.SQL(_COUNT_COLUMN if model.is_column else _COUNT_PARTITION).format(
        chunks=sql.Identifier(schema, "rag_chunks"), table=sql.Identifier(schema, model.table)
    )
    row = connection.execute(statement).fetchone()
    assert row is not None
    current, rows, refused = row
    return Counts(rows, current - rows - refused, refused)
