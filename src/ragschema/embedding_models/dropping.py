"""The end of an embedding model: its embeddings are destroyed, and nothing else is held up."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID

from psycopg import sql

from ragschema.database.citus import lock_tables
from ragschema.database.connections import Opened, beside_parameters
from ragschema.database.server import Connection
from ragschema.embedding_models.backfill_status import JOB_TYPE
from ragschema.embedding_models.indexes import build_index, find_index
from ragschema.embedding_models.registry import (
    all_models,
    changing,
    in_transaction,
    lock_models,
    model_of,
    require_model,
    untimed,
)
from ragschema.errors import DataLossRefused, ModelRefused
from ragschema.migrations.interruption import interruptible
from ragschema.migrations.request import DatabaseArgument
from ragschema.state.partitions import COLUMN_INDEX, PARENT, REGISTRY, RegisteredModel
from ragschema.words import counted

log = logging.getLogger(__name__)

_BATCH = 1_000

_COUNT = "SELECT count(embedding) FROM {}"
_RETIRE = "UPDATE {} SET state = 'retired' WHERE id = %s"
_CANCEL = """
SELECT {}(id, %s) FROM {} WHERE job_type = %s AND status IN ('new', 'processing') AND payload ->> 'model' = %s
"""
# In the order of ids, as publishing locks them; what another holds is met by the next round.
_EMPTY = """
WITH found AS MATERIALIZED (
    SELECT id FROM {chunks} WHERE id > %(after)s AND embedding IS NOT NULL ORDER BY id LIMIT %(batch)s
), locked AS MATERIALIZED (
    SELECT c.id FROM {chunks} c WHERE c.id = ANY (ARRAY(SELECT id FROM found)) AND c.embedding IS NOT NULL
    ORDER BY c.id FOR NO KEY UPDATE
), emptied AS (
    UPDATE {chunks} c SET embedding = NULL FROM locked WHERE c.id = locked.id RETURNING 1
)
SELECT (SELECT id FROM found ORDER BY id DESC LIMIT 1), (SELECT count(*) FROM emptied)
"""
_ROUNDS = 5  # over all chunks: each but the last one has met an embedding that was written behind it


@dataclass(frozen=True)
class DroppedModel:
    """A model whose embeddings are gone.

    Attributes:
        key: The model.
        embeddings: How many were destroyed now.
        jobs: How many jobs of its backfill were cancelled.
    """

    key: str
    embeddings: int
    jobs: int


def drop_model(
    database: DatabaseArgument, key: str, *, allow_data_loss: bool = False, schema: str | None = None
) -> DroppedModel:
    """Destroy the embeddings of a model that is not active, and forget it; cancel the jobs that would fill it.

    A partition goes in one transaction of milliseconds, which locks it and its parent, not rag_chunks. Of the column
    (model 1) searches are refused first, then its index goes, its embeddings in batches, VACUUM takes their room, and
    the empty index is built again; it is retired, and stays in the registry. Where that was interrupted, the same
    call goes on.

    Args:
        database: A database, its URL, an engine, a connection or `Options`; the settings decide where it is None.
        key: The model.
        allow_data_loss: Whether embeddings may be destroyed; needed only where there are some.
        schema: The schema of the tables; the first of the search_path by default.

    Raises:
        UnknownModel: There is none of this key.
        ModelRefused: It is active, or no other one could be searched.
        DataLossRefused: It has embeddings; the evidence counts them, and nothing was changed.
        LockNotObtained: Another deployer held the lock for too long, or a search the partition.
    """
    with interruptible(), changing(database, schema) as at:
        connection, target = at.connection, at.schemas.target
        model = require_model(connection, target, key)
        _refuse(all_models(connection, target), key)
        count = _count(connection, target, model)
        if count and not allow_data_loss:
            raise DataLossRefused(
                f"This would destroy the embeddings of {key!r}, so nothing was changed.",
                "To destroy them all the same, add --yes (allow_data_loss=True).",
                f"{counted(count, 'embedding')} of {model.dimensions} dimensions, in {model.table}",
            )
        if model.is_column:
            return _drop_column(at, model)
        in_transaction(at, lambda connection: _drop_partition(connection, target, model))
        # in another transaction: a worker may hold its job's row while it waits for the partition
        jobs = in_transaction(at, lambda connection: _cancel_jobs(connection, target, model))
        return DroppedModel(key, count, jobs)


def _drop_partition(connection: Connection, schema: str, model: RegisteredModel) -> None:
    """Empty the partition, then drop it attached: detached, the drop would lock rag_chunks.

    Its parent is locked first, as searches and publishers do: one that held the parent and waited for the partition
    would be waited for by the drop, and PostgreSQL would end one of the two.
    """
    _refuse(lock_models(connection, schema), model.key)
    table = sql.Identifier(schema, model.table)
    lock_tables(connection, schema, [PARENT], with_partitions=False)
    connection.execute(sql.SQL("TRUNCATE {}").format(table))
    connection.execute(sql.SQL("DROP TABLE {}").format(table))
    registry = beside_parameters(schema, REGISTRY)
    connection.execute(sql.SQL("DELETE FROM {} WHERE id = %s").format(registry), (model.id,))


def _drop_column(at: Opened, model: RegisteredModel) -> DroppedModel:
    connection, target = at.connection, at.schemas.target

    def retire(connection: Connection) -> int:
        _refuse(lock_models(connection, target), model.key)
        statement = sql.SQL(_RETIRE).format(beside_parameters(target, REGISTRY))
        connection.execute(statement, (model.id,))
        return _cancel_jobs(connection, target, model)

    jobs = in_transaction(at, retire)
    log.info("Searches of %s are refused from now on.", model.key)
    chunks = sql.Identifier(target, "rag_chunks")
    index = sql.Identifier(target, COLUMN_INDEX)
    with untimed(at):
        connection.execute(sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(index))
    emptied = sum(_empty(at))
    with untimed(at):
        connection.execute(sql.SQL("VACUUM (ANALYZE) {}").format(chunks))
        build_index(at, model, find_index(connection, target, model))
    return DroppedModel(model.key, emptied, jobs)


def _empty(at: Opened) -> Iterator[int]:
    """Take the column's embeddings away, in batches that commit; yield how many each was."""
    statement = sql.SQL(_EMPTY).format(chunks=beside_parameters(at.schemas.target, "rag_chunks"))

    def empty(after: UUID) -> tuple[UUID | None, int]:
        parameters = {"after": after, "batch": _BATCH}
        row = in_transaction(at, lambda connection: connection.execute(statement, parameters).fetchone())
        return row or (None, 0)

    for _ in range(_ROUNDS):
        last, count = empty(UUID(int=0))
        if last is None:
            return
        while last is not None:
            yield count
            last, count = empty(last)
    log.warning("Something goes on writing rag_chunks.embedding: stop it, and run this again.")


def _cancel_jobs(connection: Connection, schema: str, model: RegisteredModel) -> int:
    statement = sql.SQL(_CANCEL).format(
        beside_parameters(schema, "rag_jobs_cancel"), beside_parameters(schema, "rag_jobs")
    )
    reason = f"The embedding model {model.key} was dropped."
    return connection.execute(statement, (reason, JOB_TYPE, model.key)).rowcount


def _count(connection: Connection, schema: str, model: RegisteredModel) -> int:
    row = connection.execute(sql.SQL(_COUNT).format(sql.Identifier(schema, model.table))).fetchone()
    assert row is not None
    return int(row[0])


def _refuse(models: list[RegisteredModel], key: str) -> None:
    model = model_of(models, key)
    if model.state == "active":
        others = [other.key for other in models if other.state == "standby"]
        raise ModelRefused(
            f"The embedding model {model.key!r} is active: searches and new text use it.",
            f"Activate another one first, such as {others[0]}." if others else "Activate another one first.",
        )
    if model.state == "standby" and not any(
        other.state in ("active", "standby") for other in models if other.id != model.id
    ):
        raise ModelRefused(
            f"Without {model.key!r} no embedding model could be searched.", "Activate another one first."
        )
