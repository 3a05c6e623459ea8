"""The rows of a version, written: in one statement, or in one for each table where the schema is on a node of Citus."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from ragschema.database.citus import is_on_citus
from ragschema.publishing.writing_statements import APART, APART_LOCATED, WRITE, Apart


def write_version(
    connection: sa.Connection, rows: Mapping[str, Any], *, is_located: bool
) -> tuple[int, int, Sequence[UUID]] | None:
    """Write a version; return its number, how many rows have the embedding now that they waited for, and what it hides.

    None: rows that it reuses are gone, a model that it embeds by is, or a version was added to it. Nothing was written.

    Args:
        connection: Of the transaction that has locked the document.
        rows: By `version_rows`, what is said of the version, and where the chunks stand if it is located.
        is_located: Whether anything is said of chunks beside their texts.
    """
    if is_on_citus(connection):
        return _write_apart(connection, rows, APART_LOCATED if is_located else APART)
    written = connection.execute(WRITE[is_located, bool(rows["filled_ids"])], rows).one_or_none()
    return None if written is None else (written.version_number, written.embedded, written.hidden)


def _write_apart(
    connection: sa.Connection, rows: Mapping[str, Any], statements: Apart
) -> tuple[int, int, Sequence[UUID]] | None:
    version = connection.execute(statements.version, rows).one_or_none()
    if version is None:
        return None
    # before there are new ones, which it would hide too
    hidden = connection.execute(statements.hide, rows).scalars().all()
    if rows["new_ids"]:
        connection.execute(statements.chunks, rows)
    if rows["marked_ids"]:
        connection.execute(statements.mark, rows)
    filled = connection.execute(statements.fill, rows).all() if rows["filled_ids"] else ()
    if rows["event_ids"]:
        connection.execute(statements.events, rows)
    return version.version_number, sum(bool(row.late) for row in filled), hidden
