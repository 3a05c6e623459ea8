"""Prepared statements of a connection that is lent to one schema after the other.

psycopg prepares what is executed often, and forgets all of it at each rollback. These stay as long as the connection.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from hashlib import sha256
from typing import Any

from psycopg import sql
from psycopg.rows import TupleRow, tuple_row

from ragschema.database.server import Connection

_PREPARED = (
    "_ragschema_prepared"  # an attribute of the driver's connection: the names of what is prepared on it
)


def keep_prepared(connection: Connection) -> None:
    """Let `fetch_all` prepare what it runs on a connection; psycopg itself prepares nothing there."""
    connection.prepare_threshold = None
    setattr(connection, _PREPARED, set())


def fetch_all(
    connection: Connection, statement: str, types: Mapping[str, str], values: Mapping[str, Any]
) -> Sequence[TupleRow]:
    """Run a statement and return its rows; prepared, if the connection is one that keeps them.

    A plan holds for one search_path: to make use of it, the path must be the same each time.

    Args:
        connection: The connection.
        statement: The statement, with named parameters.
        types: The types of its parameters, as SQL.
        values: Their values.
    """
    with connection.cursor(row_factory=tuple_row) as cursor:
        if not keeps_prepared(connection):
            return cursor.execute(statement.encode(), values).fetchall()
        return cursor.execute(call(connection, statement, types, values)).fetchall()


def keeps_prepared(connection: Connection) -> bool:
    """Whether a connection is one that keeps what is prepared."""
    return hasattr(connection, _PREPARED)


def call(
    connection: Connection, statement: str, types: Mapping[str, str], values: Mapping[str, Any]
) -> sql.Composed:
    """Return the call of a statement that is prepared now, if it is not yet; see `fetch_all`.

    Args:
        connection: One that keeps what is prepared.
        statement: The statement, with named parameters.
        types: The types of its parameters, as SQL.
        values: Their values.
    """
    names: set[str] = getattr(connection, _PREPARED)
    name = f"rag_{_digest(statement)}"
    if name not in names:
        connection.execute(_prepare(name, statement, types))
        names.add(name)
    arguments = sql.SQL(", ").join(sql.Literal(values[parameter]) for parameter in types)
    listed = sql.SQL("({})").format(arguments) if types else sql.SQL("")
    return sql.SQL("EXECUTE {}{}").format(sql.Identifier(name), listed)


@cache
def _digest(statement: str) -> str:
    return sha256(statement.encode()).hexdigest()[:16]


def _prepare(name: str, statement: str, types: Mapping[str, str]) -> bytes:
    places = {parameter: f"${place}" for place, parameter in enumerate(types, start=1)}
    text = re.sub(r"%(?:\((\w+)\)s|%)", lambda match: places[match[1]] if match[1] else "%", statement)
    listed = f" ({', '.join(types.values())})" if types else ""
    return f"PREPARE {name}{listed} AS {text}".encode()
