"""Running statements inside a revision, online and offline."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from alembic import op
from alembic.util import CommandError
from sqlalchemy.dialects import postgresql

quote = postgresql.dialect().identifier_preparer.quote  # type: ignore[no-untyped-call]

_TIMEOUTS = ("lock_timeout", "statement_timeout")  # either ends a concurrent build and leaves it INVALID


class OperationRefused(CommandError):
    """What is asked cannot be done in this database as it is.

    Args:
        message: A sentence of fact.
        remedy: A sentence saying what to do before the revision is run again.
        evidence: Lines that support the message.
    """

    def __init__(self, message: str, remedy: str, evidence: str = "") -> None:
        super().__init__("\n".join(part for part in (message, remedy, evidence) if part))
        self.message = message
        self.remedy = remedy
        self.evidence = evidence


def names(columns: Iterable[str]) -> str:
    """Return a list of names as SQL."""
    return ", ".join(map(quote, columns))


def is_offline() -> bool:
    """Whether SQL is written instead of run."""
    return op.get_context().as_sql


def server_version() -> int:
    """Return the major version of the server."""
    version = op.get_bind().dialect.server_version_info
    assert version is not None
    return int(version[0])


def escape(sql: str) -> str:
    """Keep colons from being read as parameters."""
    return sql.replace(":", r"\:")


def run(sql: str) -> None:
    """Run a statement as it stands, or write it."""
    op.execute(sa.text(escape(sql)))


def read(sql: str, **parameters: object) -> sa.CursorResult[Any]:
    """Run a query, with ``:name`` for its parameters; not offline."""
    return op.get_bind().execute(sa.text(sql), parameters)


def comment(text: str) -> None:
    """Write a comment into offline SQL."""
    op.get_context().impl.static_output(f"-- {text}")


@contextmanager
def outside_transaction(**settings: str) -> Iterator[None]:
    """Commit, run the block in autocommit without timeouts, then begin again; give the timeouts back.

    Args:
        settings: Further settings for the block.
    """
    values = dict.fromkeys(_TIMEOUTS, "0") | settings
    if not is_offline() and server_version() >= 17:
        values["transaction_timeout"] = "0"  # counts a statement in autocommit as a transaction
    failure: BaseException | None = None
    try:
        with op.get_context().autocommit_block():
            for name, value in values.items():
                run(f"SELECT set_config('ragschema.{name}', current_setting('{name}'), false)")
                run(f"SET {name} = {value}")
            try:
                yield
            except BaseException as exc:
                failure = exc
                raise
            finally:
                for name in values:
                    run(f"SELECT set_config('{name}', current_setting('ragschema.{name}'), false)")
    except BaseException:
        if failure is not None:
            raise failure from failure.__cause__  # not what a broken connection said after it
        raise


@contextmanager
def empty_copy(table: str) -> Iterator[None]:
    """Let a table's name mean an empty copy of it, to see how the server words a definition."""
    schema = read("SELECT quote_ident(current_schema())").scalar_one()
    savepoint = op.get_bind().begin_nested()
    try:
        run(f"CREATE TEMPORARY TABLE {quote(table)} (LIKE {schema}.{quote(table)})")
        yield
    finally:
        savepoint.rollback()
