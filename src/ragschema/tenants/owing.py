"""Tenants that owe contract revisions, found by a few statements."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice

import psycopg

from ragschema.database.connections import opened_database, quoted
from ragschema.database.options import Options
from ragschema.database.server import HISTORY_TABLE, Connection
from ragschema.errors import RagSchemaError
from ragschema.state.owed import find_owed
from ragschema.tenants.finding import BATCH


def find_owing(options: Options, schemas: Sequence[str]) -> Iterator[str]:
    """Yield those of some tenants that owe a revision, or of which that cannot be seen; reads only.

    Args:
        options: Their database.
        schemas: The tenants.
    """
    if not schemas:
        return
    rest = iter(schemas)
    try:
        with opened_database(replace(options, is_announced=True)) as (connection, _):
            while batch := list(islice(rest, BATCH)):
                yield from filter(
                    lambda schema: _owes(connection, schema), _with_deferrals(connection, batch)
                )
    except RagSchemaError:  # of this database: it stops no other, and is said when its tenants are visited
        yield from schemas


def _with_deferrals(connection: Connection, schemas: Sequence[str]) -> list[str]:
    """Return those whose history has ever passed over a revision; all, where one of them cannot be read."""
    parts = [
        f"SELECT {number} FROM {quoted(schema, HISTORY_TABLE)} WHERE direction = 'defer'"
        for number, schema in enumerate(schemas)
    ]
    try:
        rows = connection.execute(" UNION ALL ".join(parts).encode()).fetchall()
        return [schemas[number] for number in sorted({number for (number,) in rows})]
    except psycopg.Error:
        if connection.closed:
            raise
        return list(schemas)


def _owes(connection: Connection, schema: str) -> bool:
    try:
        return bool(find_owed(connection, schema, "9"))  # of its head: nothing is pending
    except Exception:  # that it cannot be seen is said when it is visited
        if connection.closed:
            raise
        return True
