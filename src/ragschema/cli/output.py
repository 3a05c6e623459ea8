"""Output of commands: data on standard output, progress on standard error, tables only on a terminal."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import typer

from ragschema.cli.exit_codes import INTERRUPTED
from ragschema.errors import RagSchemaError, UsageError

_is_debugging = False


def set_debug(value: bool) -> bool:
    """Remember ``--debug``; a Typer callback."""
    global _is_debugging
    _is_debugging = _is_debugging or value
    return value


Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on standard output, nothing else.")
]
Debug = Annotated[
    bool,
    typer.Option("--debug", callback=set_debug, expose_value=False, help="Show the traceback of an error."),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def wants_traceback() -> bool:
    """Whether ``--debug`` was given."""
    return _is_debugging


@contextmanager
def read_or_not() -> Iterator[None]:
    """Say something on standard error in the block: where nobody can read it, what is done goes on to its end."""
    try:
        yield
    except OSError:
        # its reader has ended, its disk is full, its terminal is gone: what is left of it goes nowhere
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stderr.fileno())


class _StandardError(logging.Handler):
    """Writes to standard error as it is at the time: a bar on a terminal stands in for it."""

    def emit(self, record: logging.LogRecord) -> None:
        with read_or_not():
            print(self.format(record), file=sys.stderr, flush=True)  # noqa: T201 it is what this is for


def show_progress() -> None:
    """Print what the package logs on standard error."""
    handler = _StandardError()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("ragschema")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)


def print_error(exc: RagSchemaError) -> None:
    """Print an error as a fact, a remedy and evidence."""
    typer.secho(f"Error: {exc.message}", fg="red", bold=True, err=True)
    for line in (exc.remedy, exc.evidence):
        if line:
            typer.echo(line, err=True)


def print_json(document: object) -> None:
    """Print one JSON document: dataclasses as objects, times as ISO 8601, spans of time as seconds."""
    typer.echo(json.dumps(document, indent=2, default=_plain))


def _plain(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Path | UUID):
        return str(value)
    raise TypeError(f"{type(value).__name__} is not for JSON")


def is_terminal() -> bool:
    """Whether a person reads standard output."""
    return sys.stdout.isatty()


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print rows: a table on a terminal, tab-separated elsewhere."""
    if not sys.stdout.isatty():
        for row in rows:
            typer.echo("\t".join(str(value) for value in row).rstrip("\t"))
        return
    from rich.console import Console
    from rich.table import Table

    console = Console()
    cells = [[str(value) for value in row] for row in rows]
    table = Table(box=None, pad_edge=False, header_style="bold")
    widths = fit_columns([columns, *cells], console.width - 2 * (len(columns) - 1))
    for column, width in zip(columns, widths, strict=True):
        table.add_column(column, width=width, overflow="fold")
    for row in cells:
        table.add_row(*row)
    console.print(table, markup=False)


def fit_columns(rows: Sequence[Sequence[str]], available: int) -> list[int]:
    """Return the widths of columns that share a line: short ones whole, long ones wrapped, at words.

    A word is broken only where the longest words of all columns do not fit beside each other: the longest.
    """
    columns = list(zip(*rows, strict=True))
    natural = [
        max(len(line) for cell in column for line in (cell.splitlines() or [""])) for column in columns
    ]
    minimum = [max(len(word) for cell in column for word in (cell.split() or [""])) for column in columns]
    cap = max(minimum, default=0)
    while cap > 1 and sum(min(each, cap) for each in minimum) > available:
        cap -= 1
    minimum = [min(each, cap) for each in minimum]
    widths, left = [0] * len(columns), available
    order = sorted(range(len(columns)), key=natural.__getitem__)
    for place, number in enumerate(order):
        later = sum(minimum[each] for each in order[place + 1 :])
        share = max(minimum[number], left // (len(order) - place))
        widths[number] = max(1, min(natural[number], share, left - later))
        left -= widths[number]
    return widths


def confirm(question: str, *, yes: bool) -> None:
    """Ask on a terminal; elsewhere ``--yes`` is needed.

    Raises:
        UsageError: There is no terminal to ask on, and no ``--yes``.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(
            "This asks before it changes anything, and there is no terminal to ask on.", "Add --yes."
        )
    try:
        typer.confirm(question, abort=True, err=True)
    except typer.Abort as exc:
        if isinstance(exc.__context__, KeyboardInterrupt):  # Ctrl-C is no answer
            typer.echo(err=True)
            raise typer.Exit(INTERRUPTED) from exc
        raise
