"""The commands ``rag jobs``: look at the queue, retry, cancel, prune; ``rag jobs schedule`` stands beside."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from ragschema.cli.arguments import Target, duration, takes_target
from ragschema.cli.commands import Group
from ragschema.cli.connected import connected
from ragschema.cli.output import Debug, Json, print_json, print_table, show_progress
from ragschema.errors import PendingRevisions, RagSchemaError
from ragschema.words import counted

if TYPE_CHECKING:
    from datetime import timedelta

    from ragschema.models import JobStatus
    from ragschema.schema.base import Executor

_ERROR_SHOWN = 60
_BATCH = 10_000

app = typer.Typer(cls=Group, rich_markup_mode=None, pretty_exceptions_enable=False, no_args_is_help=True)

Ids = Annotated[list[UUID], typer.Argument(metavar="ID...", help="The jobs; `list` shows their ids.")]


class Status(StrEnum):
    """The status of a job, without loading the models."""

    new = "new"
    processing = "processing"
    completed = "completed"
    failed = "failed"


@app.callback()
def jobs() -> None:
    """Look at the queue of background jobs, and put it right."""
    show_progress()


@app.command()
@takes_target
def stats(target: Target, json: Json = False, debug: Debug = False) -> None:
    """Count the jobs of each type that wait, are due, run, run without a lease, or have failed."""
    from ragschema import jobs

    with queue(target) as session:
        found = jobs.stats(session)
    if json:
        print_json({"types": found})
        return
    columns = ("type", "waiting", "due", "processing", "expired", "failed", "oldest due for")
    print_table(
        columns,
        [
            (
                each.job_type,
                each.waiting,
                each.due,
                each.processing,
                each.expired,
                each.failed,
                each.oldest_age or "",
            )
            for each in found
        ],
    )


@app.command("list")
@takes_target
def list_(
    target: Target,
    status: Annotated[Status | None, typer.Option(help="Only jobs of this status.")] = None,
    job_type: Annotated[
        str | None, typer.Option("--type", metavar="TYPE", help="Only jobs of this type.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="The newest this many.")] = 50,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """List jobs, the newest first; --json has more of each, but no payload."""
    from ragschema.jobs.reports import list_jobs

    with queue(target) as session:
        found = list_jobs(session, status=_job_status(status), job_type=job_type, limit=limit)
    if json:
        print_json({"jobs": found})
        return
    columns = ("id", "type", "status", "attempts", "created", "worker", "error")
    rows = []
    for each in found:
        state = "expired" if each.is_expired else each.status
        created = f"{each.created_at:%Y-%m-%d %H:%M:%S %Z}" if each.created_at else ""
        rows.append(
            (
                each.id,
                each.job_type,
                state,
                each.attempts,
                created,
                each.worker or "",
                _last_line(each.error_message),
            )
        )
    print_table(columns, rows)


@app.command()
@takes_target
def retry(target: Target, ids: Ids, json: Json = False, debug: Debug = False) -> None:
    """Let failed jobs wait again, with all their attempts, or jobs that wait for later be due now."""
    from ragschema import jobs

    _change(target, ids, jobs.retry, "retried", json=json)


@app.command()
@takes_target
def cancel(
    target: Target,
    ids: Ids,
    reason: Annotated[str | None, typer.Option(metavar="TEXT", help="Kept with the job.")] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Fail jobs that wait or run, for good; the worker of a running one is told by its next heartbeat."""
    from ragschema import jobs

    _change(target, ids, lambda session, job_id: jobs.cancel(session, job_id, reason), "cancelled", json=json)


@app.command()
@takes_target
def prune(
    target: Target,
    older_than: Annotated[float, duration("--older-than", help="How long ago they finished, such as 30d.")],
    failed: Annotated[
        bool, typer.Option("--failed", help="The failed and cancelled jobs too, with what they say.")
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Delete them; without it they are only counted.")
    ] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Count the completed jobs that finished long ago; with --yes, delete them.

    They go in batches, each in a transaction of its own.
    """
    from datetime import timedelta

    from ragschema import jobs
    from ragschema.models import JobStatus

    age = timedelta(seconds=older_than)
    counts = {}
    with queue(target) as session:
        for status in (JobStatus.completed, JobStatus.failed) if failed else (JobStatus.completed,):
            if yes:
                counts[status.value] = sum(_batches(session, age, status))
            else:
                counts[status.value] = jobs.prune(session, age, status=status, dry_run=True)
    if json:
        print_json({"is_dry_run": not yes, "jobs": counts})
        return
    what = " and ".join(counted(count, f"{status} job") for status, count in counts.items())
    if yes:
        typer.echo(f"Deleted {what}.")
    else:
        typer.echo(f"Would delete {what}. Nothing was deleted: add --yes to delete them.")


def _batches(session: Executor, age: timedelta, status: JobStatus) -> Iterator[int]:
    from ragschema import jobs

    deleted = _BATCH
    while deleted == _BATCH:
        deleted = jobs.prune(session, age, status=status, batch=_BATCH)
        yield deleted


def _change(
    target: Target, ids: list[UUID], change: Callable[[Executor, UUID], bool], verb: str, *, json: bool
) -> None:
    """Do to each job what the command says; those that refuse fail the command at its end.

    Raises:
        RagSchemaError: A job is not in a state for it, or there is none.
    """
    from ragschema.jobs.reports import explain_refusal

    changed, refusals = [], []
    with queue(target) as session:
        for job_id in ids:
            if change(session, job_id):
                changed.append(job_id)
                if not json:
                    typer.echo(f"{verb} {job_id}")
            else:
                refusals.append(explain_refusal(session, job_id, verb))
    if json:
        print_json({verb: changed, "refused": refusals})
    if refusals:
        raise RagSchemaError(
            refusals[0] if len(refusals) == 1 else f"{len(refusals)} of {len(ids)} jobs were not {verb}.",
            "Run `rag jobs list` to see how jobs stand.",
            "\n".join(refusals) if len(refusals) > 1 else "",
        )


def queue(target: Target) -> AbstractContextManager[Executor]:
    """Return a connection to the queue, each statement a transaction of its own.

    Raises:
        PendingRevisions: The database has no queue, or an older one.
    """
    outdated = PendingRevisions(
        "The database does not have the queue of this ragschema.", "Run `rag migrate`."
    )
    return connected(target, "rag jobs", outdated, is_autocommit=True)


def _job_status(status: Status | None) -> JobStatus | None:
    from ragschema.models import JobStatus

    return None if status is None else JobStatus(status)


def _last_line(error: str | None) -> str:
    """Return the last line of an error, where a traceback says what it was."""
    lines = (error or "").strip().splitlines()
    return lines[-1][:_ERROR_SHOWN] if lines else ""
