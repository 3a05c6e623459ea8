"""The command ``rag migrate plan``: what an upgrade would do, without doing it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ragschema.cli.arguments import Target, takes_target
from ragschema.cli.commands import LOOK
from ragschema.cli.exit_codes import FINDINGS
from ragschema.cli.migrate import app
from ragschema.cli.output import Debug, Json, print_json
from ragschema.words import counted

if TYPE_CHECKING:
    from ragschema.planning.document import Plan, StatementPlan

_WIDTH = 100  # characters of a statement that are shown


@app.command(rich_help_panel=LOOK)
@takes_target
def plan(
    target: Target,
    to: Annotated[
        str, typer.Option("--to", metavar="REVISION", help="Stop at this revision; head by default.")
    ] = "head",
    expand_only: Annotated[
        bool, typer.Option("--expand-only", help="Pass over contract revisions, while old code runs.")
    ] = False,
    replay: Annotated[
        bool, typer.Option("--replay", help="Plan every revision also where the head script would do.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the plan here, for `rag migrate --plan FILE`."),
    ] = None,
    fail_on_hazards: Annotated[
        bool, typer.Option("--fail-on-hazards", help="Exit 5 where there is a hazard.")
    ] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Say what an upgrade would run, what each statement locks and rewrites, and what may hurt.

    Reads only, and takes no deployer lock. With ragschema[embedded] the revisions are rehearsed on a scratch
    server that has the database's schema and no row of it; else their text is read.
    """
    from ragschema import migrations
    from ragschema.planning.document import document, write_plan

    found = migrations.plan(target.options(), to, expand_only=expand_only, replay=replay)
    if out is not None:
        write_plan(found, out)
    if json:
        print_json(document(found))
    else:
        _print(found)
    if fail_on_hazards and found.hazards_count:
        raise typer.Exit(FINDINGS)


def _print(found: Plan) -> None:
    where = f"the database is at {found.current}" if found.current else "the database is empty"
    for note in found.notes:
        typer.echo(note)
    if not found.revisions:
        typer.echo(f"Nothing to do: {where}.")
        return
    if found.notes:
        typer.echo()
    for revision in found.revisions:
        typer.echo(f"{revision.revision}  {revision.deploy}  {revision.summary}")
        if revision.method != found.method:
            typer.echo("  not rehearsed, because one before it fails: read from its text")
        for hazard in revision.hazards:
            typer.echo(f"  hazard: {hazard.kind}: {hazard.message}")
        for statement in revision.statements:
            _print_statement(statement)
        typer.echo()
    statements = sum(len(revision.statements) for revision in found.revisions)
    counts = ", ".join(
        counted(number, noun)
        for number, noun in (
            (len(found.revisions), "revision"),
            (statements, "statement"),
            (found.hazards_count, "hazard"),
        )
    )
    typer.echo(f"{counts}: {where}, the upgrade ends at {found.target} (method: {found.method}).")


def _print_statement(statement: StatementPlan) -> None:
    from ragschema.planning.hazards import describe_bytes
    from ragschema.sql.splitting import first_line

    first = first_line(statement.sql)
    is_cut = len(first) > _WIDTH or not statement.sql.rstrip().endswith(first)
    typer.echo(f"  {first[:_WIDTH].rstrip()}{' ...' if is_cut else ''}")
    for lock in statement.locks:
        rows = "rows not counted yet" if lock.rows is None else f"about {counted(lock.rows, 'row')}"
        rewrite = ", rewritten" if lock.table in statement.rewrites else ""
        typer.echo(f"    {lock.mode} on {lock.table}: {rows}, {describe_bytes(lock.bytes)}{rewrite}")
    for hazard in statement.hazards:
        typer.echo(f"    hazard: {hazard.kind}: {hazard.message}")
