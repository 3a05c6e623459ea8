"""Commands and groups as they stand in ``--help``, and what they say to the words of other programs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperCommand, TyperGroup

from ragschema.cli.words import find_command, find_option, find_warning
from ragschema.errors import UsageError

if TYPE_CHECKING:
    from typer._click import Command as AnyCommand  # typer's own copy of click, of which these are types only
    from typer._click import Context
    from typer._click import HelpFormatter as Formatter

CHANGE = "Commands that change a database"
LOOK = "Commands that only look"
WRITE = "Commands for those who write revisions"
WHICH = "Which database"
HOW = "How to upgrade"


class Command(TyperCommand):
    """A command whose options stand in groups."""

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        """Explain an option of another program before it is called unknown."""
        if not self.context_settings.get("allow_extra_args"):
            _refuse_foreign_options(self, ctx, args)
        return super().parse_args(ctx, args)

    def format_options(self, ctx: Context, formatter: Formatter) -> None:
        """Write the options, each group under its name."""
        _write_options(self, ctx, formatter)


class Group(TyperGroup):
    """A group that shows each command's first sentence in full."""

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        """Explain an option of another program before it is called unknown."""
        own = list(args)
        for number, word in enumerate(args):
            if word in self.commands or find_command(ctx.info_name or "", word):
                own = own[:number]
                break
        _refuse_foreign_options(self, ctx, own)
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Context, args: list[str]) -> tuple[Any, Any, list[str]]:
        """Name our command where a word of another program stands in its place.

        Raises:
            UsageError: That is so.
        """
        word, rest = args[0], args[1:]
        if word not in self.commands and (instead := self._find_instead(ctx, word, rest)):
            raise UsageError(
                f"There is no command `{ctx.command_path} {word}`.",
                f"Run `{instead}`. {find_warning(instead)}".strip(),
            )
        return super().resolve_command(ctx, args)

    def format_options(self, ctx: Context, formatter: Formatter) -> None:
        """Write the options, each group under its name, then the commands."""
        _write_options(self, ctx, formatter)
        self.format_commands(ctx, formatter)

    def format_commands(self, ctx: Context, formatter: Formatter) -> None:
        """Write each command with its first sentence, whole: the formatter wraps it."""
        panels: dict[str, list[tuple[str, str]]] = {}
        for name, command in self.commands.items():
            if not command.hidden:
                panel = getattr(command, "rich_help_panel", None) or "Commands"
                panels.setdefault(panel, []).append((name, _first_sentence(command)))
        _write_sections(formatter, panels)

    def _find_instead(self, ctx: Context, word: str, rest: list[str]) -> str | None:
        if found := find_command(ctx.info_name or "", word, rest):
            return found
        groups = ctx.find_root().command
        if not isinstance(groups, TyperGroup):
            return None
        for name, group in groups.commands.items():  # another group's word
            if isinstance(group, TyperGroup) and word in group.commands:
                return " ".join(["rag", name, word, *rest])
        if word in groups.commands:
            return " ".join(["rag", word, *rest])
        return find_command("migrate", word, rest)


def show_alike(*apps: typer.Typer) -> None:
    """Give every command of some groups the class of this module."""
    for app in apps:
        for each in app.registered_commands:
            each.cls = Command


def _refuse_foreign_options(command: AnyCommand, ctx: Context, args: Iterable[str]) -> None:
    known = {name for param in command.get_params(ctx) for name in (*param.opts, *param.secondary_opts)}
    for argument in args:
        if argument == "--":
            return
        name = argument.partition("=")[0]
        if name.startswith("-") and name not in known and (instead := find_option(str(ctx.info_name), name)):
            raise UsageError(f"`{ctx.command_path}` has no option {name}.", instead)


def _write_options(command: AnyCommand, ctx: Context, formatter: Formatter) -> None:
    panels: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
    for param in command.get_params(ctx):
        if (record := param.get_help_record(ctx)) is not None:
            default = "Arguments" if param.param_type_name == "argument" else "Options"
            panels.setdefault(getattr(param, "rich_help_panel", None) or default, []).append(record)
    _write_sections(formatter, panels)


def _write_sections(formatter: Formatter, panels: dict[str, list[tuple[str, str]]]) -> None:
    for name, rows in panels.items():
        if rows:
            with formatter.section(name):
                formatter.write_dl(rows)


def _first_sentence(command: AnyCommand) -> str:
    paragraph = " ".join((command.help or "").partition("\n\n")[0].split())
    sentence, stop, _ = paragraph.partition(". ")
    return sentence + "." if stop else paragraph
