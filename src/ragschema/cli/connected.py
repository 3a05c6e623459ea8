"""Connections of the commands that do what services do: SQLAlchemy's, on the database that the command is about."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ragschema.errors import PendingRevisions

if TYPE_CHECKING:
    import sqlalchemy as sa

    from ragschema.cli.arguments import Target


@contextmanager
def connected(
    target: Target,
    group: str,
    outdated: PendingRevisions,
    *,
    is_autocommit: bool = False,
    sees_all: bool = False,
) -> Iterator[sa.Connection]:
    """Yield a connection in no transaction; what the block has not committed is rolled back.

    Args:
        target: What the command is about.
        group: Whose connection the server's own views say it is.
        outdated: Raised where the database lacks a table, a column or a function that the block needs.
        is_autocommit: Whether each statement is a transaction of its own.
        sees_all: Whether to refuse before anything else where row security hides rows of any table of ours.

    Raises:
        PendingRevisions: The database is behind.
        RowsHidden: Row security hides rows from this role.
    """
    from dataclasses import replace

    from sqlalchemy.exc import DBAPIError

    from ragschema.database.connections import opened
    from ragschema.database.drivers import engine_on
    from ragschema.database.row_security import refuse_hidden
    from ragschema.database.sqlstates import is_undefined

    with opened(replace(target.options(), application_name=group)) as at:
        if sees_all:
            refuse_hidden(at.connection, at.schemas.target)
        at.connection.autocommit = is_autocommit  # it is ours, and ends with the block
        try:
            with engine_on(at.connection).connect() as connection:
                yield connection
        except DBAPIError as exc:
            if is_undefined(exc):
                outdated.evidence = str(exc.orig)
                raise outdated from exc
            raise (exc.orig or exc) from exc  # the driver's error is explained as everywhere
