"""Registration of embedding models: a row, and a partition for their embeddings; and their renaming."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg import sql

from ragschema.database.connections import beside_parameters
from ragschema.database.server import Connection
from ragschema.embedding_models.backfill_status import JOB_TYPE
from ragschema.embedding_models.registry import changing, in_transaction, require_model
from ragschema.errors import UsageError
from ragschema.migrations.request import DatabaseArgument
from ragschema.state.partitions import (
    COLUMN_MODEL,
    REGISTRY,
    THE_COLUMN,
    RegisteredModel,
    index_definition,
    partition_statements,
    read_models,
)
from ragschema.values import check_choice, check_text

if TYPE_CHECKING:
    from ragschema.schema.embedding_models import Distance, IndexType

log = logging.getLogger(__name__)

MOST_DIMENSIONS = 16_000
LONGEST_KEY = 200  # bytes
_DISTANCES = ("cosine", "l2", "inner_product")
_INDEX_TYPES = ("vector", "halfvec", "bit", "none")
_MOST_INDEXED = {"vector": 2_000, "halfvec": 4_000}

_INSERT = """
INSERT INTO {} (key, dimensions, distance, index_type, hnsw_m, hnsw_ef_construction)
VALUES (%s, %s, %s, %s, %s, %s) RETURNING id
"""
_INSERT_COLUMN = """
INSERT INTO {} (id, key, dimensions, index_type, state, activated_at)
VALUES (1, %s, 768, 'vector', 'active', CURRENT_TIMESTAMP)
"""
_ACTIVATE = "UPDATE {} SET state = 'active', activated_at = CURRENT_TIMESTAMP WHERE id = %s"
# A job that runs has read its payload: its attempt fails, and the next one knows the new key.
_RENAME_JOBS = """
UPDATE {} SET payload = payload || %s::jsonb
WHERE job_type = %s AND status IN ('new', 'processing', 'failed') AND payload ->> 'model' = %s
"""


@dataclass(frozen=True)
class AddedModel:
    """An embedding model that is registered now.

    Attributes:
        id: It is the partition ``rag_chunk_embeddings_n``.
        key: What services and commands call it.
        dimensions: Of its embeddings.
        distance: ``cosine``, ``l2`` or ``inner_product``.
        index_type: What its HNSW index holds: ``vector``, ``halfvec`` or ``bit``; ``none``: it has no index.
        state: ``active`` where it is the first of an empty database, else ``building``.
        is_new: False where it was registered before, just so.
        registered_column: The key under which the column ``rag_chunks.embedding`` was registered with it, if it was.
    """

    id: int
    key: str
    dimensions: int
    distance: str
    index_type: str
    state: str
    is_new: bool
    registered_column: str | None = None


def add_model(
    database: DatabaseArgument,
    key: str,
    dimensions: int,
    *,
    distance: Distance = "cosine",
    index_type: IndexType | None = None,
    m: int = 16,
    ef_construction: int = 64,
    schema: str | None = None,
) -> AddedModel:
    """Register an embedding model, and make the partition of its embeddings, in one transaction.

    On a database without chunks the first one is active at once, with its index, and the column
    ``rag_chunks.embedding`` is never used. Elsewhere the column is registered with it, under the key ``default``,
    and the new one is being built: backfill it, index it, activate it. Added again just so, nothing is done.

    Holds the deployer lock, and for a moment SHARE ROW EXCLUSIVE on rag_chunks: reads go on, writers wait.

    Args:
        database: A database, its URL, an engine, a connection or `Options`; the settings decide where it is None.
        key: What services and commands will call it, such as the model's own name with its version.
        dimensions: Of its embeddings, 1 to 16,000.
        distance: By which it is searched: ``cosine``, ``l2`` or ``inner_product``.
        index_type: What its HNSW index holds: ``vector`` (up to 2,000 dimensions), ``halfvec`` (up to 4,000), ``bit``
            (any, by cosine; what it finds is ordered by the embeddings), or ``none``. By default halfvec where that
            goes, else bit or none.
        m: Neighbours that an element of the index keeps a layer, 2 to 100.
        ef_construction: Candidates kept while an element is inserted, twice ``m`` to 1,000.
        schema: The schema of the tables; the first of the search_path by default.

    Raises:
        UsageError: The arguments do not fit together, or the key is another model's.
        PendingRevisions: The database has no registry yet.
        LockNotObtained: Another deployer held the lock for too long, or a session the tables.
        ConfigurationError: This role may not make tables here.
    """
    chosen = index_type or default_index_type(dimensions, distance)
    wanted = _check(key, dimensions, distance, chosen, m, ef_construction)
    with changing(database, schema) as at:
        target = at.schemas.target

        def add(connection: Connection) -> AddedModel:
            models = read_models(connection, target)
            for model in models:
                if model.key == key:
                    _refuse_different(model, wanted)
                    return _added(model, is_new=False)
            return _add(connection, target, wanted, is_first=not models)

        return in_transaction(at, add)


def rename_model(
    database: DatabaseArgument, key: str, new_key: str, *, schema: str | None = None
) -> RegisteredModel:
    """Give a model another key, its jobs too; return it. The column may be renamed before any model is registered.

    Searches and publishes that name the old key fail from then on: deploy them with the new one.

    Raises:
        UnknownModel: There is no model of the old key.
        UsageError: The new key is another model's, or none that can be stored.
    """
    _check_key(new_key)
    with changing(database, schema) as at:
        target = at.schemas.target
        registry = beside_parameters(target, REGISTRY)

        def rename(connection: Connection) -> RegisteredModel:
            model = require_model(connection, target, key)
            models = read_models(connection, target)
            if any(other.key == new_key and other.id != model.id for other in models):
                raise _taken(new_key)
            if models:
                statement = sql.SQL("UPDATE {} SET key = %s WHERE id = %s").format(registry)
                connection.execute(statement, (new_key, model.id))
            else:
                connection.execute(sql.SQL(_INSERT_COLUMN).format(registry), (new_key,))
            jobs = sql.SQL(_RENAME_JOBS).format(beside_parameters(target, "rag_jobs"))
            connection.execute(jobs, (json.dumps({"model": new_key}), JOB_TYPE, key))
            return require_model(connection, target, new_key)

        return in_transaction(at, rename)


def default_index_type(dimensions: int, distance: str) -> IndexType:
    """Return what the index of a model holds where nobody says."""
    if dimensions <= _MOST_INDEXED["halfvec"]:
        return "halfvec"
    return "bit" if distance == "cosine" else "none"


def _add(connection: Connection, schema: str, wanted: RegisteredModel, *, is_first: bool) -> AddedModel:
    registry = beside_parameters(schema, REGISTRY)
    values = (
        wanted.key,
        wanted.dimensions,
        wanted.distance,
        wanted.index_type,
        wanted.hnsw_m,
        wanted.hnsw_ef_construction,
    )
    row = connection.execute(sql.SQL(_INSERT).format(registry), values).fetchone()
    assert row is not None
    model = RegisteredModel(row[0], *values, state="building", created_at=None, activated_at=None)
    for statement in partition_statements(schema, model):
        connection.execute(statement)
    if not is_first:
        return _added(model, is_new=True)
    # rag_chunks is locked: whatever a writer has committed is seen, and none is at it
    if _has_chunks(connection, schema):
        if model.key == THE_COLUMN.key:
            raise UsageError(
                f"The key {model.key!r} is what the column rag_chunks.embedding is called.",
                "Give the model its own name, or `rag models rename` the column first.",
            )
        connection.execute(sql.SQL(_INSERT_COLUMN).format(registry), (THE_COLUMN.key,))
        return _added(model, is_new=True, column=THE_COLUMN.key)
    connection.execute(sql.SQL(_ACTIVATE).format(registry), (model.id,))
    if model.index_type != "none":
        connection.execute(index_definition(model).encode())  # of an empty table: at once
    return _added(model, is_new=True, state="active")


def _has_chunks(connection: Connection, schema: str) -> bool:
    statement = sql.SQL("SELECT FROM {} LIMIT 1").format(sql.Identifier(schema, "rag_chunks"))
    return connection.execute(statement).fetchone() is not None


def _added(
    model: RegisteredModel, *, is_new: bool, state: str | None = None, column: str | None = None
) -> AddedModel:
    shape = (model.id, model.key, model.dimensions, model.distance, model.index_type)
    return AddedModel(*shape, state or model.state, is_new, column)


def _check(
    key: str, dimensions: int, distance: str, index_type: str, m: int, ef_construction: int
) -> RegisteredModel:
    _check_key(key)
    check_choice("distance", distance, _DISTANCES, UsageError)
    check_choice("index_type", index_type, _INDEX_TYPES, UsageError)
    _check_range("dimensions", dimensions, 1, MOST_DIMENSIONS)
    _check_range("m", m, 2, 100)
    _check_range("ef_construction", ef_construction, 2 * m, 1_000)
    most = _MOST_INDEXED.get(index_type, MOST_DIMENSIONS)
    if dimensions > most:
        raise UsageError(
            f"An index of {index_type} takes {most:,} dimensions at most, and the model has {dimensions:,}.",
            f"Leave index_type out: it is {default_index_type(dimensions, distance)} then.",
        )
    if index_type == "bit" and distance != "cosine":
        raise UsageError(
            f"An index of bit finds what is near by cosine, and the model is searched by {distance}.",
            "Leave index_type out, or take the distance cosine.",
        )
    return RegisteredModel(
        COLUMN_MODEL, key, dimensions, distance, index_type, m, ef_construction, "building", None, None
    )


def _check_key(key: str) -> None:
    check_text("key", key, UsageError)
    if not key.strip() or len(key.encode()) > LONGEST_KEY:
        raise UsageError(
            f"The key {key[:40]!r} is empty or longer than {LONGEST_KEY} bytes.", "Give the model a name."
        )


def _check_range(name: str, value: int, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise UsageError(f"{name} is {value!r}.", f"Pass a number from {least:,} to {most:,}.")


def _refuse_different(model: RegisteredModel, wanted: RegisteredModel) -> None:
    def shape(each: RegisteredModel) -> str:
        return (
            f"{each.dimensions} dimensions, {each.distance}, {each.index_type}, m {each.hnsw_m},"
            f" ef_construction {each.hnsw_ef_construction}"
        )

    if shape(model) != shape(wanted) or not model.is_live:
        raise UsageError(
            f"There is another embedding model {model.key!r} already.",
            "Give the new one another key, such as its version.",
            f"registered: {shape(model)}, {model.state}\nasked for:  {shape(wanted)}",
        )


def _taken(key: str) -> UsageError:
    return UsageError(f"There is an embedding model {key!r} already.", "Give it another key.")
