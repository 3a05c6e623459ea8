"""Room on the server's disk, where it can be asked: through a Unix socket, the server's files are on this machine."""

from __future__ import annotations

import os

import psycopg

from ragschema.database.connections import Opened
from ragschema.errors import RagSchemaError
from ragschema.index_health.catalogue import HnswIndex

_DIRECTORY = """
SELECT coalesce(nullif(pg_tablespace_location(i.reltablespace), ''), current_setting('data_directory'))
FROM pg_class i WHERE i.oid = %s
"""
_MEGABYTE = 1_000_000


def find_room(at: Opened, index: HnswIndex) -> int | None:
    """Return the bytes that are free where an index is stored; None where that cannot be asked.

    PostgreSQL does not say. Where the connection is a Unix socket, and the role may read ``data_directory``, the file
    system does.
    """
    if not str(at.connection.info.host or "").startswith(("/", "@")):
        return None
    try:
        row = at.connection.execute(_DIRECTORY, (index.oid,)).fetchone()
        if row is None or row[0] is None:
            return None
        found = os.statvfs(row[0])
    except (psycopg.errors.InsufficientPrivilege, OSError):
        return None
    return found.f_bavail * found.f_frsize


def needed_room(index: HnswIndex) -> int:
    """Return the bytes that a rebuild takes: the new index beside the old one, and its WAL."""
    return 2 * index.size


def refuse_without_room(index: HnswIndex, room: int | None) -> None:
    """Refuse a rebuild that the disk has no room for; a full disk stops every writer.

    Raises:
        RagSchemaError: It has none.
    """
    if room is not None and room < needed_room(index):
        raise RagSchemaError(
            f"Rebuilding {index.name} takes up to {megabytes(needed_room(index))},"
            f" and the server's disk has {megabytes(room)} left.",
            "Nothing was changed. Make room there, or drop the index and build it anew while searches are slow.",
        )


def megabytes(count: int) -> str:
    """Return a number of bytes in words."""
    return f"{count / _MEGABYTE:,.0f} MB"
