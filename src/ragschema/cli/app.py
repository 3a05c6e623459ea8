"""The application that Typer runs as ``rag``: its groups of commands, its errors, its exit codes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from typing import Any, NoReturn, cast

import typer
import typer.main
from typer.core import TyperGroup

from ragschema.cli import output
from ragschema.cli.commands import Command, Group, show_alike
from ragschema.cli.exit_codes import EXIT_CODES
from ragschema.errors import RagSchemaError

_HELP = ("-h", "--help")
_GROUPS = {  # the modules of each, of which the first has it
    "migrate": ("migrate", "author", "inspect", "plan", "upkeep"),
    "db": ("db",),
    "jobs": ("jobs",),
    "models": ("models",),
    "index": ("index",),
    "documents": ("documents",),
    "chat": ("chat",),
    "collections": ("collections",),
    "tenants": ("tenants", "fleet"),
    "graph": ("graph",),
}


@cache
def _group(name: str) -> typer.Typer:
    """Load a group with its commands."""
    group, *_ = [import_module(f"ragschema.cli.{module}").app for module in _GROUPS[name]]
    inner = []
    if name == "jobs":
        inner = [import_module("ragschema.cli.schedules").app]
        group.add_typer(inner[0], name="schedule")
    show_alike(group, *inner)
    return cast("typer.Typer", group)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(version("ragschema"))
        raise typer.Exit


def rag(
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    """Nothing of its own: see the commands."""


def _app_of(groups: Sequence[str]) -> typer.Typer:
    made = typer.Typer(
        name="rag",
        help="The PostgreSQL schema of a RAG system: migrate it, look at it, try it without a server, run its queue,"
        " change its embedding models, keep its vector indexes good, delete documents, prune conversations, divide"
        " the corpus, keep a graph, make tenants, grant rights.",
        epilog=EXIT_CODES,
        no_args_is_help=True,
        cls=Group,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": [*_HELP]},
    )
    made.callback()(rag)
    for name in groups:
        made.add_typer(_group(name), name=name, epilog=EXIT_CODES)
    return made


@cache
def whole_app() -> typer.Typer:
    """Return the application with all its commands."""
    from ragschema.cli.grants import grants
    from ragschema.cli.importing import import_

    made = _app_of([*_GROUPS])
    made.command("import", cls=Command, epilog=EXIT_CODES)(import_)
    made.command("grants", cls=Command, epilog=EXIT_CODES)(grants)
    return made


def _command_of(arguments: Sequence[str]) -> Any:
    """Return what is to parse a command line: with the group that it names alone, where all its words are known there.

    To load and to make the others takes a third of a short command. What is not known may be a word of theirs.
    """
    if arguments and arguments[0] in _GROUPS:
        command = typer.main.get_command(_app_of(arguments[:1]))
        if _knows(command, arguments):
            return command
    return typer.main.get_command(whole_app())


def _knows(command: Any, arguments: Sequence[str]) -> bool:
    """Whether the words of a command line lead to a command, to its help, or to that of its group."""
    for word in arguments:
        if word in _HELP or not isinstance(command, TyperGroup):
            return True
        if word not in command.commands:
            return False
        command = command.commands[word]
    return True


def run() -> NoReturn:
    """Run ``rag``; an error is one sentence, one remedy and its evidence, on standard error."""
    try:
        _command_of(sys.argv[1:])()
    except RagSchemaError as exc:
        if output.wants_traceback():
            raise
        output.print_error(exc)
        sys.exit(exc.exit_code)
    sys.exit(0)
