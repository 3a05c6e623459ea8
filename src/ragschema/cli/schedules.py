"""The commands ``rag jobs schedule``: jobs that come again and again."""

from __future__ import annotations

import json as json_module
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ragschema.cli.arguments import Target, duration, takes_target
from ragschema.cli.commands import Group
from ragschema.cli.jobs import queue
from ragschema.cli.output import Debug, Json, print_json, print_table
from ragschema.errors import RagSchemaError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ragschema.jobs import Schedule
    from ragschema.schema.base import Executor

app = typer.Typer(cls=Group, rich_markup_mode=None, pretty_exceptions_enable=False, no_args_is_help=True)

_TOO_LONG = 1e12  # for any schedule, and not for a timedelta

Name = Annotated[str, typer.Argument(metavar="NAME", help="The schedule; `list` shows their names.")]


@app.callback()
def schedule() -> None:
    """Enqueue jobs again and again, by the calendar or after each span of time."""


@app.command()
@takes_target
def add(
    target: Target,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name.")],
    job_type: Annotated[str, typer.Option("--type", metavar="TYPE", help="Of the jobs.")],
    payload: Annotated[str, typer.Option(metavar="JSON", help="Of the jobs, an object.")] = "{}",
    cron: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Minute, hour, day of month, month and day of week: '0 3 * * *'."),
    ] = None,
    every: Annotated[
        float | None, duration("--every", help="From one to the next, such as 15m, instead of --cron.")
    ] = None,
    timezone: Annotated[
        str, typer.Option(metavar="ZONE", help="Whose clock --cron means, such as Europe/Vienna.")
    ] = "UTC",
    priority: Annotated[int, typer.Option(metavar="N", help="Of the jobs: smaller numbers first.")] = 0,
    max_attempts: Annotated[
        int | None, typer.Option(metavar="N", help="Of the jobs: attempts; 10 by default.")
    ] = None,
    dedupe_key: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Of the jobs: while one is unfinished, the next takes its place."),
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Change the schedule of this name.")] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Add a schedule; the next worker that looks for jobs after its time enqueues one."""
    from datetime import timedelta

    from ragschema import jobs

    read = _read_payload(payload)
    with queue(target) as session:
        added = jobs.add_schedule(
            session,
            name,
            job_type,
            read,
            cron=cron,
            every=None if every is None else timedelta(seconds=min(every, _TOO_LONG)),
            timezone=timezone,
            priority=priority,
            max_attempts=max_attempts,
            dedupe_key=dedupe_key,
            replace=replace,
        )
    if json:
        print_json(added)
    else:
        typer.echo(f"added {added.name}, next at {_time(added)}")


@app.command("list")
@takes_target
def list_(target: Target, json: Json = False, debug: Debug = False) -> None:
    """List the schedules, each with the time of its next job."""
    from ragschema import jobs

    with queue(target) as session:
        found = jobs.list_schedules(session)
    if json:
        print_json({"schedules": found})
        return
    columns = ("name", "type", "when", "time zone", "next", "last enqueued", "error")
    print_table(
        columns,
        [
            (
                each.name,
                each.job_type,
                each.cron or f"every {each.every}",
                each.timezone if each.cron else "",
                "paused" if each.paused else _time(each),
                f"{each.last_enqueued_at:%Y-%m-%d %H:%M:%S %Z}" if each.last_enqueued_at else "",
                each.error_message or "",
            )
            for each in found
        ],
    )


@app.command()
@takes_target
def pause(target: Target, name: Name, json: Json = False, debug: Debug = False) -> None:
    """Enqueue nothing by a schedule until it is resumed."""
    from ragschema import jobs

    _change(target, name, jobs.pause_schedule, "paused", json=json)


@app.command()
@takes_target
def resume(target: Target, name: Name, json: Json = False, debug: Debug = False) -> None:
    """Let a paused schedule go on from now; what it has missed is not made up for."""
    from ragschema import jobs

    _change(target, name, jobs.resume_schedule, "resumed", json=json)


@app.command()
@takes_target
def remove(target: Target, name: Name, json: Json = False, debug: Debug = False) -> None:
    """Remove a schedule; the jobs that it has enqueued stay."""
    from ragschema import jobs

    _change(target, name, jobs.remove_schedule, "removed", json=json)


def _change(
    target: Target, name: str, change: Callable[[Executor, str], bool], verb: str, *, json: bool
) -> None:
    """Do to a schedule what the command says.

    Raises:
        RagSchemaError: There is none of the name, or it is so already.
    """
    from ragschema import jobs

    with queue(target) as session:
        is_changed = change(session, name)
        is_there = is_changed or name in {each.name for each in jobs.list_schedules(session)}
    if not is_changed:
        raise RagSchemaError(
            f"The schedule {name!r} is not paused."
            if is_there and verb == "resumed"
            else f"The schedule {name!r} is paused already."
            if is_there
            else f"There is no schedule {name!r}.",
            "Run `rag jobs schedule list` to see them.",
        )
    if json:
        print_json({verb: name})
    else:
        typer.echo(f"{verb} {name}")


def _read_payload(text: str) -> dict[str, Any]:
    """Return a payload of the command line.

    Raises:
        UsageError: It is no JSON object, or has a key twice.
    """

    def read(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            raise ValueError("a key is there twice")
        return made

    remedy = """Pass an object: --payload '{"article_id": "noises"}'."""
    try:
        found = json_module.loads(text, object_pairs_hook=read)
    except (ValueError, RecursionError) as exc:
        raise UsageError(f"--payload is not JSON: {exc}.", remedy) from exc
    if not isinstance(found, dict):
        raise UsageError(f"--payload is a {type(found).__name__}.", remedy)
    return found


def _time(schedule: Schedule) -> str:
    return f"{schedule.next_run_at:%Y-%m-%d %H:%M:%S %Z}"
