"""The command ``rag migrate``, whose default action is the upgrade, and those under it that change a database."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ragschema.cli.arguments import Target, Upgrade, takes_target, takes_upgrade
from ragschema.cli.commands import CHANGE, Group
from ragschema.cli.output import Debug, Json, Yes, confirm, print_json, show_progress
from ragschema.errors import DataLossRefused, UsageError
from ragschema.words import counted

if TYPE_CHECKING:
    from ragschema.migrations import Result
    from ragschema.migrations.request import Applied
    from ragschema.planning.rollback import Rollback

app = typer.Typer(cls=Group, rich_markup_mode=None, pretty_exceptions_enable=False)

PlanFile = Annotated[
    Path | None,
    typer.Option(
        "--plan", metavar="FILE", help="Run what `plan --out FILE` planned, if nothing has moved since."
    ),
]


@app.callback(invoke_without_command=True)
@takes_target
@takes_upgrade
def migrate(
    context: typer.Context,
    target: Target,
    upgrade: Upgrade,
    sql: Annotated[
        bool, typer.Option("--sql", help="Print the SQL instead of running it; no database.")
    ] = False,
    start: Annotated[
        str, typer.Option("--from", metavar="REVISION", help="With --sql: start here.")
    ] = "base",
    plan: PlanFile = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Upgrade the database to head, or do one of the commands below.

    Each revision runs in a transaction of its own; in an empty schema the head script makes everything in one.
    One deployer runs at a time, the others wait. At head it says so and exits 0. --expand-only passes over contract
    revisions; the next run without it runs them first.
    Have a backup before contract revisions and before a rollback: `status` shows the pg_dump line.
    """
    show_progress()
    if context.invoked_subcommand is not None:
        if upgrade != Upgrade() or sql or start != "base" or plan or json:
            raise UsageError(
                f"Options between `migrate` and `{context.invoked_subcommand}` belong to the upgrade.",
                f"Write them after `{context.invoked_subcommand}`.",
            )
        return
    if sql:
        if plan is not None:
            raise UsageError("--sql and --plan do not go together.", "The plan has its SQL in it.")
        from ragschema import migrations

        typer.echo(migrations.upgrade_sql(upgrade.to or "head", start=start), nl=False)
        return
    if start != "base":
        raise UsageError("--from goes with --sql.", "An upgrade starts where the database is.")
    _apply(target, upgrade, plan, json=json)


@app.command(rich_help_panel=CHANGE)
@takes_target
@takes_upgrade
def apply(
    target: Target, upgrade: Upgrade, plan: PlanFile = None, json: Json = False, debug: Debug = False
) -> None:
    """Upgrade the database to head: the same as `rag migrate` alone."""
    _apply(target, upgrade, plan, json=json)


def _apply(target: Target, upgrade: Upgrade, plan: Path | None, *, json: bool) -> None:
    from ragschema import migrations
    from ragschema.cli.progress import showing_builds

    planned = check = None
    if plan is not None:
        if upgrade.to is not None or upgrade.expand_only or upgrade.replay:
            raise UsageError(
                "The plan says where to stop, and how.",
                "Leave out --to, --expand-only and --replay, or --plan.",
            )
        from ragschema.planning.document import read_plan
        from ragschema.planning.plan import check_plan, refuse_overtaken

        planned = read_plan(plan)
        check = partial(check_plan, planned)
    options = target.options(
        makes_server=True,
        lock_wait=upgrade.lock_wait,
        lock_timeout=upgrade.lock_timeout,
        retries=upgrade.retries,
        maintenance_work_mem=upgrade.maintenance_work_mem,
        parallel_workers=upgrade.parallel_workers,
    )
    with showing_builds() as show_build:
        result = migrations.upgrade(
            options,
            "head"
            if planned and planned.is_creation
            else planned.target
            if planned
            else upgrade.to or "head",
            expand_only=planned.expand_only if planned else upgrade.expand_only,
            check=check,
            report=None if json else _print_applied,
            show_build=show_build,
            check_drift=upgrade.check_drift.value,
            allow_data_loss=upgrade.allow_data_loss,
            replay=upgrade.replay,
        )
    if planned is not None:
        refuse_overtaken(planned, result.applied, result.current)
    _print_result(result, json=json)


@app.command(context_settings={"ignore_unknown_options": True}, rich_help_panel=CHANGE)
@takes_target
def rollback(
    target: Target,
    revision: Annotated[
        str | None, typer.Argument(metavar="REVISION|-N|base", help="The revision that stays.")
    ] = None,
    to_version: Annotated[
        str | None,
        typer.Option(metavar="VERSION", help="Or the package version whose head stays, such as 0.3."),
    ] = None,
    yes: Yes = False,
    allow_data_loss: Annotated[
        bool, typer.Option("--allow-data-loss", help="Destroy the rows and values that the refusal names.")
    ] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Reverse the revisions after REVISION, newest first; refuses to destroy rows."""
    from ragschema import migrations
    from ragschema.database.connections import held_reachable
    from ragschema.planning.rollback import check_rollback

    if (revision is None) == (to_version is None):
        raise UsageError("Say how far to go back.", "Give a REVISION, -N or base; or --to-version VERSION.")
    from ragschema.revisions.manifest import revision_of_release

    if revision is not None and revision.startswith("-") and not revision[1:].isdecimal():
        raise UsageError(f"`rag migrate rollback` has no option {revision}.", "See --help.")
    asked = revision = revision or revision_of_release(to_version or "")
    report = None if json else _print_applied
    with held_reachable(target.options()) as options:
        foreseen = migrations.foresee_rollback(options, revision)
        options, check = replace(options, is_announced=True), partial(check_rollback, foreseen)
        if foreseen.reversals:
            revision = foreseen.target or "base"  # -1 may be another one after the question
            _print_foreseen(foreseen)
            confirm(f"Reverse every revision after {asked}?", yes=yes)
        try:
            result = migrations.downgrade(options, revision, report=report, check=check)
        except DataLossRefused as exc:
            if not allow_data_loss:
                raise
            typer.echo(f"This destroys:\n{exc.evidence}", err=True)
            confirm("Destroy it?", yes=yes)
            result = migrations.downgrade(options, revision, allow_data_loss=True, report=report, check=check)
    _print_result(result, json=json)


def _print_foreseen(foreseen: Rollback) -> None:
    stays = f"revision {foreseen.target}" if foreseen.target else "base, without our tables"
    lines = [
        f"In {foreseen.database}, schema {foreseen.schema}, which is at {foreseen.current}, this reverses"
        f" {counted(len(foreseen.reversals), 'revision')}, newest first, down to {stays}:"
    ]
    for each in foreseen.reversals:
        effect = "" if each.losses else ": was never run" if each.is_owed else ": destroys no rows"
        lines.append(f"  {each.revision}  {each.summary}{effect}")
        lines += [f"    destroys {loss}" for loss in each.losses]
    lines.append(f"A backup first: {foreseen.backup}")
    typer.echo("\n".join(lines), err=True)


@app.command(rich_help_panel=CHANGE)
@takes_target
def stamp(
    target: Target,
    revision: Annotated[str, typer.Argument(help="The revision to say the database is at.")],
    force: Annotated[
        bool, typer.Option("--force", help="Stamp it although the tables are not that revision's.")
    ] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Say which revision the database is at, without running any; compares the tables first.

    `adopt` finds the revision that fits, also where a wrong one was stamped.
    """
    from ragschema import migrations

    result = migrations.stamp(target.options(), revision, force=force)
    if json:
        print_json(result)
    else:
        typer.echo(f"Stamped: the database is at {result.current or 'base'}.")
        _print_owed(result)


def _print_applied(applied: Applied) -> None:
    typer.echo(f"{applied.direction} {applied.revision}  {applied.summary}  ({applied.seconds:.2f} s)")


def _print_result(result: Result, *, json: bool) -> None:
    where = f"at {result.current}" if result.current else "at base"
    if json:
        print_json(result)
    elif result.applied:
        typer.echo(f"Done: the database is {where}.")
    else:
        typer.echo(f"Nothing to do: the database is {where}.")
    if not json:
        _print_owed(result)


def _print_owed(result: Result) -> None:
    from ragschema.revisions.manifest import describe_ids
    from ragschema.state.owed import AFTER_THE_CODE

    if result.owed:
        typer.echo(f"Held back: {describe_ids(result.owed)}. {AFTER_THE_CODE}")
