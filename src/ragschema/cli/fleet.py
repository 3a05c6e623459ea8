"""The commands of ``rag tenants`` that are about all of them: migrate, status, verify."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ragschema.cli.arguments import Target, Upgrade, takes_target, takes_upgrade
from ragschema.cli.exit_codes import DRIFT, FAILED, INTERRUPTED, LOCKED, PENDING, TERMINATED
from ragschema.cli.output import Debug, Json, print_json, print_table, read_or_not
from ragschema.cli.tenants import app, options_of
from ragschema.errors import UsageError
from ragschema.words import counted

if TYPE_CHECKING:
    from ragschema.database.options import Options
    from ragschema.tenants.outcomes import DatabaseFailure, FleetResult, Progress, TenantOutcome

_INTERRUPTIONS = {"SIGINT": INTERRUPTED, "SIGTERM": TERMINATED}
_SHOWN = 5  # tenants of a group that are named, where all are alike


class Order(Enum):
    """Of tenants; Typer shows these as the choices."""

    name = "name"
    size = "size"


Urls = Annotated[
    Path | None,
    typer.Option(
        "--urls", metavar="FILE", help="All tenants of many databases: a URL a line, # before a note."
    ),
]
Workers = Annotated[
    int | None,
    typer.Option("--workers", min=1, metavar="N", help="Processes for each server; one a core by default."),
]


@app.command()
@takes_target
@takes_upgrade
def migrate(
    target: Target,
    upgrade: Upgrade,
    urls: Urls = None,
    workers: Workers = None,
    canary: Annotated[
        int,
        typer.Option("--canary", min=0, metavar="N", help="First N of them, the rest only if none failed."),
    ] = 0,
    max_failures: Annotated[
        int | None,
        typer.Option("--max-failures", min=1, metavar="N", help="Begin no other after N have failed."),
    ] = None,
    order: Annotated[Order, typer.Option("--order", help="By name, or the smallest first.")] = Order.name,
    visit: Annotated[
        bool, typer.Option("--visit", help="Look at those at head too: exit 1 where one is not whole.")
    ] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Upgrade every tenant to head, each as `rag migrate` does; the failure of one stops no other.

    Names every tenant that failed or is locked, with the server's error. Exit 1 where one failed, 75 where some are
    locked and nothing else is left: run it again. Ctrl-C ends those at work, rolls back their revisions, and says so.
    """
    from ragschema.tenants.migrating import Rollout, migrate_tenants

    rollout = Rollout(
        workers,
        canary,
        max_failures,
        order.value,
        visit,
        upgrade.expand_only,
        upgrade.allow_data_loss,
        upgrade.check_drift.value,
    )
    databases = _databases(
        target,
        urls,
        lock_wait=upgrade.lock_wait,
        lock_timeout=upgrade.lock_timeout,
        retries=upgrade.retries,
        maintenance_work_mem=upgrade.maintenance_work_mem,
        parallel_workers=upgrade.parallel_workers,
    )
    with _showing() as show:
        result = migrate_tenants(databases, upgrade.to or "head", rollout, show=show)
    if json:
        print_json(result)
    else:
        _print_result(result)
    if result.interrupted_by is not None:
        raise typer.Exit(_INTERRUPTIONS[result.interrupted_by])
    if result.has_failed:
        raise typer.Exit(FAILED)
    if result.of("locked"):
        raise typer.Exit(LOCKED)


@app.command()
@takes_target
def status(
    target: Target,
    urls: Urls = None,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit 3 where one is not at head.")] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Count the tenants at each revision; `list` names each. Exit 1 where a database could not be looked at."""
    from ragschema.tenants.standings import read_standings

    found = read_standings(_databases(target, urls))
    if json:
        print_json(found)
    else:
        print_table(
            ("revision", "", "tenants"),
            [(each.revision or "none", each.standing, each.tenants) for each in found.counts],
        )
        typer.echo(f"{counted(found.total, 'tenant')}; head is {found.head}.")
        _print_failures(found.failures)
    if found.failures:
        raise typer.Exit(FAILED)
    if exit_code and any(each.standing != "at head" for each in found.counts):
        raise typer.Exit(PENDING)


@app.command()
@takes_target
def verify(
    target: Target, urls: Urls = None, workers: Workers = None, json: Json = False, debug: Debug = False
) -> None:
    """Compare every tenant with what its revision says; those that differ alike stand together. Exit 4 on drift."""
    from ragschema.tenants.verifying import verify_tenants

    with _showing() as show:
        found = verify_tenants(_databases(target, urls), workers=workers, show=show)
    if json:
        print_json(found)
    else:
        for group in found.groups:
            verb = "is as its revision says" if group.count == 1 else "are as their revisions say"
            if not group.differences:
                typer.echo(f"{counted(group.count, 'tenant')} {verb}.")
                continue
            more = f", and {group.count - _SHOWN} more" if group.count > _SHOWN else ""
            typer.echo(
                f"{counted(group.count, 'tenant')} with the same drift: {', '.join(group.tenants[:_SHOWN])}{more}"
            )
            for line in group.differences:
                typer.echo(f"  drift: {line}")
        for each in found.unverified:
            typer.echo(f"{each.schema} in {each.database} could not be compared: {each.error}")
        _print_failures(found.databases)
    if found.interrupted_by is not None:
        raise typer.Exit(_INTERRUPTIONS[found.interrupted_by])
    if found.unverified or found.databases:
        raise typer.Exit(FAILED)
    if found.drifted:
        raise typer.Exit(DRIFT)


def _databases(target: Target, urls: Path | None, **others: object) -> list[Options]:
    """Return the options of every database.

    Raises:
        UsageError: A database is named beside the file.
    """
    if urls is None:
        return [options_of(target, **others)]
    if any((target.database_url, target.host, target.schema)):
        raise UsageError("--urls names the databases.", "Leave out --database-url, --host and --schema.")
    from ragschema.database.options import find_options
    from ragschema.tenants.databases import read_urls

    told = {"role": target.role, "wait": target.wait, **others}
    return [
        replace(find_options(database, **told), schema=None, application_name="rag tenants")  # type: ignore[arg-type]
        for database in read_urls(urls)
    ]


@contextmanager
def _showing() -> Iterator[Callable[[Progress], None]]:
    """Yield what shows the progress: a bar with the time left on a terminal, elsewhere a line for each tenth."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
        bars = Bars(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False)
        bar = bars.add_task("", total=None)

        def draw(progress: Progress) -> None:
            with read_or_not():
                bars.start()  # not before: it starts a thread, and the workers are forked
                bars.update(
                    bar, completed=progress.done, total=progress.total, description=_describe(progress)
                )

        try:
            yield draw
        finally:
            with read_or_not():
                bars.stop()
        return
    tenth = 0

    def say(progress: Progress) -> None:
        nonlocal tenth
        if progress.total >= _SHOWN * 4 and progress.done * 10 // progress.total > tenth:
            tenth = progress.done * 10 // progress.total
            left = f", about {progress.remaining:.0f} s left" if progress.remaining else ""
            with read_or_not():
                typer.echo(
                    f"{progress.done} of {progress.total} tenants{_describe(progress)}{left}", err=True
                )

    yield say


def _describe(progress: Progress) -> str:
    parts = [f"{progress.failed} failed"] * bool(progress.failed) + [f"{progress.locked} locked"] * bool(
        progress.locked
    )
    return "".join(f", {part}" for part in parts)


def _print_result(result: FleetResult) -> None:
    for each in result.of("failed", "locked", "interrupted", "dropped"):
        _print_outcome(each)
    if waiting := result.of("not started"):
        named = ", ".join(each.schema for each in waiting[:_SHOWN])
        typer.echo(f"not started: {named}{', ...' if len(waiting) > _SHOWN else ''}")
    _print_failures(result.databases)
    counts = ", ".join(f"{count} {fate}" for fate, count in result.counts.items()) or "no tenants"
    seconds = result.seconds
    migrated = result.counts.get("migrated", 0)
    if not migrated and result.counts and set(result.counts) == {"up to date"}:
        typer.echo(
            f"Nothing to do: {counted(len(result.tenants), 'tenant')} at {result.target} ({seconds:.1f} s)."
        )
        return
    pace = f", {migrated / seconds:.0f} a second" if migrated and seconds else ""
    typer.echo(f"To {result.target}: {counts} ({seconds:.1f} s{pace}).")
    if result.of("failed", "locked", "interrupted", "not started"):
        typer.echo("Run the same command again: it goes on with those that are left.")


def _print_outcome(outcome: TenantOutcome) -> None:
    typer.echo(f"{outcome.fate}: {outcome.name}{f': {outcome.error}' if outcome.error else ''}")
    for line in (outcome.evidence or "").splitlines():
        typer.echo(f"  {line}")


def _print_failures(failures: Sequence[DatabaseFailure]) -> None:
    for each in failures:
        typer.echo(f"not looked at: {each.database}: {each.error}")
        for line in (each.evidence or "").splitlines():
            typer.echo(f"  {line}")
