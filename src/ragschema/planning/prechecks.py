"""Prechecks: the rows that a revision says would stand in its way."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic.script import Script


def find_in_the_way(script: Script, connection: sa.Connection) -> list[Any]:
    """Return the rows that a revision's ``precheck(connection)`` returns, which it runs in a savepoint."""
    find_rows = getattr(script.module, "precheck", None)
    if find_rows is None:
        return []
    with connection.begin_nested():
        return list(find_rows(connection) or ())
