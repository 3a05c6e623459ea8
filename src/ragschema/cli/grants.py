"""The command ``rag grants``: the rights of services on our tables, as SQL, or executed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ragschema.cli.arguments import Target, takes_target
from ragschema.cli.output import Debug, Json, print_json, show_progress
from ragschema.words import counted

if TYPE_CHECKING:
    from ragschema.migrations.grants import Grants


@takes_target
def grants(
    target: Target,
    app: Annotated[
        str | None,
        typer.Option("--app", metavar="ROLE", help="The role that publishes, searches and works the queue."),
    ] = None,
    read_only: Annotated[
        str | None,
        typer.Option("--read-only", metavar="ROLE", help="The role that searches, and writes nothing."),
    ] = None,
    apply: Annotated[
        bool, typer.Option("--apply", help="Execute them, in one transaction, and say what has changed.")
    ] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Print the SQL that lets services use our tables, those of later revisions too, and no more than that."""
    from ragschema.migrations.grants import apply_grants, find_grants

    show_progress()
    found = (apply_grants if apply else find_grants)(target.options(), app=app, read_only=read_only)
    if json:
        print_json(found)
    elif apply:
        _print_applied(found)
    else:
        for statement in found.statements:
            typer.echo(statement)
        for role in found.missing_roles:
            typer.echo(f"There is no role {role} yet.", err=True)
        typer.echo(
            f"Nothing was applied. Run these as {found.migrator} or a superuser, or add --apply.", err=True
        )


def _print_applied(found: Grants) -> None:
    if not found.changed:
        typer.echo("Nothing to do: the roles have all of these rights already.")
        return
    for statement in found.changed:
        typer.echo(statement)
    passed = len(found.statements) - len(found.changed)
    typer.echo(
        f"Applied {counted(len(found.changed), 'statement')}, as above; {passed} more had nothing to change."
    )
