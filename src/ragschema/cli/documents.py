"""The commands ``rag documents``: delete documents, undelete them, and purge those that are to be gone for good."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Annotated

import typer

from ragschema.cli.arguments import Target, duration, takes_target
from ragschema.cli.commands import Group
from ragschema.cli.connected import connected
from ragschema.cli.output import Debug, Json, Yes, confirm, print_json, show_progress
from ragschema.errors import PendingRevisions, UsageError
from ragschema.words import counted

if TYPE_CHECKING:
    from datetime import datetime

    import sqlalchemy as sa

    from ragschema.publishing import PurgedDocuments

app = typer.Typer(cls=Group, rich_markup_mode=None, pretty_exceptions_enable=False, no_args_is_help=True)

Articles = Annotated[
    list[str], typer.Argument(metavar="ARTICLE_ID...", help="The documents, by the caller's keys.")
]


@app.callback()
def documents() -> None:
    """Delete documents from search, bring them back, or destroy them."""
    show_progress()


@app.command()
@takes_target
def delete(target: Target, articles: Articles, json: Json = False, debug: Debug = False) -> None:
    """Hide documents from search, whatever is published of them; their rows stay, and `undelete` brings them back."""
    from ragschema.publishing import delete_documents

    with _corpus(target) as connection, connection.begin():
        done = delete_documents(connection, articles)
    if json:
        print_json(done)
    else:
        typer.echo(
            f"Deleted {counted(done.documents, 'document')}: search misses {counted(done.chunks, 'chunk')}."
        )
        if done.already:
            typer.echo(f"{counted(done.already, 'document')} had been deleted before.")
    _refuse_unknown(done.unknown)


@app.command()
@takes_target
def undelete(target: Target, articles: Articles, json: Json = False, debug: Debug = False) -> None:
    """Let search find deleted documents again, in their current versions; nothing is embedded."""
    from ragschema.publishing import undelete_documents

    with _corpus(target) as connection, connection.begin():
        done = undelete_documents(connection, articles)
    if json:
        print_json({"undeleted": done.undeleted, "chunks": done.chunks, "unknown": sorted(done.unknown)})
    else:
        typer.echo(
            f"Undeleted {counted(len(done.undeleted), 'document')}: search finds {counted(done.chunks, 'chunk')}."
        )
        if done.already:
            typer.echo(f"{counted(done.already, 'document')} had not been deleted.")
    _refuse_unknown(done.unknown)


@app.command()
@takes_target
def purge(
    target: Target,
    articles: Annotated[
        list[str] | None, typer.Argument(metavar="[ARTICLE_ID...]", help="These documents, deleted or not.")
    ] = None,
    deleted_before: Annotated[
        float | None,
        duration("--deleted-before", help="Those that were deleted this long ago or longer, such as 30d."),
    ] = None,
    erase: Annotated[
        bool, typer.Option("--erase", help="The jobs too whose dedupe key is the article id.")
    ] = False,
    batch: Annotated[int, typer.Option(min=1, metavar="N", help="Documents in a transaction.")] = 500,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be destroyed.")] = False,
    yes: Yes = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Destroy documents with their versions, chunks, events and embeddings; says what would be lost, and asks."""
    from datetime import UTC, datetime, timedelta

    if bool(articles) == (deleted_before is not None):
        raise UsageError(
            "Nothing says which documents to purge."
            if not articles
            else "Two things say which documents to purge.",
            "Name them, or write --deleted-before 30d, say.",
        )
    before = None if deleted_before is None else datetime.now(UTC) - timedelta(seconds=deleted_before)
    with _corpus(target) as connection:
        if dry_run or not yes:
            found = _purge(connection, articles, before, batch, erase=erase, dry_run=True)
            if not json or not dry_run:
                typer.echo(
                    f"This {'would destroy' if dry_run else 'destroys'} {_describe(found)}.", err=not dry_run
                )
        if not dry_run and (yes or found.documents or found.erased):
            confirm("Destroy them?", yes=yes)
            found = _purge(connection, articles, before, batch, erase=erase, dry_run=False)
    if json:
        print_json({"is_dry_run": dry_run, "purged": found})
    elif not dry_run:
        typer.echo(f"Destroyed {_describe(found)}.")
    if not json:
        for each in found.left:
            typer.echo(f"Not reached: {each}.")
    _refuse_unknown(found.unknown)


def _purge(
    connection: sa.Connection,
    articles: list[str] | None,
    before: datetime | None,
    batch: int,
    *,
    erase: bool,
    dry_run: bool,
) -> PurgedDocuments:
    from ragschema.publishing import purge_deleted, purge_documents

    if before is not None:
        return purge_deleted(connection, before=before, batch_size=batch, erase=erase, dry_run=dry_run)
    with connection.begin():
        return purge_documents(connection, articles or [], erase=erase, dry_run=dry_run)


def _describe(found: PurgedDocuments) -> str:
    counts = [
        counted(getattr(found, f"{name}s"), name)
        for name in ("document", "version", "chunk", "event", "embedding")
    ]
    counts += [f"{counted(count, 'row')} of {table}" for table, count in found.erased.items()]
    return f"{', '.join(counts[:-1])} and {counts[-1]}"


def _refuse_unknown(unknown: tuple[str, ...] | list[str]) -> None:
    """Fail the command where a document is not there; what was done of the others stays.

    Raises:
        UnknownDocument: That is so.
    """
    from ragschema.publishing.errors import unknown_documents

    if unknown:
        raise unknown_documents(unknown)


def _corpus(target: Target) -> AbstractContextManager[sa.Connection]:
    """Return a connection to the documents, in no transaction.

    Raises:
        PendingRevisions: The database cannot delete documents yet.
        RowsHidden: Row security hides rows of our tables from this role.
    """
    outdated = PendingRevisions("The database is older than the deletion of documents.", "Run `rag migrate`.")
    return connected(target, "rag documents", outdated, sees_all=True)
