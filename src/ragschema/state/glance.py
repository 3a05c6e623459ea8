"""A glance at a database: its revision, what it owes, and whether it is sound, in one statement."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg

from ragschema.database.connections import quoted
from ragschema.database.server import VERSION_TABLE, Connection
from ragschema.revisions.manifest import RevisionId
from ragschema.state.owed import deferred, owed_at
from ragschema.state.soundness import Soundness, question, read_answer


@dataclass(frozen=True)
class Glance:
    """What was seen of a database that is migrated.

    Attributes:
        current: The revision it is at.
        owed: The contract revisions that were passed over, oldest first.
        soundness: What its schema lacks of that revision, and what works on another schema.
    """

    current: RevisionId
    owed: tuple[RevisionId, ...]
    soundness: Soundness


def standing_of(schema: str) -> str:
    """Return the columns of where a schema stands: the rows of its version table, and what was passed over."""
    return f"ARRAY(SELECT version_num::text FROM {quoted(schema, VERSION_TABLE)}), ARRAY({deferred(schema)})"


def glance_at(connection: Connection, schema: str) -> Glance | None:
    """Look at a database that is migrated and lets this role see that; reads only, takes no lock.

    Args:
        connection: In autocommit mode.
        schema: The schema of our tables.

    Returns:
        None where that cannot be seen: no table, no row, or not for this role. Whoever asks `read_current`,
        `find_soundness` and `find_owed` in turn is told why.
    """
    seen = standing_of(schema).replace("%", "%%")
    statement = (
        f"SELECT {seen}, answer.* FROM (VALUES (1)) one LEFT JOIN ({question().decode()}) answer ON true"
    )
    try:
        row = connection.execute(statement.encode(), {"schema": schema}).fetchone()
    except (
        psycopg.errors.UndefinedTable,
        psycopg.errors.InvalidSchemaName,
        psycopg.errors.InsufficientPrivilege,
    ):
        return None
    if row is None or len(row[0]) != 1:
        return None
    (current,), found, *answer = row
    return Glance(current, owed_at(current, found), read_answer(answer, schema, current))
