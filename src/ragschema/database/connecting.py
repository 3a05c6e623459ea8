"""Connections as they begin: made, waited for, and with the settings that every one of ours has."""

from __future__ import annotations

import logging
import math
import os
import re
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

import psycopg
from psycopg.conninfo import make_conninfo

from ragschema.database import session
from ragschema.database.login_refusals import explain_refusal
from ragschema.database.options import Options
from ragschema.database.poolers import Access, find_access
from ragschema.database.server import Connection
from ragschema.database.settings import Database
from ragschema.database.sqlstates import is_connection_lost
from ragschema.errors import ConfigurationError, DatabaseUnreachable

log = logging.getLogger(__name__)

_CONNECT_TIMEOUT = 10  # seconds for each address
_LEAST_TIMEOUT = 2  # seconds; psycopg takes no less

# A peer that has vanished is missed after a minute, not after the kernel's two hours: it may hold the lock.
_KEEPALIVES = {
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
}


@dataclass(frozen=True)
class Begun:
    """A connection in autocommit mode, with our settings.

    Attributes:
        connection: The connection.
        database: The database, with the parameters that reach it.
        access: Direct, or through which kind of pooler; through a transaction pooler nothing is set.
    """

    connection: Connection
    database: Database
    access: Access


def begin(options: Options, database: Database) -> Begun:
    """Connect, as `connect` does, and set what every migration and every look obeys.

    A timeout of the role or the database may end the session before ours are set: then it begins again with ours
    among its startup options. Not at once, because poolers refuse those.

    Raises:
        ConfigurationError: A setting is refused; or the session is ended all the same.
        psycopg.Error: The connection is lost.
    """
    connection = connect(options, database)
    version, startup = connection.info.server_version, connection.info.options
    try:
        return _begin_session(connection, options, database)
    except (
        psycopg.Error
    ) as exc:  # where the server's word of it came too late, libpq says: closed unexpectedly
        if session.timeout_of(exc) is None and not is_connection_lost(exc):
            raise
        told = f"{startup} {session.lifted_timeouts(version)}".strip()
        lifted = replace(database, parameters={**database.parameters, "options": told})
        try:
            return _begin_session(connect(options, lifted), options, lifted)
        except DatabaseUnreachable:
            raise exc from None
        except (psycopg.Error, ConfigurationError) as refused:
            raise explain_timeout(exc, database, version, startup) or exc from refused


def _begin_session(connection: Connection, options: Options, database: Database) -> Begun:
    try:
        return begin_lent(connection, options, database)
    except BaseException:
        connection.close()
        raise


def begin_lent(connection: Connection, options: Options, database: Database) -> Begun:
    """Set on an open connection what every migration and every look obeys, and see what it goes through."""
    with answered_by(options.deadline, connection, database):
        if session.begin(connection, _settings(options)) == connection.info.backend_pid:
            return Begun(connection, database, "direct")
        access = find_access(connection, database.parameters)
        if access != "transaction pooler":  # other clients would inherit them
            apply_settings(connection, options)
        return Begun(connection, database, access)


def explain_timeout(
    exc: BaseException, database: Database, version: int, startup: str
) -> ConfigurationError | None:
    """Return the error of a session that a stored timeout ended at its beginning; None for any other end.

    Args:
        exc: What the driver raised.
        database: The database.
        version: The server's, as libpq numbers it.
        startup: The startup options that the session had.
    """
    name, source, remedy = session.timeout_of(exc), "from its role, its database or the server", ""
    if name is None and not is_connection_lost(exc):
        return None
    told = {**database.parameters, "options": session.lifted_timeouts(version)}
    with (
        suppress(psycopg.Error),
        psycopg.connect(make_conninfo(**_with_defaults(told, None)), autocommit=True) as aside,
    ):
        name = name or session.find_stored_timeout(aside)
        if name is not None and (remedy := session.find_remedy(aside, name)):
            source = session.find_source(aside, name)
    name = name or next((each for each in session.TIMEOUTS if each in startup.lower()), None)
    if name is None:
        return None
    if name in startup.lower():
        source, remedy = session.FROM_OPTIONS, ""
    return ConfigurationError(
        f"A timeout ended the session before its first answer: {name}, {source}.",
        f"Set a longer one, or none{f': {remedy}' if remedy else ''}.",
        str(exc).strip(),
    )


def apply_settings(connection: Connection, options: Options) -> None:
    """Set what every migration and every look obeys, the role last.

    Raises:
        ConfigurationError: The role to set does not exist or may not be set, or a setting is refused.
    """
    session.apply(connection, _settings(options))


def _settings(options: Options) -> dict[str, str]:
    return session.PINNED | options.server_settings | ({"role": options.role} if options.role else {})


@contextmanager
def answered_by(deadline: float | None, connection: Connection, database: Database) -> Iterator[None]:
    """Close the connection at a deadline: a frozen server, or a pooler without one, never answers a question."""
    if deadline is None:
        yield
        return
    cut_off = threading.Event()
    with socket.socket(fileno=os.dup(connection.fileno())) as ours:

        def cut() -> None:
            cut_off.set()
            with suppress(OSError):
                ours.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(min(max(0.0, deadline - time.monotonic()), threading.TIMEOUT_MAX), cut)
        timer.daemon = True
        timer.start()
        try:
            yield
        except (DatabaseUnreachable, psycopg.Error) as exc:
            if cut_off.is_set():
                raise DatabaseUnreachable(
                    f"The database {database} was reached, and did not answer in time.",
                    "See what its server, or the pooler before it, waits for.",
                ) from exc
            raise
        finally:
            timer.cancel()
            timer.join()


def connect(options: Options, database: Database) -> Connection:
    """Connect in autocommit mode, waiting ``options.wait`` seconds for a server that is still starting.

    Raises:
        DatabaseUnreachable: The server does not answer, or cannot take another connection now.
        ConfigurationError: It refuses this login, database or encryption, which no waiting heals.
    """
    started = time.monotonic()
    ends = [options.deadline] if options.deadline is not None else []
    if options.wait:
        ends.append(started + options.wait)
    end = min(ends, default=None)

    def make() -> Connection:
        parameters = _with_defaults(database.parameters, end)
        try:
            # not from the URL: SQLAlchemy makes that
            return psycopg.connect("", autocommit=True, **{**parameters, "client_encoding": "utf8"})  # type: ignore[arg-type]
        except (psycopg.Error, UnicodeError) as exc:
            has_waited = options.wait and time.monotonic() >= started + options.wait
            error = explain_refusal(exc, database, f" after {options.wait:g} s" if has_waited else "")
            raise error from None if database.parameters.get("password") else exc

    if not options.wait or end is None:
        return make()
    from tenacity import (
        RetryCallState,
        Retrying,
        before_sleep_log,
        retry_if_exception_type,
        stop_after_delay,
        wait_exponential,
    )

    backoff = wait_exponential(multiplier=0.1, max=2)

    def pause(state: RetryCallState) -> float:
        return max(0.0, min(backoff(state), end - time.monotonic()))

    attempts = Retrying(
        retry=retry_if_exception_type(DatabaseUnreachable),
        wait=pause,
        stop=stop_after_delay(end - started),
        before_sleep=before_sleep_log(log, logging.DEBUG),
        reraise=True,
    )
    return attempts(make)


def _with_defaults(parameters: Mapping[str, str], end: float | None) -> dict[str, str]:
    """Add how long to wait for a server, cut to what is left, and how soon to miss one; a setting's own stand."""
    told = parameters.get("connect_timeout") or os.environ.get("PGCONNECT_TIMEOUT") or ""
    is_service = "service" in parameters or "PGSERVICE" in os.environ  # libpq reads there what we do not see
    seconds: int | None = (
        int(told) if re.fullmatch(r"\+?\d+", told) else None if is_service else _CONNECT_TIMEOUT
    )
    if end is not None:
        hosts = (parameters.get("host") or parameters.get("hostaddr") or "").count(",") + 1
        left = max(_LEAST_TIMEOUT, math.ceil((end - time.monotonic()) / hosts))
        seconds = min(seconds or left, left)
    defaults = {} if is_service else _KEEPALIVES
    timeout = {} if seconds is None else {"connect_timeout": str(seconds)}
    return {**defaults, **parameters, **timeout}
