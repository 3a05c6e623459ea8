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

log = logging.getLogger(__name__)

_INDEXES = {
    str(index.name): index
    for index in Base.metadata.tables[Chunk.__tablename__].indexes
    if index.dialect_options["postgresql"]["using"]  # not a B-tree
}
DEFERRED = tuple(sorted(_INDEXES))
"""The indexes that take nearly all of a load's time: by embedding 2 ms a chunk, by words half of what is left.

Those of other embedding models than the column are deferred too, where they are there.
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
    next use of this function, but for those of embedding models other than the column, which only the first knows.

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
        names = [*DEFERRED, *connection.scalars(_OF_MODELS)]
        definitions = {name: _drop(connection, name) for name in names}
    try:
        yield
    except Exception:
        log.warning("The load has failed; building %s for what there is.", " and ".join(names))
        raise
    except BaseException:
        log.warning("%s were dropped and are not built: run `rag migrate repair`.", " and ".join(names))
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


def _drop(connection: sa.Connection, name: str) -> str:
    """Drop an index; return how to build it."""
    found = _find(connection, name)
    if found is None:
        log.warning("%s is missing: a load before this one has died. It is built after this one.", name)
        return index_definition(name)
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


_OF_MODELS = sa.text("""
SELECT name FROM (
    SELECT 'rag_chunk_embeddings_' || id || '_idx' AS name FROM rag_embedding_models WHERE id > 1 AND state <> 'retired'
    ORDER BY id
) n WHERE to_regclass(name) IS NOT NULL
""")
_SET = sa.text("SELECT set_config(:name, :value, false)")
_FIND = sa.text("""
SELECT indisvalid AS is_valid, pg_get_indexdef(indexrelid) AS definition
FROM pg_index WHERE indexrelid = to_regclass(:name)
""")
