"""How commands print: data on standard output, progress on standard error, tables only on a terminal."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from ragschema.errors import RagSchemaError

_debug = False


def _set_debug(value: bool) -> bool:
    global _debug
    _debug = _debug or value
    return value


DatabaseUrl = Annotated[
    str | None,
    typer.Option(help="The database; DATABASE_URL, DB_HOST ..., .env or the embedded server by default."),
]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on standard output, nothing else.")
]
Debug = Annotated[
    bool,
    typer.Option("--debug", callback=_set_debug, expose_value=False, help="Show the traceback of an error."),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def wants_traceback() -> bool:
    """Whether ``--debug`` was given."""
    return _debug


def show_progress() -> None:
    """Print what the package logs on standard error."""
    handler = logging.StreamHandler(sys.stderr)
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
    """Print one JSON document."""
    typer.echo(json.dumps(document, indent=2))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print rows: a table on a terminal, tab-separated elsewhere."""
    if not sys.stdout.isatty():
        for row in rows:
            typer.echo("\t".join(str(value) for value in row))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(str(value) for value in row))
    Console().print(table)


def confirm(question: str, *, yes: bool) -> None:
    """Ask on a terminal; elsewhere ``--yes`` is needed.

    Raises:
        UsageError: There is no terminal to ask on, and no ``--yes``.
    """
    from ragschema.errors import UsageError

    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(
            "This asks before it changes anything, and there is no terminal to ask on.", "Add --yes."
        )
    typer.confirm(question, abort=True, err=True)
