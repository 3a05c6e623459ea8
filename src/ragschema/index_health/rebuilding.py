"""Rebuild of HNSW indexes while others read and write."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg import sql

from ragschema.database.connections import Opened, opened
from ragschema.database.poolers import find_backend_pid
from ragschema.database.rights import check_owners
from ragschema.database.write_access import check_writable
from ragschema.errors import LockNotObtained, RagSchemaError
from ragschema.index_health.catalogue import HnswIndex, choose, find_hnsw_indexes
from ragschema.index_health.disk import find_room, megabytes, needed_room, refuse_without_room
from ragschema.index_health.rows import opened_at_rows
from ragschema.migrations.deployer_lock import take_deployer_lock
from ragschema.migrations.interruption import interruptible
from ragschema.migrations.request import DatabaseArgument, resolve_options
from ragschema.migrations.watch import watch_connection, watching

if TYPE_CHECKING:
    from ragschema.migrations.watch import Build

log = logging.getLogger(__name__)

ShowBuild = Callable[["Build | None"], None]


@dataclass(frozen=True)
class Rebuilt:
    """An index that was rebuilt.

    Attributes:
        index: Its name.
        table: Its table.
        seconds: How long it took.
        size_before: In bytes.
        size_after: In bytes.
    """

    index: str
    table: str
    seconds: float
    size_before: int
    size_after: int


@dataclass(frozen=True)
class Rebuild:
    """What `rebuild` did.

    Attributes:
        rebuilt: The indexes that it rebuilt, in order.
        dropped: Left-overs of an interrupted rebuild, which it dropped.
    """

    rebuilt: tuple[Rebuilt, ...]
    dropped: tuple[str, ...]


def rebuild(
    database: DatabaseArgument = None,
    index: str | None = None,
    *,
    schema: str | None = None,
    show_build: ShowBuild | None = None,
    report: Callable[[Rebuilt], None] | None = None,
) -> Rebuild:
    """Rebuild an HNSW index of ours, or all, with REINDEX INDEX CONCURRENTLY; reads and writes go on.

    Drops first what an interrupted rebuild has left. Holds the deployer lock, and waits for every transaction that is
    older; a line of the log names those.

    Args:
        database: A database, its URL, or `Options`; the settings decide by default.
        index: Its name; every HNSW index of our tables and their partitions by default.
        schema: The schema of the tables; the first of the search_path by default.
        show_build: Shows the progress; lines are logged by default.
        report: Called after each index.

    Raises:
        UsageError: There is no such index.
        LockNotObtained: Another deployer held the lock for too long, or somebody builds the index.
        RagSchemaError: The server's disk has no room for a second index beside the first.
    """
    with at_work(database, schema, show_build) as at:
        found = find_hnsw_indexes(at.connection, at.schemas.target)
        chosen = choose(found, index, at.schemas.target)
        tables = {each.table for each in chosen}
        dropped = drop_left_overs(at, [each for each in found if each.table in tables])
        rebuilt = []
        for each in chosen:
            rebuilt.append(rebuild_one(at, each))
            if report is not None:
                report(rebuilt[-1])
        return Rebuild(tuple(rebuilt), dropped)


@contextmanager
def at_work(database: DatabaseArgument, schema: str | None, show_build: ShowBuild | None) -> Iterator[Opened]:
    """Yield a connection that may rebuild, watched by another: lock held, no timeout, stopped by a signal."""
    options = resolve_options(database, schema)
    with interruptible(), opened(options) as at:
        check_writable(at.connection)
        check_owners(at.connection, at.schemas)
        take_deployer_lock(at.connection, at.schemas.target, wait=options.lock_wait)
        with opened_at_rows(at) as there:
            # it would leave an invalid index
            there.connection.execute("SELECT set_config('lock_timeout', '0', false)")
            pid = find_backend_pid(there.connection)
            with watching(lambda: watch_connection(there), pid, show_build=show_build):
                yield there


def drop_left_overs(at: Opened, found: list[HnswIndex]) -> tuple[str, ...]:
    """Drop those of some indexes that interrupted rebuilds have left; return their names."""
    left = [each for each in found if each.is_left_over]
    for each in left:
        log.info("Dropping %s, left by an interrupted rebuild", each.name)
        at.connection.execute(sql.SQL("DROP INDEX CONCURRENTLY {}").format(_identifier(each)))
    return tuple(each.name for each in left)


def rebuild_one(at: Opened, index: HnswIndex) -> Rebuilt:
    """Rebuild one index.

    Raises:
        LockNotObtained: Somebody builds it.
        RagSchemaError: There is no room, or the new index is not valid.
    """
    if index.is_building:
        raise LockNotObtained(
            f"Another session is building {index.name}.",
            "Wait until it has ended, then run the same command again.",
        )
    room = find_room(at, index)
    refuse_without_room(index, room)
    if room is None:
        log.info(
            "Rebuilding %s takes up to %s on the server's disk", index.name, megabytes(needed_room(index))
        )
    started = time.monotonic()
    at.connection.execute(sql.SQL("REINDEX INDEX CONCURRENTLY {}").format(_identifier(index)))
    after = next((e for e in find_hnsw_indexes(at.connection, at.schemas.target) if _is_same(e, index)), None)
    if after is None or not after.is_valid:
        raise RagSchemaError(
            f"{index.name} was rebuilt, and is not valid.",
            "Run the same command again: it drops what was left.",
        )
    return Rebuilt(index.name, index.table, time.monotonic() - started, index.size, after.size)


def _is_same(one: HnswIndex, other: HnswIndex) -> bool:
    return (one.schema, one.name) == (other.schema, other.name)  # a rebuild changes the oid


def _identifier(index: HnswIndex) -> sql.Identifier:
    return sql.Identifier(index.schema, index.stored_name)
