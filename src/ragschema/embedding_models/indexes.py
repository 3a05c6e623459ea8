"""Indexes of embedding models: how they stand, and their concurrent build."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from psycopg import sql

from ragschema.database.citus import find_index_size
from ragschema.database.connections import Opened
from ragschema.database.poolers import find_backend_pid
from ragschema.database.server import Connection
from ragschema.embedding_models.registry import changing, require_model, untimed
from ragschema.errors import ModelRefused
from ragschema.migrations.interruption import interruptible
from ragschema.migrations.request import DatabaseArgument
from ragschema.migrations.watch import watch_connection, watching
from ragschema.state.partitions import RegisteredModel, concurrent_index, index_definition
from ragschema.state.status import find_unready_indexes

if TYPE_CHECKING:
    from ragschema.migrations.watch import Build

log = logging.getLogger(__name__)

IndexState: TypeAlias = Literal["valid", "invalid", "building", "missing", "different", "none"]

_FIND = """
SELECT i.indrelid::regclass::text, i.indisvalid AND i.indisready, pg_get_indexdef(i.indexrelid, 0, true),
    pg_relation_size(i.indexrelid)
FROM pg_index i WHERE i.indexrelid = to_regclass(%s)
"""


@dataclass(frozen=True)
class IndexStatus:
    """How the index of a model stands.

    Attributes:
        name: Its name.
        state: ``valid``; ``invalid``: a failed build left it; ``building``; ``missing``; ``different``: it has another
            definition than the model; ``none``: the model has no index, every search reads all its embeddings.
        size: In bytes, 0 where there is none.
    """

    name: str
    state: IndexState
    size: int


@dataclass(frozen=True)
class IndexedModel:
    """A model whose index is valid.

    Attributes:
        key: The model.
        index: The name of its index.
        is_new: Whether it was built now.
        size: Of the index, in bytes.
    """

    key: str
    index: str
    is_new: bool
    size: int


def find_index(connection: Connection, schema: str, model: RegisteredModel) -> IndexStatus:
    """Return how the index of a model stands.

    Args:
        connection: With a search_path that begins with the schema and has pgvector's.
        schema: The schema of our tables.
        model: The model.
    """
    if model.index_type == "none":
        return IndexStatus(model.index, "none", 0)
    name = sql.Identifier(schema, model.index).as_string()
    row = connection.execute(_FIND, (name,)).fetchone()
    if row is None:
        return IndexStatus(model.index, "missing", 0)
    _, is_valid, definition, size = row
    if (there := find_index_size(connection, name)) is not None:
        size = there  # here it is that of an empty table
    if not is_valid:
        is_building = find_unready_indexes(connection, schema).get(model.index, False)
        return IndexStatus(model.index, "building" if is_building else "invalid", size)
    if not model.is_column and definition != index_definition(model):
        return IndexStatus(model.index, "different", size)
    return IndexStatus(model.index, "valid", size)


def index_model(
    database: DatabaseArgument,
    key: str,
    *,
    schema: str | None = None,
    show_build: Callable[[Build | None], None] | None = None,
) -> IndexedModel:
    """Build the index of a model concurrently, unless it is there; an invalid one is dropped first.

    Takes SHARE UPDATE EXCLUSIVE on the model's table, and waits for every older transaction: reads and writes go on.
    Without timeouts, which would leave an invalid index; ``maintenance_work_mem`` and ``parallel_workers`` of
    `Options` make it faster.

    Args:
        database: A database, its URL, an engine, a connection or `Options`; the settings decide where it is None.
        key: The model.
        schema: The schema of the tables; the first of the search_path by default.
        show_build: Shows the progress; lines are logged by default.

    Raises:
        UnknownModel: There is none of this key.
        ModelRefused: It has no index, by its type or because it is retired; or its index has another definition, or
            another session is building it.
    """
    with interruptible(), changing(database, schema) as at:
        model = require_model(at.connection, at.schemas.target, key)
        if not model.is_live:
            raise retired(key)
        if model.index_type == "none":
            raise ModelRefused(
                f"The embedding model {key!r} is searched without an index.",
                "Add it under another key with --index halfvec or bit, and backfill that.",
            )
        found = find_index(at.connection, at.schemas.target, model)
        if found.state == "valid":
            log.info("Index %s is already there, valid and as asked.", model.index)
            return IndexedModel(key, model.index, is_new=False, size=found.size)
        _refuse_other(found)
        build_index(at, model, found, show_build)
        built = find_index(at.connection, at.schemas.target, model)
        if built.state != "valid":
            raise ModelRefused(
                f"Index {model.index} was built and is {built.state}.", "Run the same command again."
            )
        return IndexedModel(key, model.index, is_new=True, size=built.size)


def build_index(
    at: Opened,
    model: RegisteredModel,
    found: IndexStatus,
    show_build: Callable[[Build | None], None] | None = None,
) -> None:
    """Build a model's index concurrently on an open connection, over an invalid one; then ANALYZE its table."""
    connection = at.connection
    name = sql.Identifier(at.schemas.target, model.index)
    pid = find_backend_pid(connection)
    with untimed(at), watching(lambda: watch_connection(at), pid, show_build=show_build):
        if found.state == "invalid":
            log.warning(
                "Index %s is INVALID, left by a failed build: dropping it to build it anew.", model.index
            )
            connection.execute(sql.SQL("DROP INDEX CONCURRENTLY {}").format(name))
        connection.execute(_concurrently(model).encode())
        connection.execute(sql.SQL("ANALYZE {}").format(sql.Identifier(at.schemas.target, model.table)))


def _concurrently(model: RegisteredModel) -> str:
    if model.is_column:
        from ragschema.publishing.deferral import (
            index_definition as definition_of,  # the models', with SQLAlchemy
        )

        return definition_of(model.index)
    return concurrent_index(model)


def retired(key: str) -> ModelRefused:
    """Return the error of a model whose embeddings are gone."""
    return ModelRefused(
        f"The embedding model {key!r} is retired: its embeddings are gone.", "Add one by `rag models add`."
    )


def _refuse_other(found: IndexStatus) -> None:
    if found.state == "building":
        raise ModelRefused(
            f"Another session is building {found.name}.",
            "Wait until that build has ended, then run this again.",
        )
    if found.state == "different":
        raise ModelRefused(
            f"{found.name} has another definition than its model.",
            f"Run `DROP INDEX CONCURRENTLY {found.name};` first.",
        )
