"""PostgreSQL URLs, in any of the spellings in use, read into libpq's keywords."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from urllib.parse import parse_qsl, unquote

from ragschema.errors import ConfigurationError
from ragschema.words import counted

EXAMPLE_URL = "postgresql://USER:PASSWORD@HOST:5432/NAME"
SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
DRIVERS = ("asyncpg", "psycopg", "psycopg_async", "psycopg2", "psycopg2cffi", "pg8000")  # all read as psycopg

_SSL_WORDS = {"true": "require", "1": "require", "on": "require"} | dict.fromkeys(
    ("false", "0", "off"), "disable"
)

_SCHEME = re.compile(
    r"(?P<dialect>[A-Za-z][A-Za-z0-9_.-]*)(?:\+(?P<driver>[A-Za-z0-9_]+))?://(?P<rest>.*)", re.S
)
_HOST = r"(?:\[[^/?#@\[\],\s]+\]|[^/?#@:\[\],\s]*)(?::\d*)?"
_HOST_PORT = re.compile(r"(?:\[(?P<address>.*)\]|(?P<name>[^:]*))(?::(?P<port>\d*))?")
_LOCATION = re.compile(
    rf"(?P<hosts>{_HOST}(?:,{_HOST})*)(?:/(?P<dbname>[^?#@]*))?(?:\?(?P<query>(?:[^=&?/@]+=[^&]*(?:&|$))*))?",
    re.S,
)


@dataclass(frozen=True)
class Setting:
    """A setting as it was found.

    Attributes:
        value: What it says.
        source: Its name, and where it stands if that is not the process environment.
        file: The file it stands in, if it does.
    """

    value: str = field(repr=False)
    source: str
    file: Path | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.value, str):
            raise ConfigurationError(
                f"{self.source} is {type(self.value).__name__}, not str.",
                "Pass a URL as text, of SQLAlchemy's URL: url.render_as_string(hide_password=False).",
            )
        if re.search("[\udc80-\udcff]", self.value):  # how Python reads bytes that are not UTF-8
            raise ConfigurationError(f"{self.source} is not UTF-8.", "Write it in UTF-8.")


def read_url(setting: Setting) -> dict[str, str]:
    """Return the libpq keywords that a URL means.

    Raises:
        ConfigurationError: It is empty, not a PostgreSQL URL, or has an unknown parameter.
    """
    url = setting.value.strip()
    if not url:
        raise ConfigurationError(f"{setting.source} is empty.", f"Write {EXAMPLE_URL}, or unset it.")
    scheme = _SCHEME.fullmatch(url)
    if scheme is None:
        raise ConfigurationError(f"{setting.source} is not a URL.", f"Write {EXAMPLE_URL}.")
    dialect, driver = scheme["dialect"].lower(), (scheme["driver"] or "psycopg").lower()
    if dialect not in ("postgres", "postgresql") or driver not in DRIVERS:
        start = url.partition("://")[0]
        raise ConfigurationError(
            f"{setting.source} is not a PostgreSQL URL: it starts with {start}://.", f"Write {EXAMPLE_URL}."
        )
    return check_parameters(_read_location(scheme["rest"], setting), setting)


def check_parameters(parameters: dict[str, str], setting: Setting) -> dict[str, str]:
    """Check the ports and give each of several hosts its own; refuse what no connection can carry."""
    if any("\0" in value for value in parameters.values()):
        raise ConfigurationError(f"{setting.source} holds a NUL character.", "Write it without.")
    if not re.fullmatch(r"[+-]?\d+", parameters.get("connect_timeout", "0")):
        raise ConfigurationError(
            f"The connect_timeout in {setting.source} is not a number of seconds.",
            "Write connect_timeout=10, say.",
        )
    hosts, ports = parameters.get("host", "").split(","), parameters.get("port", "").split(",")
    if any(port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536) for port in ports):
        raise ConfigurationError(
            f"The port in {setting.source} is not a number from 1 to 65535.", "Write 5432, say."
        )
    if len(ports) == 1 and ports[0]:
        ports *= len(hosts)  # SQLAlchemy does not spread one port over several hosts as libpq does
    if len(ports) not in (1, len(hosts)):
        raise ConfigurationError(
            f"{setting.source} has {counted(len(hosts), 'host')} and {counted(len(ports), 'port')}.",
            "Write one port, or one for each.",
        )
    return parameters | ({"port": ",".join(ports)} if any(ports) else {})


def read_ssl_mode(value: str, setting: Setting) -> str:
    """Return the ``sslmode`` that a value of ``ssl`` or ``sslmode`` means."""
    mode = _SSL_WORDS.get(value.lower(), value.lower())
    if mode not in SSL_MODES:
        raise ConfigurationError(
            f"{setting.source} has an unknown SSL mode: {value}.", f"Write one of {', '.join(SSL_MODES)}."
        )
    return mode


def _read_location(rest: str, setting: Setting) -> dict[str, str]:
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
        raise _unreadable(setting)
    hosts = [_HOST_PORT.fullmatch(host) for host in match["hosts"].split(",")]
    ports = [host["port"] or "" for host in hosts if host]
    parameters = {
        "user": _decode(user, setting),
        "password": _decode(password, setting),
        "host": ",".join(_decode(host["address"] or host["name"] or "", setting) for host in hosts if host),
        "port": ",".join(ports) if any(ports) else "",
        "dbname": _decode(match["dbname"] or "", setting),
    }
    parameters = {name: value for name, value in parameters.items() if value}
    return parameters | (_read_query(match["query"], setting) if match["query"] else {})


def _unreadable(setting: Setting) -> ConfigurationError:
    return ConfigurationError(
        f"{setting.source} cannot be read as a PostgreSQL URL.",
        f"Write {EXAMPLE_URL}, with special characters percent-encoded (@ is %40, / is %2F).",
    )


def _read_query(query: str, setting: Setting) -> dict[str, str]:
    known = _keywords()
    parameters: dict[str, str] = {}
    options: list[str] = []
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict")
    except UnicodeDecodeError as exc:
        raise _not_utf8(setting) from exc
    for name, value in pairs:
        if name == "search_path":
            options.append("-c search_path=" + re.sub(r"([\\\s])", r"\\\1", value))
        elif name == "options":
            options.append(value)
        elif name in ("ssl", "sslmode"):
            parameters["sslmode"] = read_ssl_mode(value, setting)
        elif name in known:
            parameters[name] = value
        elif "@" in query:  # then this may be a piece of a password, which nobody must see
            raise _unreadable(setting)
        else:
            raise ConfigurationError(
                f"{setting.source} has an unknown parameter: {name}.",
                "Remove it. Known are search_path, ssl and libpq's own (sslmode, options, ...).",
            )
    if options:
        parameters["options"] = " ".join(options)
    return parameters


@cache
def _keywords() -> frozenset[str]:
    from psycopg.pq import Conninfo

    return frozenset(option.keyword.decode() for option in Conninfo.get_defaults())


def _decode(text: str, setting: Setting) -> str:
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError as exc:
        raise _not_utf8(setting) from exc


def _not_utf8(setting: Setting) -> ConfigurationError:
    return ConfigurationError(
        f"{setting.source} has a percent-encoding that is not UTF-8.", "Encode it again from UTF-8."
    )
