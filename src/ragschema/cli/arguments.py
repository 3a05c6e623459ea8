"""The options that every command which speaks to a database takes, written once."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ragschema.errors import UsageError

if TYPE_CHECKING:
    from ragschema.options import Options
    from ragschema.settings import Database

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}


def parse_duration(text: str) -> float:
    """Return the seconds of a duration such as ``500ms``, ``60s``, ``5m`` or ``1h``."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|)", text.strip())
    if match is None:
        raise typer.BadParameter(f"{text!r} is not a duration: write 500ms, 60s, 5m or 1h.")
    return float(match[1]) * _UNITS[match[2]]


def duration(*names: str, help: str) -> Any:
    """Return a Typer option that takes a duration."""
    return typer.Option(*names, parser=parse_duration, metavar="DURATION", help=help)


@dataclass(frozen=True)
class Target:
    """Which database a command line means; what it leaves out, the settings decide."""

    database_url: str | None = None
    host: str | None = None
    port: int | None = None
    dbname: str | None = None
    user: str | None = None
    schema: str | None = None
    role: str | None = None
    wait: float | None = None

    def over(self, other: Target) -> Target:
        """Return these options, and another's where these say nothing."""
        return Target(*(_first(getattr(self, f.name), getattr(other, f.name)) for f in fields(Target)))

    def options(self, **others: Any) -> Options:
        """Return the options of a migration.

        Raises:
            ConfigurationError: A setting cannot be used.
            UsageError: The options do not fit together.
        """
        from ragschema.options import find_options

        database = self._database_of_parts() or self.database_url
        return find_options(database, schema=self.schema, role=self.role, wait=self.wait, **others)

    def _database_of_parts(self) -> Database | None:
        parts = {"host": self.host, "port": self.port, "dbname": self.dbname, "user": self.user}
        given = [name for name, value in parts.items() if value is not None]
        if not given:
            return None
        if self.database_url is not None:
            raise UsageError(f"--database-url and --{given[0]} both name a database.", "Give one of them.")
        if self.host is None:
            raise UsageError(f"--{given[0]} needs --host.", "Add --host, or use --database-url.")
        import os
        from dataclasses import replace

        from ragschema.settings import find_database

        environ = {"DB_HOST": self.host}
        for name, setting in (("port", "DB_PORT"), ("dbname", "DB_NAME"), ("user", "DB_USER")):
            if parts[name] is not None:
                environ[setting] = str(parts[name])
        for setting in ("DB_PASSWORD_FILE", "DB_PASSWORD", "DB_SSLMODE"):
            if setting in os.environ:
                environ[setting] = os.environ[setting]
        if not {"DB_PASSWORD", "DB_PASSWORD_FILE"} & environ.keys() and (password := _ask_for_password()):
            environ["DB_PASSWORD"] = password
        return replace(find_database(environ=environ), source="--host")


def _ask_for_password() -> str:
    """Ask on a terminal; elsewhere libpq looks in PGPASSWORD and ~/.pgpass."""
    import getpass
    import os
    import sys

    if "PGPASSWORD" in os.environ or not sys.stdin.isatty():
        return ""
    return getpass.getpass("Password: ")


def _first(one: Any, other: Any) -> Any:
    return other if one is None else one


_ANNOTATIONS: dict[str, Any] = {
    "database_url": Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="The database; RAG_MIGRATION_DATABASE_URL, DATABASE_URL, DB_HOST or .env by default.",
        ),
    ],
    "host": Annotated[str | None, typer.Option(help="The server, instead of a URL; asks for the password.")],
    "port": Annotated[int | None, typer.Option(help="With --host; 5432 by default.")],
    "dbname": Annotated[
        str | None, typer.Option("--dbname", "--database", help="With --host; postgres by default.")
    ],
    "user": Annotated[str | None, typer.Option(help="With --host; postgres by default.")],
    "schema": Annotated[
        str | None,
        typer.Option(help="The schema of the tables; RAG_SCHEMA or the search_path's first by default."),
    ],
    "role": Annotated[str | None, typer.Option(help="SET ROLE to this after the login.")],
    "wait": Annotated[
        float | None, duration("--wait", help="Wait this long for a server that is still starting.")
    ],
}


def takes_target(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `Target`, and itself a `Target` as the argument ``target``."""
    signature = inspect.signature(command, eval_str=True)
    own = [parameter for parameter in signature.parameters.values() if parameter.name != "target"]

    @functools.wraps(command)
    def wrapper(context: typer.Context, **arguments: Any) -> None:
        target = Target(**{name: arguments.pop(name) for name in _ANNOTATIONS})
        if isinstance(context.obj, Target):
            target = target.over(context.obj)
        context.obj = target
        command(
            target=target, **({"context": context} if "context" in signature.parameters else {}), **arguments
        )

    shared = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        for name, annotation in _ANNOTATIONS.items()
    ]
    first = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    parameters = [first, *(parameter for parameter in own if parameter.name != "context")]
    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters] + shared
    wrapper.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return wrapper
