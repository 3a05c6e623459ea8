"""Databases with tenants: the one of the settings, or those of a file of URLs."""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

import psycopg

from ragschema.database.connections import held_reachable, opened_database
from ragschema.database.environment import reason
from ragschema.database.options import Options, find_options
from ragschema.database.secrets import without_secrets
from ragschema.database.settings import Database, database_of_url
from ragschema.database.urls import Setting
from ragschema.errors import ConfigurationError, DatabaseUnreachable, RagSchemaError, UsageError
from ragschema.tenants.finding import Tenant, find_tenants
from ragschema.tenants.outcomes import DatabaseFailure
from ragschema.values import several

_THREADS = 16  # that look for tenants, each of a server
_MUTE = 2  # databases in a row of a server that kept silent: the others of it are not waited for as long
_SHORT_TIMEOUT = "2"  # seconds
_NOTE = re.compile(r"(^|\s)#.*")
_NO_PART = ("password", "application_name", "connect_timeout")  # of what tells a database from others

DatabaseOfTenants: TypeAlias = Options | Database | str
"""A database as the functions about all tenants take it: options, itself, or its URL."""


@dataclass(frozen=True)
class Found:
    """What was found in a database.

    Attributes:
        options: How to reach it.
        tenants: Its tenants by name.
        failure: Why it could not be looked at.
    """

    options: Options
    tenants: tuple[Tenant, ...] = ()
    failure: DatabaseFailure | None = None

    @cached_property
    def name(self) -> str:
        """What to call it, without a password."""
        return name_of(self.options.database)


def read_urls(path: Path) -> list[Database]:
    """Read the URLs of databases from a file, one a line; a # at the beginning, or after a space, begins a note.

    A database that is named twice counts once.
    A password may be missing there: libpq looks in PGPASSFILE, ``~/.pgpass``, and the service that a URL names.

    Raises:
        ConfigurationError: It cannot be read, has none, or a line is no URL of PostgreSQL.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()  # some editors begin a file with a mark
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigurationError(
            f"The file of URLs {path} cannot be read: {reason(exc)}.", "Name a readable UTF-8 file."
        ) from exc
    settings = [
        Setting(_NOTE.sub("", line), f"line {number} of {path}") for number, line in enumerate(lines, start=1)
    ]
    wanted = [each for each in settings if each.value.strip()]
    if not wanted:
        raise ConfigurationError(f"The file {path} has no URL.", "Write one a line.")
    found: dict[tuple[tuple[str, str], ...], Database] = {}
    for each in wanted:
        database = database_of_url(each)
        found.setdefault(_identity(database), database)
    return [*found.values()]


def _identity(database: Database) -> tuple[tuple[str, str], ...]:
    """Return what tells a database from others, as libpq fills it in."""
    named = database.filled_in()
    if "service" not in database.parameters:
        named.setdefault("dbname", named.get("user", ""))
    return tuple(sorted((name, value) for name, value in named.items() if name not in _NO_PART))


def name_of(database: Database) -> str:
    """Return what to call a database, without a password."""
    return str(database).rpartition(" (from ")[0]


def server_of(database: Database) -> str:
    """Return what tells a database's server from others: host and port, or the service that names them."""
    named = database.parameters
    host = named.get("service") or named.get("host") or named.get("hostaddr") or ""
    return f"{host}:{named.get('port', '')}"


@contextmanager
def reached(databases: Sequence[DatabaseOfTenants]) -> Iterator[list[Options]]:
    """Yield options of databases for several connections; embedded servers run meanwhile.

    Raises:
        UsageError: They are not several, or none, or one of them is nothing that names a database.
        ConfigurationError: One is no URL of PostgreSQL.
    """
    given = several("databases", databases, UsageError, is_ordered=True)
    if not given:
        raise UsageError("databases is empty.", "Pass the databases whose tenants are meant.")
    with ExitStack() as stack:
        yield [
            replace(stack.enter_context(held_reachable(each)), is_announced=True)
            if each.database.embedded is not None
            else each
            for each in map(_options_of, given)
        ]


def _options_of(database: DatabaseOfTenants) -> Options:
    if isinstance(database, Options):
        return database
    if not isinstance(database, Database | str):
        raise UsageError(
            f"One of databases is {type(database).__name__}.", "Pass URLs, or what `find_options` returns."
        )
    return find_options(database, application_name="rag tenants")


def find_all(databases: Sequence[Options], *, with_sizes: bool = False) -> list[Found]:
    """Find the tenants of databases, servers in parallel; what one of them refuses stops no other."""
    by_server: dict[str, list[Options]] = {}
    for options in databases:
        by_server.setdefault(server_of(options.database), []).append(options)

    def find_of_server(given: Sequence[Options]) -> list[Found]:
        found, mute = [], 0
        for options in given:
            one, is_mute = _find(options, with_sizes=with_sizes, is_brief=mute >= _MUTE)
            mute = mute + 1 if is_mute else 0
            found.append(one)
        return found

    if len(by_server) == 1:
        return find_of_server(databases)
    found = [each for server in _in_threads(find_of_server, [*by_server.values()]) for each in server]
    places = {id(options): place for place, options in enumerate(databases)}
    return sorted(found, key=lambda each: places[id(each.options)])


def _in_threads(
    find: Callable[[Sequence[Options]], list[Found]], servers: Sequence[Sequence[Options]]
) -> list[list[Found]]:
    """Find the tenants of servers in threads, which have ended then.

    Ctrl-C waits for none of them, as `ThreadPoolExecutor` does: each may wait for a server that does not answer.
    """
    answers = [Future[list[Found]]() for _ in servers]
    rest = deque(zip(servers, answers, strict=True))

    def work() -> None:
        while rest:
            try:
                server, answer = rest.popleft()
            except IndexError:  # another thread has it
                return
            try:
                answer.set_result(find(server))
            except BaseException as exc:  # it is raised where it is asked for
                answer.set_exception(exc)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(_THREADS, len(servers)))]
    for each in threads:
        each.start()
    try:
        found = [answer.result() for answer in answers]
    except BaseException:
        rest.clear()
        raise
    for each in threads:
        each.join()
    return found


def _find(options: Options, *, with_sizes: bool, is_brief: bool) -> tuple[Found, bool]:
    """Find the tenants of a database; return whether its server kept silent, too."""
    asked = replace(options, is_announced=True)
    if is_brief:
        parameters = {**asked.database.parameters, "connect_timeout": _SHORT_TIMEOUT}
        asked = replace(asked, wait=0.0, database=replace(asked.database, parameters=parameters))
    try:
        with opened_database(asked) as (connection, _):
            return Found(options, tuple(find_tenants(connection, with_sizes=with_sizes))), False
    except RagSchemaError as exc:
        evidence = without_secrets("\n".join(part for part in (exc.remedy, exc.evidence) if part))
        failure = DatabaseFailure(name_of(options.database), without_secrets(exc.message), evidence)
        is_mute = isinstance(exc, DatabaseUnreachable) and (
            bool(asked.wait) or isinstance(exc.__context__, psycopg.errors.ConnectionTimeout)
        )
        return Found(options, failure=failure), is_mute or (is_brief and isinstance(exc, DatabaseUnreachable))
