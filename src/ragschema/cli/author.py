"""The verbs of ``rag migrate`` for those who write revisions."""

from __future__ import annotations

from typing import Annotated

import typer

from ragschema.cli.arguments import Target, takes_target
from ragschema.cli.migrate import app
from ragschema.cli.output import Debug, Json, print_json


@app.command()
@takes_target
def create(
    target: Target,
    message: Annotated[str, typer.Argument(help="What the revision does, in a few words.")],
    autogenerate: Annotated[
        bool, typer.Option("--autogenerate", help="Draft it from the models and a database at head.")
    ] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Write a new revision, in a checkout."""
    from ragschema import migrations

    database = target.options() if autogenerate else None
    path = migrations.create(message, with_autogenerate=autogenerate, database=database)
    if json:
        print_json({"path": path})
    elif path is None:
        typer.echo("Nothing to do: the models and the database do not differ.")
    else:
        typer.echo(path)
