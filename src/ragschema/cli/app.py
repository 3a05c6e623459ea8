"""The application that Typer runs as ``rag``: its groups of commands, its errors, its exit codes."""

from __future__ import annotations

import sys
from typing import NoReturn

import typer

from ragschema.cli import (  # noqa: F401  they fill migrate.app
    author,
    chat,
    collections,
    db,
    documents,
    grants,
    graph,
    index,
    inspect,
    jobs,
    migrate,
    models,
    output,
    plan,
    schedules,
    tenants,
    upkeep,
)
from ragschema.cli.commands import Command, Group, show_alike
from ragschema.cli.exit_codes import EXIT_CODES
from ragschema.cli.importing import import_
from ragschema.errors import RagSchemaError

app = typer.Typer(
    name="rag",
    help="The PostgreSQL schema of a RAG system: migrate it, look at it, try it without a server, run its queue,"
    " change its embedding models, keep its vector indexes good, delete documents, prune conversations, divide the"
    " corpus, keep a graph, make tenants, grant rights.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    cls=Group,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
jobs.app.add_typer(schedules.app, name="schedule")
show_alike(
    migrate.app,
    db.app,
    jobs.app,
    schedules.app,
    models.app,
    index.app,
    documents.app,
    chat.app,
    collections.app,
    tenants.app,
    graph.app,
)
app.command("import", cls=Command, epilog=EXIT_CODES)(import_)
app.add_typer(migrate.app, name="migrate", epilog=EXIT_CODES)
app.add_typer(db.app, name="db", epilog=EXIT_CODES)
app.add_typer(jobs.app, name="jobs", epilog=EXIT_CODES)
app.add_typer(models.app, name="models", epilog=EXIT_CODES)
app.add_typer(index.app, name="index", epilog=EXIT_CODES)
app.add_typer(documents.app, name="documents", epilog=EXIT_CODES)
app.add_typer(chat.app, name="chat", epilog=EXIT_CODES)
app.add_typer(collections.app, name="collections", epilog=EXIT_CODES)
app.add_typer(tenants.app, name="tenants", epilog=EXIT_CODES)
app.add_typer(graph.app, name="graph", epilog=EXIT_CODES)
app.command("grants", cls=Command, epilog=EXIT_CODES)(grants.grants)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(version("ragschema"))
        raise typer.Exit


@app.callback()
def rag(
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    """Nothing of its own: see the commands."""


def run() -> NoReturn:
    """Run ``rag``; an error is one sentence, one remedy and its evidence, on standard error."""
    try:
        app()
    except RagSchemaError as exc:
        if output.wants_traceback():
            raise
        output.print_error(exc)
        sys.exit(exc.exit_code)
    sys.exit(0)
