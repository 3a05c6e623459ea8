"""``rag migrate``: its default action is the upgrade."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from ragschema.cli.output import (
    DatabaseUrl,
    Debug,
    Json,
    Yes,
    confirm,
    print_json,
    print_table,
    show_progress,
)
from ragschema.errors import UsageError

if TYPE_CHECKING:
    from ragschema.environment import Applied
    from ragschema.migrations import Result

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)


@app.callback(invoke_without_command=True)
def migrate(
    context: typer.Context,
    to: Annotated[str, typer.Option(metavar="REVISION", help="Stop at this revision.")] = "head",
    sql: Annotated[
        bool, typer.Option("--sql", help="Print the SQL instead of running it; no database.")
    ] = False,
    start: Annotated[
        str, typer.Option("--from", metavar="REVISION", help="With --sql: start here.")
    ] = "base",
    database_url: DatabaseUrl = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Upgrade the database to head, or do one of the commands below.

    Each revision runs in a transaction of its own. One deployer runs at a time, the others wait. At head it
    says so and exits 0.
    """
    show_progress()
    if context.invoked_subcommand is not None:
        if to != "head" or sql or start != "base" or json:
            raise UsageError(
                f"Options between `migrate` and `{context.invoked_subcommand}` belong to the upgrade.",
                f"Write them after `{context.invoked_subcommand}`.",
            )
        context.obj = database_url
        return
    from ragschema import migrations

    if sql:
        typer.echo(migrations.upgrade_sql(to, start=start), nl=False)
        return
    if start != "base":
        raise UsageError("--from goes with --sql.", "An upgrade starts where the database is.")
    result = migrations.upgrade(database_url, to, report=None if json else _print_applied)
    _print_result(result, json=json)


@app.command()
def status(
    context: typer.Context, database_url: DatabaseUrl = None, json: Json = False, debug: Debug = False
) -> None:
    """Say where the database stands: current revision, head, and what is pending. Reads only."""
    from ragschema import migrations

    found = migrations.status(database_url or context.obj)
    if json:
        print_json(asdict(found))
        return
    rows = [("state", found.state, ""), ("current", found.current or "none", ""), ("head", found.head, "")]
    rows += [("pending", revision.revision, revision.summary) for revision in found.pending]
    print_table(("", "revision", "summary"), rows)


@app.command()
def history(
    context: typer.Context, database_url: DatabaseUrl = None, json: Json = False, debug: Debug = False
) -> None:
    """List every revision, oldest first, and whether the database has it. Reads only."""
    from ragschema import migrations

    entries = migrations.history(database_url or context.obj)
    if json:
        print_json([asdict(entry) for entry in entries])
        return
    print_table(
        ("revision", "", "summary"),
        [(entry.revision, "applied" if entry.is_applied else "pending", entry.summary) for entry in entries],
    )


@app.command(context_settings={"ignore_unknown_options": True})
def rollback(
    context: typer.Context,
    revision: Annotated[str, typer.Argument(metavar="REVISION|-N|base", help="The revision that stays.")],
    yes: Yes = False,
    allow_data_loss: Annotated[
        bool, typer.Option("--allow-data-loss", help="Destroy the rows and values that the refusal names.")
    ] = False,
    database_url: DatabaseUrl = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Reverse the revisions after REVISION, newest first; refuses to destroy rows."""
    from ragschema import migrations

    confirm(f"Reverse every revision after {revision}?", yes=yes)
    result = migrations.downgrade(
        database_url or context.obj,
        revision,
        allow_data_loss=allow_data_loss,
        report=None if json else _print_applied,
    )
    _print_result(result, json=json)


@app.command()
def create(
    context: typer.Context,
    message: Annotated[str, typer.Argument(help="What the revision does, in a few words.")],
    autogenerate: Annotated[
        bool, typer.Option("--autogenerate", help="Draft it from the models and a database at head.")
    ] = False,
    database_url: DatabaseUrl = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Write a new revision, in a checkout."""
    from ragschema import migrations

    path = migrations.create(message, with_autogenerate=autogenerate, database=database_url or context.obj)
    if json:
        print_json({"path": str(path) if path else None})
    elif path is None:
        typer.echo("Nothing to do: the models and the database do not differ.")
    else:
        typer.echo(path)


def _print_applied(applied: Applied) -> None:
    typer.echo(f"{applied.direction} {applied.revision}  {applied.summary}  ({applied.seconds:.2f} s)")


def _print_result(result: Result, *, json: bool) -> None:
    where = f"at {result.current}" if result.current else "at base"
    if json:
        print_json(asdict(result))
    elif result.applied:
        typer.echo(f"Done: the database is {where}.")
    else:
        typer.echo(f"Nothing to do: the database is {where}.")
