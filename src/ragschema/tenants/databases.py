"""Databases with tenants: the one of the settings, or those of a file of URLs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

from ragschema.database.connections import held_reachable, opened_database
from ragschema.database.environment import reason
from ragschema.database.options import Options, find_options
from ragschema.database.secrets import without_secrets
from ragschema.database.settings import Database, database_of_url
from ragschema.database.urls import Setting
from ragschema.errors import ConfigurationError, RagSchemaError, UsageError
from ragschema.tenants.finding import Tenant, find_tenants
from ragschema.tenants.outcomes import DatabaseFailure
from ragschema.values import several

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
    """Read the URLs of databases from a file, one a line; empty lines and those that begin with # are none.

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
    settings = [Setting(line, f"line {number} of {path}") for number, line in enumerate(lines, start=1)]
    wanted = [each for each in settings if each.value.strip() and not each.value.lstrip().startswith("#")]
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
    if len(by_server) == 1:
        return [_find(each, with_sizes=with_sizes) for each in databases]

    def find_of_server(options: Sequence[Options]) -> list[Found]:
        return [_find(each, with_sizes=with_sizes) for each in options]

    with ThreadPoolExecutor(max_workers=min(16, len(by_server))) as pool:
        found = [each for server in pool.map(find_of_server, by_server.values()) for each in server]
    places = {id(options): place for place, options in enumerate(databases)}
    return sorted(found, key=lambda each: places[id(each.options)])


def _find(options: Options, *, with_sizes: bool) -> Found:
    try:
        with opened_database(replace(options, is_announced=True)) as (connection, _):
            return Found(options, tuple(find_tenants(connection, with_sizes=with_sizes)))
    except RagSchemaError as exc:
        evidence = without_secrets("\n".join(part for part in (exc.remedy, exc.evidence) if part))
        failure = DatabaseFailure(name_of(options.database), without_secrets(exc.message), evidence)
        return Found(options, failure=failure)
