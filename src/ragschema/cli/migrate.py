"""``rag migrate``: its default action is the upgrade; the other verbs that change a database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ragschema.cli.arguments import Target, duration, takes_target
from ragschema.cli.output import Debug, Json, Yes, confirm, print_json, show_progress
from ragschema.errors import UsageError

if TYPE_CHECKING:
    from ragschema.migrations import Result
    from ragschema.runner import Applied

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)

To = Annotated[str, typer.Option("--to", metavar="REVISION", help="Stop at this revision.")]
ExpandOnly = Annotated[bool, typer.Option("--expand-only", help="Stop before the first contract revision.")]
LockWait = Annotated[
    float | None, duration("--wait-lock", help="Wait this long for another deployer; 5m by default.")
]
LockTimeout = Annotated[
    float | None,
    duration("--lock-timeout", help="Let a statement wait this long for a table; 2s by default."),
]
Retries = Annotated[
    int | None, typer.Option(min=0, help="Try a revision that met a lock again, this often; 10 by default.")
]
MaintenanceWorkMem = Annotated[
    str | None, typer.Option(metavar="SIZE", help="Memory for index builds, such as 2GB.")
]
ParallelWorkers = Annotated[int | None, typer.Option(min=0, help="Parallel workers of an index build.")]


@app.callback(invoke_without_command=True)
@takes_target
def migrate(
    context: typer.Context,
    target: Target,
    to: To = "head",
    expand_only: ExpandOnly = False,
    sql: Annotated[
        bool, typer.Option("--sql", help="Print the SQL instead of running it; no database.")
    ] = False,
    start: Annotated[
        str, typer.Option("--from", metavar="REVISION", help="With --sql: start here.")
    ] = "base",
    lock_wait: LockWait = None,
    lock_timeout: LockTimeout = None,
    retries: Retries = None,
    maintenance_work_mem: MaintenanceWorkMem = None,
    parallel_workers: ParallelWorkers = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Upgrade the database to head, or do one of the commands below.

    Each revision runs in a transaction of its own. One deployer runs at a time, the others wait. At head it
    says so and exits 0.
    """
    show_progress()
    if context.invoked_subcommand is not None:
        if to != "head" or expand_only or sql or start != "base" or json:
            raise UsageError(
                f"Options between `migrate` and `{context.invoked_subcommand}` belong to the upgrade.",
                f"Write them after `{context.invoked_subcommand}`.",
            )
        return
    if sql:
        from ragschema import migrations

        typer.echo(migrations.upgrade_sql(to, start=start), nl=False)
        return
    if start != "base":
        raise UsageError("--from goes with --sql.", "An upgrade starts where the database is.")
    _apply(
        target,
        to,
        expand_only,
        lock_wait,
        lock_timeout,
        retries,
        maintenance_work_mem,
        parallel_workers,
        json=json,
    )


@app.command()
@takes_target
def apply(
    target: Target,
    to: To = "head",
    expand_only: ExpandOnly = False,
    lock_wait: LockWait = None,
    lock_timeout: LockTimeout = None,
    retries: Retries = None,
    maintenance_work_mem: MaintenanceWorkMem = None,
    parallel_workers: ParallelWorkers = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Upgrade the database to head: the same as `rag migrate` alone."""
    _apply(
        target,
        to,
        expand_only,
        lock_wait,
        lock_timeout,
        retries,
        maintenance_work_mem,
        parallel_workers,
        json=json,
    )


def _apply(
    target: Target,
    to: str,
    expand_only: bool,
    lock_wait: float | None,
    lock_timeout: float | None,
    retries: int | None,
    maintenance_work_mem: str | None,
    parallel_workers: int | None,
    *,
    json: bool,
) -> None:
    from ragschema import migrations
    from ragschema.cli.progress import showing_builds

    options = target.options(
        lock_wait=lock_wait,
        lock_timeout=lock_timeout,
        retries=retries,
        maintenance_work_mem=maintenance_work_mem,
        parallel_workers=parallel_workers,
    )
    report = None if json else _print_applied
    with showing_builds() as show_build:
        result = migrations.upgrade(
            options, to, expand_only=expand_only, report=report, show_build=show_build
        )
    _print_result(result, json=json)


@app.command(context_settings={"ignore_unknown_options": True})
@takes_target
def rollback(
    target: Target,
    revision: Annotated[str, typer.Argument(metavar="REVISION|-N|base", help="The revision that stays.")],
    yes: Yes = False,
    allow_data_loss: Annotated[
        bool, typer.Option("--allow-data-loss", help="Destroy the rows and values that the refusal names.")
    ] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Reverse the revisions after REVISION, newest first; refuses to destroy rows."""
    from ragschema import migrations

    options = target.options()
    confirm(f"Reverse every revision after {revision}?", yes=yes)
    report = None if json else _print_applied
    result = migrations.downgrade(options, revision, allow_data_loss=allow_data_loss, report=report)
    _print_result(result, json=json)


@app.command()
@takes_target
def stamp(
    target: Target,
    revision: Annotated[str, typer.Argument(help="The revision to say the database is at.")],
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Say which revision the database is at, without running any. `adopt` finds out and checks it for you."""
    from ragschema import migrations

    result = migrations.stamp(target.options(), revision)
    if json:
        print_json(result)
    else:
        typer.echo(f"Stamped: the database is at {result.current or 'base'}.")


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
