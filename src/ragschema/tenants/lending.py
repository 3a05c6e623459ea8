"""Lending of one connection to one tenant after the other, each time as if it were new."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.connection import wait

import psycopg

from ragschema.database.connecting import begin, begin_lent
from ragschema.database.options import Options
from ragschema.database.prepared import keep_prepared
from ragschema.database.server import Connection, check_server
from ragschema.database.surroundings import look_around

_TENANTS = 50  # a connection: PostgreSQL's process keeps 1.25 MB of catalogue for each

# What DISCARD ALL does, but for plans: the statements that are asked of every tenant stay prepared.
_DISCARD = (
    "CLOSE ALL; RESET SESSION AUTHORIZATION; RESET ALL; UNLISTEN *; SELECT pg_advisory_unlock_all(); DISCARD TEMP;"
    " DISCARD SEQUENCES"
)


class Lender:
    """Keeps a connection to a database, and makes another after a number of tenants, or where it is lost.

    Args:
        options: The database.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._connection: Connection | None = None
        self._tenants = 0
        self._is_set = self._is_direct = False  # for statements in passing
        self._is_refused = False

    @property
    def options(self) -> Options:
        """The database."""
        return self._options

    @property
    def is_refused(self) -> bool:
        """Whether the last attempt to connect has failed."""
        return self._is_refused

    def options_of(self, schema: str) -> Options:
        """Return the options of a tenant, which is looked at and migrated on this connection."""
        return replace(self._options, schema=schema, lend=self._lend, is_announced=True)

    def close(self) -> None:
        """Close the connection, where there is one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @contextmanager
    def lent_in_passing(self, schema: str) -> Iterator[Connection | None]:
        """Yield the connection for statements that leave nothing in the session, with the settings of every migration.

        Whatever goes wrong, the connection is made anew.

        Args:
            schema: The tenant: with the first, what could answer for PostgreSQL's own is looked for.

        Yields:
            None where a pooler stands before the server.
        """
        try:
            connection = self._connected()
            if not self._is_set:
                begun = begin_lent(connection, self._options, self._options.database)
                check_server(connection)
                self._is_direct = begun.access == "direct"
                if self._is_direct:
                    look_around(connection, schema)
                self._is_set = True
            yield connection if self._is_direct else None
        except BaseException:
            self.close()
            raise

    @contextmanager
    def _lend(self) -> Iterator[Connection]:
        connection = self._connected()
        self._is_set = False
        try:
            yield connection
        except BaseException:
            self.close()  # whatever was left of it
            raise
        self._take_back(connection)

    def _connected(self) -> Connection:
        """Return the connection for one more tenant."""
        if self._connection is not None and (self._tenants >= _TENANTS or _is_lost(self._connection)):
            self.close()
        if self._connection is None:
            self._is_refused = True
            self._connection = begin(replace(self._options, lend=None), self._options.database).connection
            self._is_refused = False
            keep_prepared(self._connection)
            self._tenants, self._is_set = 0, False
        self._tenants += 1
        return self._connection

    def _take_back(self, connection: Connection) -> None:
        """Leave nothing of a tenant: its deployer lock, settings and temporary tables."""
        try:
            connection.rollback()
            connection.autocommit = True
            connection.execute(_DISCARD)
        except psycopg.Error:
            self.close()


def _is_lost(connection: Connection) -> bool:
    """Whether an idle connection is closed, or the server has said something unasked: that it ends the session."""
    return connection.closed or bool(wait([connection.fileno()], timeout=0))
