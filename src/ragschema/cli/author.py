"""Commands of ``rag migrate`` for those who write revisions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ragschema.cli.arguments import Target, takes_target
from ragschema.cli.commands import WRITE
from ragschema.cli.exit_codes import DRIFT, FAILED, FINDINGS
from ragschema.cli.migrate import app
from ragschema.cli.output import Debug, Json, print_json
from ragschema.words import counted

if TYPE_CHECKING:
    from ragschema.revisions.checks import Problem


@app.command(rich_help_panel=WRITE)
@takes_target
def create(
    target: Target,
    message: Annotated[str, typer.Argument(help="What the revision does, in a few words.")],
    autogenerate: Annotated[
        bool,
        typer.Option(
            "--autogenerate",
            help="Draft it from the models and a database at head: a scratch one where none is set.",
        ),
    ] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Write a new revision, in a checkout."""
    from ragschema.authoring.create import create

    database = target.options() if autogenerate else None
    path = create(message, with_autogenerate=autogenerate, database=database)
    if json:
        print_json({"path": path})
    elif path is None:
        typer.echo("Nothing to do: the models and the database do not differ.")
    else:
        typer.echo(path)


@app.command("hash", rich_help_panel=WRITE)
def hash_(json: Json = False, debug: Debug = False) -> None:
    """Write rag.sum and HEAD anew from the files of the revisions, and say what changed."""
    from dataclasses import asdict

    from ragschema.revisions.sums import write_sum

    change = write_sum()
    if json:
        print_json(change)
        return
    named = [(what, name) for what in ("added", "changed", "removed") for name in asdict(change)[what]]
    for what, name in named:
        typer.echo(f"{what} {name}")
    if not change:
        typer.echo("Nothing to do: rag.sum fits the files.")
    elif change.is_damaged:
        typer.echo("rag.sum itself was damaged, and is written anew.")


@app.command(rich_help_panel=WRITE)
def freeze(
    check: Annotated[bool, typer.Option("--check", help="Only name those that are stale; exit 1.")] = False,
    release: Annotated[
        bool, typer.Option("--release", help="Write this version's head to releases.json, too.")
    ] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Write every file anew that is derived from the revisions and the models, in a checkout."""
    from ragschema.authoring.snapshots import freeze

    frozen = freeze(check=check, release=release)
    if json:
        print_json(frozen)
    for name in () if json else frozen.changed:
        typer.echo(f"{'stale' if check else 'changed'} {name}")
    if not frozen.changed and not json:
        typer.echo("Nothing to do: the derived files fit the revisions and the models.")
    if frozen.changed and check:
        typer.echo("Run `uv run rag migrate freeze`, and review what it changes.", err=True)
        raise typer.Exit(FAILED)


@app.command("syntax-check", rich_help_panel=WRITE)
def syntax_check(json: Json = False, debug: Debug = False) -> None:
    """Check the files of the revisions, without a database. Exit 1 when something is wrong."""
    _report(_problems_of_files(), json=json)


@app.command(rich_help_panel=WRITE)
@takes_target
def validate(target: Target, json: Json = False, debug: Debug = False) -> None:
    """Check the files of the revisions and, where a database is set, that they are what was applied to it.

    Exit 1 when something is wrong, 4 on drift.
    """
    problems = _problems_of_files()
    has_drift = False
    if _names_a_database(target):
        found, has_drift = _problems_of_database(target)
        problems += found
    _report(problems, json=json, code=DRIFT if has_drift else FAILED)


@app.command(rich_help_panel=WRITE)
def lint(
    revisions: Annotated[list[str] | None, typer.Argument(metavar="[REVISION]...")] = None,
    citus: Annotated[
        bool, typer.Option("--citus", help="Look for what Citus refuses of a tenant's schema, too.")
    ] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Look for what is unsafe on tables with rows: squawk on the SQL, and rules of our own. Exit 5 on findings."""
    from ragschema.authoring.lint import lint as find

    findings = find(revisions or None, citus=citus)
    if json:
        print_json({"findings": findings})
    else:
        for finding in findings:
            typer.echo(f"{finding}\n")
        typer.echo(f"{counted(len(findings), 'finding')}." if findings else "No findings.")
    if findings:
        raise typer.Exit(FINDINGS)


def _problems_of_files() -> list[Problem]:
    from ragschema.revisions.checks import validate as check

    return check()


def _problems_of_database(target: Target) -> tuple[list[Problem], bool]:
    """Return what is wrong with the database, and whether that is drift."""
    from ragschema import migrations
    from ragschema.revisions.checks import Problem

    options = target.options()
    status = migrations.status(options)
    problems = [
        Problem(
            "database", None, f"Revision {revision} was edited after it was applied.", "Restore its file."
        )
        for revision in status.edited
    ]
    if status.current is None or status.state == "AHEAD":
        return problems, False
    drift = migrations.verify(options)
    remedy = "Run `rag migrate verify`, and mend it in SQL."
    problems += [Problem("database", None, f"Drift: {each}", remedy) for each in drift.lines()]
    return problems, not drift.is_clean


def _names_a_database(target: Target) -> bool:
    return target != Target() or target.options().database.embedded is None


def _report(problems: list[Problem], *, json: bool, code: int = FAILED) -> None:
    if json:
        print_json({"problems": problems})
    else:
        for problem in problems:
            typer.echo(problem)
        typer.echo(f"{counted(len(problems), 'problem')}." if problems else "Nothing is wrong.")
    if problems:
        raise typer.Exit(code)
