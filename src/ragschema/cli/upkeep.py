"""Commands of ``rag migrate`` that move a database in, prepare it, and heal it."""

from __future__ import annotations

from typing import Annotated

import typer

from ragschema.cli.arguments import Target, takes_target
from ragschema.cli.commands import CHANGE
from ragschema.cli.migrate import app
from ragschema.cli.output import Debug, Json, print_json


@app.command(rich_help_panel=CHANGE)
@takes_target
def adopt(
    target: Target,
    baseline: Annotated[
        str | None,
        typer.Option(
            metavar="REVISION", help="The revision it is at; MIGRATE_BASELINE_VERSION, or found, by default."
        ),
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Take over a database made by Atlas, by hand or by create_all: finds its revision and stamps it."""
    from ragschema import migrations

    adoption = migrations.adopt(target.options(), baseline=baseline)
    if json:
        print_json(adoption)
    elif adoption.was_managed:
        typer.echo(f"Nothing to do: the database says it is at {adoption.revision}.")
    else:
        for difference in adoption.drift.repaired_later if adoption.drift else ():
            typer.echo(f"A later revision repairs: {difference}")
        for note in adoption.drift.notes if adoption.drift else ():
            typer.echo(f"Note: {note}")
        if adoption.said is not None:
            typer.echo(f"The database said {adoption.said}, and its tables are not that revision's.")
        typer.echo(f"Adopted: the database is at {adoption.revision}. Now run `rag migrate`.")


@app.command("init", rich_help_panel=CHANGE)
@takes_target
def init(
    target: Target,
    create_db: Annotated[
        bool, typer.Option("--create-db", help="Create the database too, if missing.")
    ] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Prepare a database for the first migration: extension, schema, version table, and nothing else."""
    from dataclasses import asdict

    from ragschema.migrations.preparation import prepare_database

    made = prepare_database(target.options(), with_database=create_db)
    if json:
        print_json(made)
        return
    names = [name.replace("_", " ") for name, was_made in asdict(made).items() if was_made]
    typer.echo(f"Made: {', '.join(names)}." if names else "Nothing to do: all of it is there.")


@app.command(rich_help_panel=CHANGE)
@takes_target
def repair(target: Target, json: Json = False, debug: Debug = False) -> None:
    """Heal functions made for another schema, invalid indexes, unvalidated constraints; reads and writes go on."""
    from ragschema.migrations.repair import repair as heal

    healed = heal(target.options())
    if json:
        print_json(healed)
        return
    for what, names in (
        ("moved to this schema", healed.moved),
        ("rebuilt", healed.rebuilt),
        ("dropped", healed.dropped),
        ("validated", healed.validated),
    ):
        for name in names:
            typer.echo(f"{what} {name}")
    if not (healed.moved or healed.rebuilt or healed.dropped or healed.validated):
        typer.echo(
            "Nothing to do: no invalid index, no unvalidated constraint, no function of another schema."
        )
