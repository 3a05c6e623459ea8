"""The schema of a session's or a connection's statements, chosen anew for each of its transactions."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import sqlalchemy as sa
from psycopg.sql import Literal
from sqlalchemy.orm import Session

from ragschema.database.schemas import check_schema_name
from ragschema.errors import ConfigurationError

# The schema first, then pgvector's. Nothing where the schema has no tables of ours: its statements would reach
# those of pgvector's schema, which is public mostly.
_SEARCH_PATH = """
SELECT set_config(
    'search_path',
    quote_ident(n.nspname) || coalesce(', ' || quote_ident(nullif(vector.nspname, n.nspname)), ''),
    {is_local}
)
FROM pg_catalog.pg_namespace n
LEFT JOIN (
    pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace vector ON vector.oid = e.extnamespace
) ON e.extname = 'vector'
WHERE n.nspname = {schema} AND EXISTS (
    SELECT FROM pg_catalog.pg_class c WHERE c.relname = 'rag_documents' AND c.relnamespace = n.oid
)
"""
_KEY = "ragschema.schema"
_chosen: WeakKeyDictionary[sa.Connection, str] = WeakKeyDictionary()


def use_schema(session: Session | sa.Connection, schema: str) -> None:
    """Make a session or connection speak to the tables of a schema from now on, in each of its transactions.

    The search_path is the schema and pgvector's, set for one transaction at a time: a transaction that is open
    gets it at once, each later one when it begins. So nothing is left on a connection that goes back to its pool,
    and a pooler that hands out transactions may stand between. Statements are prepared for each schema apart,
    because one that is prepared keeps the types of the schema that it was prepared in. Call it again for another
    schema. In async code: ``await ragschema.aio.use_schema(session, schema)``.

    Args:
        session: A Session or a Connection, not in autocommit mode, and in no savepoint: the end of one could
            bring back the schema before it.
        schema: A schema with our tables.

    Raises:
        ConfigurationError: It has none, or is no name of a schema; or the session is such. A schema that is gone
            when a later transaction begins is refused there.
    """
    check_schema_name(schema, "The schema's name")
    if session.in_nested_transaction():
        raise ConfigurationError(
            "A savepoint is open, whose end could bring back the schema before it.",
            "Call use_schema before begin_nested.",
        )
    if isinstance(session, sa.Connection):
        _use_on(session, schema)
        return
    is_new = _KEY not in session.info
    before = session.info.get(_KEY)
    session.info[_KEY] = schema
    try:
        if session.in_transaction():
            _use_on(session.connection(), schema)
        if is_new:
            sa.event.listen(session, "after_begin", _session_begins)
        session.connection()  # begins the transaction, where none is open: a schema that is missing is refused now
    except BaseException:
        session.info[_KEY] = before
        raise


def _session_begins(session: Session, transaction: Any, connection: sa.Connection) -> None:
    schema = session.info[_KEY]
    if schema is not None and not transaction.nested:
        _use_on(connection, schema)


def _use_on(connection: sa.Connection, schema: str) -> None:
    if connection.connection.dbapi_connection.autocommit:  # type: ignore[union-attr]  # of every driver
        raise ConfigurationError(
            "A schema is chosen for one transaction at a time, and this connection is in autocommit mode.",
            "Give use_schema one with transactions, or make an engine with create_engine(schema=...).",
        )
    set_search_path(connection.connection, schema, is_local=True)
    if connection not in _chosen:
        sa.event.listen(connection, "begin", _connection_begins)
        sa.event.listen(connection, "before_cursor_execute", _name_schema, retval=True)
    _chosen[connection] = schema


def _connection_begins(connection: sa.Connection) -> None:
    set_search_path(connection.connection, _chosen[connection], is_local=True)


def _name_schema(
    connection: sa.Connection, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool
) -> tuple[str, Any]:
    """Begin a statement with its schema, in hexadecimal: what is prepared is told apart by its text."""
    return f"/* {_chosen[connection].encode().hex()} */ {statement}", parameters


def choose_at_begin(engine: sa.Engine, schema: str, is_shared: Callable[[sa.Connection], bool]) -> None:
    """Choose a schema whenever a transaction begins on a connection that a pooler shares; see `use_schema`."""

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        if not is_shared(connection) or connection in _chosen:
            return
        if connection.connection.dbapi_connection.autocommit:  # type: ignore[union-attr]  # of every driver
            raise ConfigurationError(
                "A pooler stands before the server, and a connection in autocommit mode cannot keep its schema.",
                "Leave autocommit, or make the schema the first of the role's search_path by ALTER ROLE.",
            )
        set_search_path(connection.connection, schema, is_local=True)


def set_search_path(connection: Any, schema: str, *, is_local: bool) -> None:
    """Set a connection's search_path by a DBAPI cursor, which begins no transaction of SQLAlchemy's.

    The name is a literal, because drivers differ in how they write parameters.

    Args:
        connection: A DBAPI connection, or the form of an async one that SQLAlchemy adapts.
        schema: The schema.
        is_local: Until the transaction ends, or for good.

    Raises:
        ConfigurationError: The schema has no tables of ours.
    """
    cursor = connection.cursor()
    try:
        cursor.execute(_SEARCH_PATH.format(is_local=is_local, schema=Literal(schema).as_string()))
        if cursor.fetchone() is None:
            raise ConfigurationError(
                f"Schema {schema} has none of our tables, or is not there.",
                f"Run `rag migrate --schema {shlex.quote(schema)}`, or name another.",
            )
    finally:
        cursor.close()
