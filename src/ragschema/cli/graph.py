"""The commands ``rag graph``: the graph from and to Neo4j's own formats, and what there is of it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ragschema.cli.arguments import Target, takes_target
from ragschema.cli.commands import Group
from ragschema.cli.connected import connected
from ragschema.cli.output import Debug, Json, print_json, print_table, show_progress
from ragschema.errors import DriftFound, PendingRevisions, UsageError
from ragschema.words import counted

if TYPE_CHECKING:
    from ragschema.importing.neo4j import GraphImport
    from ragschema.schema.base import Executor

_SHOWN = 100  # what is broken

app = typer.Typer(cls=Group, rich_markup_mode=None, pretty_exceptions_enable=False, no_args_is_help=True)

Delimiter = Annotated[
    str, typer.Option(metavar="CHARACTER", help="What divides the values of arrays, and labels, in CSV.")
]


@app.callback()
def graph() -> None:
    """The graph: bring it from Neo4j and back, count it, check it."""
    show_progress()


@app.command("import")
@takes_target
def import_(
    target: Target,
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            help="JSON lines of apoc.export.json, or CSV of neo4j-admin import: nodes and relationships.",
        ),
    ],
    name: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PROPERTY",
            help="The name of an entity: the first of these that a node has; name by default.",
        ),
    ] = None,
    array_delimiter: Delimiter = ";",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Do everything in one transaction, and take it back.")
    ] = False,
    skip_refused: Annotated[
        bool, typer.Option("--skip-refused", help="Leave out what cannot be kept.")
    ] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Import a graph that Neo4j has exported.

    Interrupted, it goes on where it was; run again, it changes what the files have changed.
    """
    from ragschema.importing.neo4j import GraphWishes, import_graph

    found = import_graph(
        target.options(),
        files,
        GraphWishes(tuple(name or ("name",)), skip_refused, _character(array_delimiter)),
        dry_run=dry_run,
        progress=None if json else lambda number: typer.echo(f"{number:,} read", err=True),
    )
    if json:
        print_json(found)
    else:
        _show(found)


@app.command()
@takes_target
def export(
    target: Target,
    out: Annotated[
        Path,
        typer.Argument(
            metavar="FILE|DIRECTORY",
            allow_dash=True,
            help="A file of JSON lines, or - for standard output; or a directory that is there, for CSV.",
        ),
    ],
    name: Annotated[
        str,
        typer.Option(metavar="PROPERTY", help="What the name of an entity becomes that was not imported."),
    ] = "name",
    array_delimiter: Delimiter = ";",
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Write the current graph as Neo4j's own exports do, and what was imported as it was."""
    from ragschema.importing.neo4j import export_graph

    options, delimiter = target.options(), _character(array_delimiter)
    if str(out) == "-":
        if json:
            raise UsageError("--json and JSON lines would both go to standard output.", "Name a file.")
        done = export_graph(options, json_lines=sys.stdout, name=name)
    elif out.is_dir():
        done = export_graph(options, directory=out, name=name, array_delimiter=delimiter)
    else:
        try:
            with out.open("w", encoding="utf-8", newline="\n") as stream:
                done = export_graph(options, json_lines=stream, name=name)
        except OSError as exc:
            raise UsageError(f"{out} cannot be written: {exc.strerror}.", "Name another file.") from exc
    if json:
        print_json(done)
        return
    what = f"{counted(done.nodes, 'node')} and {counted(done.relationships, 'relationship')}"
    typer.echo(f"Wrote {what}{'' if str(out) == '-' else f' to {out}'}.", err=str(out) == "-")
    if not done.has_own_ids:
        typer.echo(
            "Nodes have new ids, because two of them were imported with the same.", err=str(out) == "-"
        )


@app.command()
@takes_target
def stats(target: Target, json: Json = False, debug: Debug = False) -> None:
    """Count entities and relations by their types, and mentions."""
    from ragschema.graph import read_stats

    with _graph(target) as session:
        found = read_stats(session)
    if json:
        print_json(found)
        return
    rows = [
        (what, each.type, each.number, each.current, each.imported)
        for what, types in (("entity", found.entities), ("relation", found.relations))
        for each in types
    ]
    print_table(("what", "type", "number", "current", "imported"), rows)
    typer.echo(
        f"{counted(found.entity_mentions, 'mention')} of entities, {found.relation_mentions:,} of relations;"
        f" {counted(found.extractions, 'extraction')}, {counted(found.aliases, 'alias', 'aliases')},"
        f" {found.merged:,} merged"
    )


@app.command()
@takes_target
def verify(target: Target, json: Json = False, debug: Debug = False) -> None:
    """Compare what is current with what the chunks mention; reads all of it. Exit 4 where they differ."""
    from ragschema.graph import find_broken

    with _graph(target) as session:
        broken = find_broken(session, limit=_SHOWN)
    if json:
        print_json({"broken": broken})
    elif not broken:
        typer.echo("Every entity and relation is what its mentions say.")
    if broken:
        more = f" or more; the first {_SHOWN} are named" if len(broken) == _SHOWN else ""
        raise DriftFound(
            f"The graph is not what its chunks say: {counted(len(broken), 'fact')}{more}.",
            "Publish the documents that mention them again, or set is_current by hand.",
            ""
            if json
            else "\n".join(f"{each.kind} {each.name!r} {each.id}: {each.problem}" for each in broken),
        )


@contextmanager
def _graph(target: Target) -> Iterator[Executor]:
    """Yield a connection in a transaction.

    Raises:
        PendingRevisions: The database has no graph yet.
        RowsHidden: Row security hides rows of our tables from this role.
    """
    outdated = PendingRevisions(
        "The database does not have the graph of this ragschema.", "Run `rag migrate`."
    )
    with connected(target, "rag graph", outdated, sees_all=True) as connection, connection.begin():
        yield connection


def _character(delimiter: str) -> str:
    if len(delimiter) != 1 or delimiter in ',"\r\n':
        raise UsageError(f"--array-delimiter is {delimiter!r}.", "Give one character, no comma and no quote.")
    return delimiter


def _show(found: GraphImport) -> None:
    what = f"{counted(found.nodes, 'node')} and {counted(found.relationships, 'relationship')}"
    typer.echo(f"{'Would read' if found.is_dry_run else 'Read'} {what} from {', '.join(found.files)}.")
    would = "would be " if found.is_dry_run else ""
    for noun, plural, added, changed in (
        ("entity", "entities", found.entities_added, found.entities_changed),
        ("relation", "relations", found.relations_added, found.relations_changed),
    ):
        typer.echo(f"{would}added: {counted(added, noun, plural)}; {would}changed: {changed:,}")
    if found.refused:
        typer.echo(f"left out: {found.refused:,}")
    for refusal in found.refusals:
        typer.echo(f"left out: {refusal.where}: {refusal.reason}")
