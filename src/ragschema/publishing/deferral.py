"""Deferral of the indexes of current chunks: dropped for a load, and built after it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateIndex

from ragschema.models import Base, Chunk, ChunkEmbedding
from ragschema.publishing.errors import PublishingError
from ragschema.state.partitions import RegisteredModel, concurrent_index

log = logging.getLogger(__name__)

_INDEXES = {
    str(index.name): index
    for index in Base.metadata.tables[Chunk.__tablename__].indexes
    if index.dialect_options["postgresql"]["using"]  # not a B-tree
}
DEFERRED = tuple(sorted(_INDEXES))
"""The indexes that take nearly all of a load's time: by embedding 2 ms a chunk, by words half of what is left.

Those of other embedding models than the column are deferred too: of each that has one, or is searched by it.
"""


@contextmanager
def deferred_index(
    engine: sa.Engine,
    *,
    search_is_slow_meanwhile: Literal[True],
    maintenance_work_mem: str | None = None,
    parallel_workers: int | None = None,
) -> Iterator[None]:
    """Drop the indexes that searches read, and build them when the block has ended, with an error or without.

    Until they are built again every search, by embedding or by words, reads all current chunks, which is what the
    argument ``search_is_slow_meanwhile=True`` says. Dropped and built concurrently, on a connection of its own in
    autocommit mode without timeouts: both wait for older transactions, so let none stay open in the block's
    thread. Reads and writes go on. Where the process dies, ``rag migrate repair`` builds them, and so does the
    next use of this function.

    Args:
        engine: The database.
        search_is_slow_meanwhile: True.
        maintenance_work_mem: For the build, such as ``2GB``: much faster where the graph fits. A parallel build
            takes as much of /dev/shm. The server's setting by default.
        parallel_workers: For the build: max_parallel_maintenance_workers. The server's setting by default.

    Raises:
        PublishingError: Search was not allowed to be slow; or an index that was built is not valid.
    """
    if search_is_slow_meanwhile is not True:
        raise PublishingError(
            "Without its indexes, every search reads all current chunks.",
            "Pass search_is_slow_meanwhile=True where that is all right.",
        )
    settings = {
        "maintenance_work_mem": maintenance_work_mem,
        "max_parallel_maintenance_workers": parallel_workers,
    }
    with _autocommit(engine, {}) as connection:
        made = {name: index_definition(name) for name in DEFERRED} | _of_models(connection)
        definitions = {name: _drop(connection, name, definition) for name, definition in made.items()}
    try:
        yield
    except Exception:
        log.warning("The load has failed; building %s for what there is.", " and ".join(made))
        raise
    except BaseException:
        log.warning("%s were dropped and are not built: run `rag migrate repair`.", " and ".join(made))
        definitions = {}
        raise
    finally:
        if definitions:
            with _autocommit(engine, settings) as connection:
                for name, definition in definitions.items():
                    _build(connection, name, definition)
                for table in (Chunk, ChunkEmbedding):
                    connection.execute(sa.text(f"ANALYZE {table.__tablename__}"))


def index_definition(name: str) -> str:
    """Return the statement that builds one of `DEFERRED` concurrently, as the models declare it."""
    return _concurrently(str(CreateIndex(_INDEXES[name]).compile(dialect=postgresql.dialect())))  # type: ignore[no-untyped-call]


def _concurrently(definition: str) -> str:
    return definition.replace("CREATE INDEX ", "CREATE INDEX CONCURRENTLY IF NOT EXISTS ", 1)


@contextmanager
def _autocommit(engine: sa.Engine, settings: dict[str, Any]) -> Iterator[sa.Connection]:
    """Yield a connection of its own, in autocommit mode without timeouts, closed afterwards."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        timeouts = {"lock_timeout": "0", "statement_timeout": "0"}  # either would leave an INVALID index
        for name, value in (timeouts | settings).items():
            if value is not None:
                connection.execute(_SET, {"name": name, "value": str(value)})
        try:
            yield connection
        finally:
            connection.invalidate()  # the settings go with it


def _of_models(connection: sa.Connection) -> dict[str, str]:
    """Return the statements that build the indexes of models other than the column, by name.

    One that is being filled may have none yet: that is left so.
    """
    models = [RegisteredModel(*row) for row in connection.execute(_MODELS)]
    return {
        model.index: concurrent_index(model).replace(" CONCURRENTLY ", " CONCURRENTLY IF NOT EXISTS ", 1)
        for model in models
        if not model.is_column and (model.needs_index or _find(connection, model.index) is not None)
    }


def _drop(connection: sa.Connection, name: str, definition: str) -> str:
    """Drop an index; return how to build it, where it is missing by the definition."""
    found = _find(connection, name)
    if found is None:
        log.warning("%s is missing: a load before this one has died. It is built after this one.", name)
        return definition
    log.info("Dropping %s: search is slow until it is built.", name)
    connection.execute(sa.text(f"DROP INDEX CONCURRENTLY {name}"))
    return _concurrently(found.definition)


def _build(connection: sa.Connection, name: str, definition: str) -> None:
    found = _find(connection, name)
    if found is not None and not found.is_valid:
        connection.execute(sa.text(f"DROP INDEX CONCURRENTLY {name}"))
    log.info("Building %s.", name)
    try:
        connection.execute(sa.text(definition.replace(":", r"\:")))
    except sa.exc.DBAPIError as exc:
        raise PublishingError(
            f"{name} could not be built: search is slow, and finds all rows.",
            "Run `rag migrate repair` when the cause is gone.",
            str(exc.orig),
        ) from exc
    found = _find(connection, name)
    if found is None or not found.is_valid:
        raise PublishingError(
            f"{name} was built and is not valid.", "Run `rag migrate repair`, which builds it again."
        )


def _find(connection: sa.Connection, name: str) -> sa.Row[Any] | None:
    return connection.execute(_FIND, {"name": name}).one_or_none()


_MODELS = sa.text("""
SELECT id, key, dimensions, distance, index_type, hnsw_m, hnsw_ef_construction, state, created_at, activated_at
FROM rag_embedding_models WHERE state <> 'retired' ORDER BY id
""")
_SET = sa.text("SELECT set_config(:name, :value, false)")
_FIND = sa.text("""
SELECT indisvalid AS is_valid, pg_get_indexdef(indexrelid) AS definition
FROM pg_index WHERE indexrelid = to_regclass(:name)
""")
