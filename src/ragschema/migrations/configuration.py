"""The configuration of a program or a person that calls Alembic itself: which database, which permissions."""

from __future__ import annotations

import logging

import sqlalchemy as sa
from alembic import context
from alembic.config import Config
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from ragschema.database.borrowed import options_of
from ragschema.database.options import Options, find_options
from ragschema.database.settings import database_of_url
from ragschema.database.urls import Setting
from ragschema.errors import UsageError
from ragschema.migrations.request import Applied, Request

log = logging.getLogger(__name__)

_PERMISSIONS = ("allow-data-loss", "expand-only", "force")  # of -x NAME=yes
_CONNECTABLES = (sa.Engine, sa.Connection, sa.URL, AsyncEngine, AsyncConnection)
_URL = "sqlalchemy.url"


def request_of_alembic(config: Config, command: str) -> Request:
    """Return what Alembic's own command line, or a program that calls ``alembic.command``, asks for.

    The database is the Connection or Engine among ``config.attributes``, else ``sqlalchemy.url``, else what
    the settings say.

    Args:
        config: Alembic's configuration.
        command: the name of its function of steps: ``upgrade``, or another.

    Raises:
        UsageError: A permission is not known, or a connection cannot be used.
        ConfigurationError: A setting cannot be used.
    """
    told = context.get_x_argument(as_dictionary=True)
    if unknown := [name for name in told if name not in _PERMISSIONS]:
        raise UsageError(
            f"-x {unknown[0]} is not known here.",
            f"Known are {', '.join(f'-x {name}=yes' for name in _PERMISSIONS)}; the database is named by"
            " DATABASE_URL, sqlalchemy.url or config.attributes.",
        )
    options = None if context.is_offline_mode() else _options(config, makes_server=command == "upgrade")
    return Request(
        options,
        allow_data_loss=_says_yes(told.get("allow-data-loss")),
        expand_only=_says_yes(told.get("expand-only")),
        force=_says_yes(told.get("force")),
        report=_log_applied,
    )


def _options(config: Config, *, makes_server: bool) -> Options:
    given = {name: value for name, value in config.attributes.items() if isinstance(value, _CONNECTABLES)}
    if len(given) > 1:
        raise UsageError(
            f"Several of Alembic's attributes are databases: {', '.join(map(str, given))}.", "Leave one."
        )
    for name, value in given.items():
        return options_of(value, source=f"attributes[{name!r}]")
    if url := config.get_main_option(_URL):
        return find_options(database_of_url(Setting(url, f"{_URL} of Alembic's configuration")))
    return find_options(makes_server=makes_server)


def _says_yes(argument: str | list[str] | None) -> bool:
    return argument in ("yes", "true", "1")


def _log_applied(applied: Applied) -> None:
    log.info("%s %s: %s (%.2f s)", applied.direction, applied.revision, applied.summary, applied.seconds)
