"""Settings that name a database to other programs, or misspell ours.

Where one is set and none of ours, somebody has named a database: any other would be the wrong one.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from ragschema.database.environment import Environment
from ragschema.database.urls import EXAMPLE_URL, Setting
from ragschema.errors import ConfigurationError

DB_PARTS = ("DB_NAME", "DB_USER", "DB_PORT", "DB_PASSWORD_FILE", "DB_PASSWORD", "DB_SSLMODE")  # with DB_HOST
POSTGRES_PARTS = (
    "POSTGRES_DB", "POSTGRES_USER", "POSTGRES_PORT", "POSTGRES_PASSWORD_FILE", "POSTGRES_PASSWORD",
    "POSTGRES_SSLMODE",
)  # fmt: skip
EMBEDDED = "RAG_EMBEDDED_DIR"

_OURS = ("DATABASE_URL", "RAG_MIGRATION_DATABASE_URL", EMBEDDED, "DB_HOST", *DB_PARTS, "POSTGRES_HOST")
_WITHOUT_KEYWORD = ("PGSERVICEFILE", "PGREQUIRESSL")  # of libpq's
# Of libpq's, those that say how a session or the library is, and nothing of a server.
_HARMLESS = ("PGAPPNAME", "PGCLIENTENCODING", "PGCONNECT_TIMEOUT", "PGGSSENCMODE", "PGGSSLIB", "PGOPTIONS")
_OTHERS = re.compile(
    "(DATABASE|DB|PG|PGSQL|PSQL|POSTGRES|POSTGRESQL|SQLALCHEMY|SQLALCHEMY_DATABASE|ALEMBIC)_?"
    "(HOST|HOSTNAME|SERVER|ADDRESS|URL|URI|DSN|NAME|DB|DATABASE|DBNAME|USER|USERNAME|PASSWORD|PASS|PORT)"
)
_URL = re.compile(r"postgres(ql)?(\+\w+)?://", re.I)
_SYNONYMS = (
    {"NAME", "DB", "DATABASE", "DBNAME"},
    {"USER", "USERNAME"},
    {"PASSWORD", "PASS", "PASSWD", "PWD"},
)
_LIKENESS = 0.85  # difflib's: two letters exchanged in a name of seven


def refuse_strangers(environment: Environment, *, is_installed: bool) -> None:
    """Refuse a setting of another program, or one that misspells ours; call it where none of ours is set.

    Args:
        environment: The settings.
        is_installed: Whether the embedded server could be used instead.

    Raises:
        ConfigurationError: There is one; the remedy is what to write instead.
    """
    found = dict(environment)
    instead = f"or {EMBEDDED}=.ragschema/postgres, if the embedded server is meant"
    if not is_installed:
        instead = "or install ragschema[embedded], as the embedded server is not installed"
    if name := next((name for name in _of_libpq() if name in found), None):
        raise _refusal(
            found[name],
            "Write DATABASE_URL=postgresql:/// to use what PGHOST, PGSERVICE and the others name, or"
            f" {EXAMPLE_URL}; {instead}.",
        )
    for name, setting in found.items():
        if ours := find_misspelt(name, _OURS):
            raise _refusal(setting, f"Write {ours}, if that is what it is for; else unset it, {instead}.")
        if _URL.match(setting.value):
            raise _refusal(setting, f"Write DATABASE_URL with the value of {name}, {instead}.")
        if name.startswith("POSTGRES_"):
            raise _refusal(setting, f"Write POSTGRES_HOST too, or DATABASE_URL={EXAMPLE_URL}; {instead}.")
        if _OTHERS.fullmatch(name.upper()):
            raise _refusal(setting, f"Write DATABASE_URL={EXAMPLE_URL}, {instead}.")


def _of_libpq() -> list[str]:
    """Return the variables by which libpq finds a server, or is told how to speak to one: host and port first."""
    from psycopg.pq import Conninfo

    known = [option.envvar.decode() for option in Conninfo.get_defaults() if option.envvar]
    first = [name for name in ("PGHOST", "PGHOSTADDR", "PGSERVICE", "PGPORT") if name in known]
    return [*dict.fromkeys([*first, *(name for name in known if name not in _HARMLESS), *_WITHOUT_KEYWORD])]


def refuse_misspelt(environment: Environment, prefix: str, names: Collection[str]) -> None:
    """Refuse a name that misspells one of ours, or says it in another word, where ours is not set.

    Args:
        environment: The settings.
        prefix: What such a name begins with: a few of many are compared.
        names: Ours.

    Raises:
        ConfigurationError: There is one: it would be passed over in silence, for a default.
    """
    for name, setting in environment.beginning(prefix):
        if name in names:
            continue
        ours = find_misspelt(name, names)
        if ours and not ((said := environment.get(ours)) and said.value):
            raise ConfigurationError(
                f"{setting.source} is set, and {ours} is not.", f"Write {ours}, or unset {name}."
            )


def find_misspelt(name: str, names: Collection[str]) -> str | None:
    """Return which of some names another one means: close to it, in another case, or a synonym."""
    if name in names:
        return None
    from difflib import get_close_matches

    upper = name.upper().replace("-", "_")
    if upper in names:
        return upper
    family, _, part = upper.partition("_")
    same = {f"{family}_{each}" for words in _SYNONYMS if part in words for each in words}
    if meant := same & {*names}:
        return meant.pop()
    return next(iter(get_close_matches(upper, names, n=1, cutoff=_LIKENESS)), None)


def _refusal(setting: Setting, remedy: str) -> ConfigurationError:
    return ConfigurationError(f"{setting.source} is set, and no setting that ragschema reads.", remedy)
