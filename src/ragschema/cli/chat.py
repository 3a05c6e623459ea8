"""The commands ``rag chat``: old conversations are counted and destroyed."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Annotated

import typer

from ragschema.cli.arguments import Target, duration, takes_target
from ragschema.cli.commands import Group
from ragschema.cli.connected import connected
from ragschema.cli.output import Debug, Json, Yes, confirm, print_json, show_progress
from ragschema.errors import PendingRevisions
from ragschema.words import counted

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

    from ragschema.chat import ChatPruning

app = typer.Typer(cls=Group, rich_markup_mode=None, pretty_exceptions_enable=False, no_args_is_help=True)

_TOO_LONG = 1e10  # seconds: before there were computers


@app.callback()
def chat() -> None:
    """Keep conversations no longer than they are needed."""
    show_progress()


@app.command()
@takes_target
def prune(
    target: Target,
    before: Annotated[
        float, duration("--before", help="How long ago the last message was added, such as 90d.")
    ],
    batch: Annotated[int, typer.Option(min=1, help="Conversations in a transaction.")] = 500,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count what would be lost.")] = False,
    yes: Yes = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Destroy the conversations that nobody has continued for long, deleted ones too, with all they have.

    Messages, citations and feedback go with them. They go in batches, each in a transaction of its own.
    """
    from datetime import UTC, datetime, timedelta

    from ragschema.chat import prune_sessions

    with _conversations(target) as connection:
        time = datetime.now(UTC) - timedelta(seconds=min(before, _TOO_LONG))
        found = prune_sessions(connection, before=time, dry_run=True)
        connection.commit()
        if not dry_run and found.sessions:
            confirm(f"Destroy {_describe(found)}?", yes=yes)
            found = _prune(connection, time, batch)
    if json:
        print_json({"is_dry_run": dry_run, "before": time, "pruned": found})
    elif dry_run:
        typer.echo(f"Would destroy {_describe(found)}. Nothing was destroyed.")
    else:
        typer.echo(f"Destroyed {_describe(found)}.")


def _prune(connection: Connection, time: datetime, batch: int) -> ChatPruning:
    from ragschema.chat import ChatPruning, prune_sessions

    total = ChatPruning()
    while True:
        gone = prune_sessions(connection, before=time, batch=batch)
        connection.commit()
        total += gone
        if gone.sessions < batch:
            return total


def _describe(pruning: ChatPruning) -> str:
    return (
        f"{counted(pruning.sessions, 'conversation')} with {counted(pruning.messages, 'message')},"
        f" {counted(pruning.citations, 'citation')} and {counted(pruning.feedback, 'rating')}"
    )


def _conversations(target: Target) -> AbstractContextManager[Connection]:
    """Return a connection to the database's conversations, in no transaction.

    Raises:
        PendingRevisions: The database has no tables of conversations.
    """
    outdated = PendingRevisions("The database has no tables of conversations.", "Run `rag migrate`.")
    return connected(target, "rag chat", outdated)
