"""Options of every command that speaks to a database, written once."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ragschema.cli.commands import HOW, WHICH
from ragschema.errors import UsageError

if TYPE_CHECKING:
    from ragschema.database.options import Options
    from ragschema.database.settings import Database


class CheckDrift(StrEnum):
    """What to do where the database is not what its revision says."""

    fail = "fail"
    warn = "warn"
    off = "off"


_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_duration(text: str) -> float:
    """Return the seconds of a duration such as ``500ms``, ``60s``, ``5m``, ``1h`` or ``30d``."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|)", text.strip())
    if match and not match[2]:
        raise typer.BadParameter(
            f"{text!r} has no unit: write {text.strip()}s, {text.strip()}m or {text.strip()}d."
        )
    if match is None:
        raise typer.BadParameter(f"{text!r} is not a duration: write 500ms, 60s, 5m, 1h or 30d.")
    return float(match[1]) * _UNITS[match[2]]


def duration(*names: str, help: str, panel: str | None = None) -> Any:
    """Return a Typer option that takes a duration."""
    return typer.Option(*names, parser=parse_duration, metavar="DURATION", help=help, rich_help_panel=panel)


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
        from ragschema.database.options import find_options

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

        from ragschema.database.settings import find_database

        # what is left out is the default, and not what .env says of another host
        environ = {"DB_HOST": self.host, "DB_PORT": "", "DB_NAME": "", "DB_USER": ""}
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
            rich_help_panel=WHICH,
            help="The database; RAG_MIGRATION_DATABASE_URL, DATABASE_URL, DB_HOST, POSTGRES_HOST or .env by default.",
        ),
    ],
    "host": Annotated[
        str | None,
        typer.Option(
            metavar="HOST", rich_help_panel=WHICH, help="The server, instead of a URL; asks for the password."
        ),
    ],
    "port": Annotated[
        int | None, typer.Option(metavar="PORT", rich_help_panel=WHICH, help="With --host; 5432 by default.")
    ],
    "dbname": Annotated[
        str | None,
        typer.Option(
            "--dbname",
            "--database",
            metavar="NAME",
            rich_help_panel=WHICH,
            help="With --host; postgres by default.",
        ),
    ],
    "user": Annotated[
        str | None,
        typer.Option(metavar="USER", rich_help_panel=WHICH, help="With --host; postgres by default."),
    ],
    "schema": Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            rich_help_panel=WHICH,
            help="The schema of the tables; RAG_SCHEMA or the search_path's first by default.",
        ),
    ],
    "role": Annotated[
        str | None,
        typer.Option(metavar="ROLE", rich_help_panel=WHICH, help="SET ROLE to this after the login."),
    ],
    "wait": Annotated[
        float | None,
        duration("--wait", panel=WHICH, help="Wait this long for a server that is still starting."),
    ],
}


@dataclass(frozen=True)
class Upgrade:
    """How far and how carefully to upgrade; what a command line leaves out is the default of `Options`."""

    to: str | None = None
    expand_only: bool = False
    lock_wait: float | None = None
    lock_timeout: float | None = None
    retries: int | None = None
    check_drift: CheckDrift = CheckDrift.warn
    maintenance_work_mem: str | None = None
    parallel_workers: int | None = None
    allow_data_loss: bool = False
    replay: bool = False


_UPGRADE_ANNOTATIONS: dict[str, Any] = {
    "to": Annotated[
        str | None,
        typer.Option(
            "--to", rich_help_panel=HOW, metavar="REVISION", help="Stop at this revision; head by default."
        ),
    ],
    "expand_only": Annotated[
        bool,
        typer.Option(
            "--expand-only",
            rich_help_panel=HOW,
            help="Pass over contract revisions, while old code runs.",
        ),
    ],
    "replay": Annotated[
        bool,
        typer.Option(
            "--replay",
            rich_help_panel=HOW,
            help="Run every revision in its turn also in an empty schema, where the head script makes all at once.",
        ),
    ],
    "lock_wait": Annotated[
        float | None,
        duration("--wait-lock", panel=HOW, help="Wait this long for another deployer; 5m by default."),
    ],
    "lock_timeout": Annotated[
        float | None,
        duration(
            "--lock-timeout", panel=HOW, help="Let a statement wait this long for a table; 2s by default."
        ),
    ],
    "retries": Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            rich_help_panel=HOW,
            help="Try a revision that met a lock again, this often; 10 by default.",
        ),
    ],
    "check_drift": Annotated[
        CheckDrift,
        typer.Option(
            "--check-drift", rich_help_panel=HOW, help="Where the database is not what its revision says."
        ),
    ],
    "maintenance_work_mem": Annotated[
        str | None,
        typer.Option(metavar="SIZE", rich_help_panel=HOW, help="Memory for index builds, such as 2GB."),
    ],
    "parallel_workers": Annotated[
        int | None,
        typer.Option(min=0, metavar="N", rich_help_panel=HOW, help="Parallel workers of an index build."),
    ],
    "allow_data_loss": Annotated[
        bool, typer.Option("--allow-data-loss", help="Destroy the rows and values that the refusal names.")
    ],
}


def takes_target(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `Target`, and itself a `Target` as the argument ``target``."""

    def make(context: typer.Context, **arguments: Any) -> Target:
        target = Target(**arguments)
        if isinstance(context.obj, Target):  # options of the group stand for those the command leaves out
            target = target.over(context.obj)
        context.obj = target
        return target

    return _takes(command, "target", make, {name: (each, None) for name, each in _ANNOTATIONS.items()})


def takes_upgrade(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `Upgrade`, and itself an `Upgrade` as the argument ``upgrade``."""
    defaults = {field.name: field.default for field in fields(Upgrade)}
    parameters = {name: (each, defaults[name]) for name, each in _UPGRADE_ANNOTATIONS.items()}
    return _takes(command, "upgrade", lambda _context, **arguments: Upgrade(**arguments), parameters)


def _takes(
    command: Callable[..., None],
    name: str,
    make: Callable[..., object],
    shared: Mapping[str, tuple[Any, object]],
) -> Callable[..., None]:
    """Replace one parameter of a command, in the signature that Typer reads, by the options it is made of."""
    signature = inspect.signature(command, eval_str=True)
    own = [each for each in signature.parameters.values() if each.name not in (name, "context")]

    @functools.wraps(command)
    def wrapper(context: typer.Context, **arguments: Any) -> None:
        made = make(context, **{key: arguments.pop(key) for key in shared})
        passed = {"context": context} if "context" in signature.parameters else {}
        command(**passed, **{name: made}, **arguments)

    parameters = [
        inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context),
        *(each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own),
        *(
            inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
            for key, (annotation, default) in shared.items()
        ),
    ]
    wrapper.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {each.name: each.annotation for each in parameters}
    return wrapper
