"""The statements of the head script, from a database that the revisions have brought to head."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import sql

from ragschema.authoring.schema_dump import dump_schema
from ragschema.database.settings import Database
from ragschema.sql.splitting import split_sql

_MARK = "ragschema_head_script"  # a schema's name for the time of the dump: what is qualified is seen by it
_SEARCH_PATH = re.compile(r"(?<=^    )SET search_path TO 'public', 'pg_temp'$", re.M)
_LEFT_OUT = re.compile(r"(CREATE|ALTER|COMMENT ON) (SCHEMA|EXTENSION)\b")


def dump_head(database: Database) -> list[str]:
    """Return the statements, without a schema's name in them.

    Args:
        database: A scratch database at head, with our tables and pgvector in ``public``, which is renamed meanwhile.

    Raises:
        ValueError: A statement names the schema in another way than as a qualification.
    """
    with _renamed(database):
        text = dump_schema(database)
    return [_unqualified(statement) for _, statement in split_sql(text) if not _LEFT_OUT.match(statement)]


@contextmanager
def _renamed(database: Database) -> Iterator[None]:
    _rename(database, "public", _MARK)
    try:
        yield
    finally:
        _rename(database, _MARK, "public")


def _rename(database: Database, old: str, new: str) -> None:
    with psycopg.connect(database.libpq_url(), autocommit=True) as connection:
        connection.execute(
            sql.SQL("ALTER SCHEMA {} RENAME TO {}").format(sql.Identifier(old), sql.Identifier(new))
        )


def _unqualified(statement: str) -> str:
    """Return a statement that takes our schema and pgvector's from the search_path, as revisions do."""
    statement = statement.replace(f"{_MARK}.", "")
    statement = _SEARCH_PATH.sub("SET search_path FROM CURRENT", statement)
    if _MARK in statement:
        raise ValueError(
            f"the head script cannot be written, because a statement names its schema: {statement}"
        )
    return statement
