"""The commands ``rag collections``: parts of the corpus that searches may be limited to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ragschema.cli.arguments import Target, takes_target
from ragschema.cli.commands import Group
from ragschema.cli.connected import connected
from ragschema.cli.output import Debug, Json, Yes, confirm, print_json, print_table, show_progress
from ragschema.errors import PendingRevisions, RagSchemaError, UsageError
from ragschema.words import counted

if TYPE_CHECKING:
    from ragschema.schema.base import Executor

_SHOWN = 20  # articles of an error

app = typer.Typer(cls=Group, rich_markup_mode=None, pretty_exceptions_enable=False, no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The collection; `list` shows their names.")]
Articles = Annotated[
    list[str] | None, typer.Argument(metavar="ARTICLE_ID...", help="The documents, by your own keys.")
]
File = Annotated[
    Path | None,
    typer.Option(
        "--from",
        metavar="FILE",
        allow_dash=True,
        help="Read them from a file, one a line; - is standard input.",
    ),
]


@app.callback()
def collections() -> None:
    """Collections of documents: create them, fill them, and look what there is."""
    show_progress()


@app.command("list")
@takes_target
def list_(target: Target, json: Json = False, debug: Debug = False) -> None:
    """List the collections, each with the number of its documents."""
    from ragschema.collections import list_collections

    with _corpus(target) as session:
        found = list_collections(session)
    if json:
        print_json({"collections": found})
        return
    columns = ("name", "documents", "text config", "id", "description")
    rows = [(each.name, each.documents, each.text_config, each.id, each.description) for each in found]
    print_table(columns, rows)


@app.command()
@takes_target
def create(
    target: Target,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What people will call it.")],
    description: Annotated[
        str, typer.Option(metavar="TEXT", help="What is in it, for those who choose where to search.")
    ],
    text_config: Annotated[
        str,
        typer.Option(metavar="NAME", help="Text search configuration of documents first published into it."),
    ] = "simple",
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Create a collection without documents."""
    from ragschema.collections import create_collection

    with _corpus(target) as session:
        made = create_collection(session, name, description, text_config=text_config)
    if json:
        print_json(made)
    else:
        typer.echo(f"Created {made.name}: {made.id}.")


@app.command()
@takes_target
def add(
    target: Target,
    name: Name,
    article_ids: Articles = None,
    file: File = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Add documents to a collection; those that are in it stay. Exit 1 where one is not known."""
    from ragschema.collections import add_documents, find_collection

    asked = _read_articles(article_ids, file)
    with _corpus(target) as session:
        done = add_documents(session, find_collection(session, name).id, asked)
    if json:
        print_json(done)
    else:
        present = f" {counted(done.present, 'document')} in it already." if done.present else ""
        typer.echo(f"Added {counted(done.added, 'document')} to {name}.{present}")
    if done.unknown:
        raise RagSchemaError(
            f"Of {counted(len(done.unknown), 'article')} there is no document, so nothing was added for them.",
            "Publish them first, or correct their keys.",
            _listed(done.unknown),
        )


@app.command()
@takes_target
def remove(
    target: Target,
    name: Name,
    article_ids: Articles = None,
    file: File = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Take documents out of a collection; the documents stay. Exit 1 where one was not in it."""
    from ragschema.collections import find_collection, remove_documents

    asked = _read_articles(article_ids, file)
    with _corpus(target) as session:
        done = remove_documents(session, find_collection(session, name).id, asked)
    if json:
        print_json(done)
    else:
        typer.echo(f"Removed {counted(done.removed, 'document')} from {name}.")
    if done.absent:
        raise RagSchemaError(
            f"Of {counted(len(done.absent), 'article')} no document was in the collection {name!r}.",
            "Look whether the keys are right.",
            _listed(done.absent),
        )


@app.command()
@takes_target
def update(
    target: Target,
    name: Name,
    new_name: Annotated[
        str | None, typer.Option("--name", metavar="NEW_NAME", help="What people will call it from now on.")
    ] = None,
    description: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What is in it, for those who choose where to search.")
    ] = None,
    text_config: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Of documents first published into it from now on; the others keep theirs."
        ),
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Give a collection another name, description or text search configuration; its documents stay."""
    from ragschema.collections import find_collection, update_collection

    with _corpus(target) as session:
        changed = update_collection(
            session,
            find_collection(session, name).id,
            name=new_name,
            description=description,
            text_config=text_config,
        )
    if json:
        print_json(changed)
    else:
        typer.echo(f"{name} is now {changed.name}: {changed.description} ({changed.text_config}).")


@app.command()
@takes_target
def delete(target: Target, name: Name, yes: Yes = False, json: Json = False, debug: Debug = False) -> None:
    """Delete a collection; its documents stay. Says how many it has, and asks."""
    from ragschema.collections import delete_collection, find_collection

    with _corpus(target) as session:
        found = find_collection(session, name)
    if not yes:
        typer.echo(f"{name} has {counted(found.documents, 'document')}, which stay.", err=True)
    confirm(f"Delete the collection {name}?", yes=yes)
    with _corpus(target) as session:
        deleted = delete_collection(session, found.id)
    if json:
        print_json(deleted)
    else:
        typer.echo(f"Deleted {deleted.name}; it had {counted(deleted.documents, 'document')}, which stay.")


@contextmanager
def _corpus(target: Target) -> Iterator[Executor]:
    """Yield a connection in a transaction, which is committed where the block ends well.

    Raises:
        PendingRevisions: The database has no collections yet.
    """
    outdated = PendingRevisions(
        "The database does not have the collections of this ragschema.", "Run `rag migrate`."
    )
    with connected(target, "rag collections", outdated) as connection, connection.begin():
        yield connection


def _read_articles(article_ids: Sequence[str] | None, file: Path | None) -> list[str]:
    """Return the keys of documents, of the command line or of a file.

    Raises:
        UsageError: There are none, or the file cannot be read.
    """
    if bool(article_ids) == (file is not None):
        raise UsageError("Which documents is said by their keys or by --from.", "Give one of the two.")
    if file is None:
        return [*(article_ids or ())]
    try:
        stream = typer.get_text_stream("stdin") if str(file) == "-" else file.open(encoding="utf-8")
        with stream:
            return [line for line in stream.read().split("\n") if line.strip()]
    except (OSError, UnicodeDecodeError) as exc:
        raise UsageError(f"The keys cannot be read from {file}: {exc}.", "Name a file in UTF-8.") from exc


def _listed(articles: Sequence[str]) -> str:
    more = (
        f"\n... and {len(articles) - _SHOWN} more; --json lists them all." if len(articles) > _SHOWN else ""
    )
    return "\n".join(articles[:_SHOWN]) + more
