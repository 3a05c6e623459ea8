"""Rows of a schema, where they are: a connection to the node of Citus that has them, or the one that is open."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from ragschema.database.citus import database_at, find_place
from ragschema.database.connections import Opened, opened

# What is on a node is hidden there, and guarded, as long as nobody says so.
_OPEN = ("SET citus.override_table_visibility = off", "SET citus.enable_manual_changes_to_shards = on")


@contextmanager
def opened_at_rows(at: Opened) -> Iterator[Opened]:
    """Yield a connection to where a schema's rows are, on which an index is measured and rebuilt like any other.

    Through the coordinator an index is that of an empty table, and a rebuild needs every node of Citus.
    """
    schema = at.schemas.target
    if (place := find_place(at.connection, schema)) is None:
        yield at
        return
    database = database_at(at.database, place)
    with opened(replace(at.options, database=database, schema=schema, lend=None, is_announced=True)) as there:
        for setting in _OPEN:
            there.connection.execute(setting.encode())
        yield there
