"""The command ``rag import``: documents of other libraries' tables, with the embeddings that they have."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ragschema.cli.arguments import Target, takes_target
from ragschema.cli.output import Debug, Json, print_json, show_progress
from ragschema.errors import UsageError
from ragschema.words import counted

if TYPE_CHECKING:
    from ragschema.importing import Import

WHAT = "What to read"
HOW = "How to import"


class Library(StrEnum):
    """A preset, without loading the room of imports."""

    langchain = "langchain"
    langchain_v2 = "langchain-v2"
    llama_index = "llama-index"
    haystack = "haystack"
    localrag = "localrag"
    rag_corp = "rag-corp"
    rag_memory = "rag-memory"


@takes_target
def import_(
    target: Target,
    preset: Annotated[
        Library | None,
        typer.Argument(metavar="[PRESET]", help="Whose tables they are: " + ", ".join(Library) + "."),
    ] = None,
    map_: Annotated[
        Path | None,
        typer.Option(
            "--map", metavar="FILE", rich_help_panel=WHAT, help="Instead of PRESET: a TOML file with the SQL."
        ),
    ] = None,
    from_: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="URL", rich_help_panel=WHAT, help="Their database; the same by default."
        ),
    ] = None,
    from_schema: Annotated[
        str | None,
        typer.Option(metavar="NAME", rich_help_panel=WHAT, help="Their schema, where several have such."),
    ] = None,
    table: Annotated[
        str | None,
        typer.Option(metavar="NAME", rich_help_panel=WHAT, help="The table, where several are such."),
    ] = None,
    collection: Annotated[
        str | None,
        typer.Option(metavar="NAME", rich_help_panel=WHAT, help="This collection only; all by default."),
    ] = None,
    document_key: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            rich_help_panel=WHAT,
            help="The key of the metadata that tells which document a row is of.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Read and check everything, and change nothing.")
    ] = False,
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY",
            rich_help_panel=HOW,
            help="The model of the embeddings, where dimensions do not tell.",
        ),
    ] = None,
    embedder: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", rich_help_panel=HOW, help="The embedder_version that the service will write."
        ),
    ] = None,
    text_config: Annotated[
        str,
        typer.Option(metavar="NAME", rich_help_panel=HOW, help="Text search configuration of new documents."),
    ] = "simple",
    skip_refused: Annotated[
        bool, typer.Option("--skip-refused", rich_help_panel=HOW, help="Leave out what cannot be stored.")
    ] = False,
    skip_deleted: Annotated[
        bool,
        typer.Option("--skip-deleted", rich_help_panel=HOW, help="Leave out what the source has deleted."),
    ] = False,
    retire_gone: Annotated[
        bool,
        typer.Option(
            "--retire-gone",
            rich_help_panel=HOW,
            help="Retire documents that an earlier run has imported and are gone.",
        ),
    ] = False,
    defer_index: Annotated[
        bool,
        typer.Option(
            "--defer-index",
            rich_help_panel=HOW,
            help="Build the indexes afterwards; search is slow until then.",
        ),
    ] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Import documents of another library's tables, with their embeddings.

    Interrupted, it goes on where it was; run again after its end, it imports what has changed.
    """
    from ragschema.database.options import find_options
    from ragschema.importing import PRESETS, import_documents, read_map
    from ragschema.importing.preset_queries import Question
    from ragschema.importing.runs import Wishes

    show_progress()
    if (preset is None) == (map_ is None):
        raise UsageError(
            "A source is read by a preset or by a map.",
            "Name one: `rag import PRESET`, or `rag import --map FILE`.",
        )
    options = target.options()
    source = options if from_ is None else find_options(from_, wait=target.wait)
    chosen = PRESETS[preset.value] if preset is not None else read_map(map_ or Path())
    found = import_documents(
        options,
        source,
        Question(chosen, from_schema, table, collection, document_key),
        Wishes(
            tuple(model or ()), embedder, text_config, skip_refused, skip_deleted, retire_gone, defer_index
        ),
        dry_run=dry_run,
        progress=None
        if json
        else lambda documents: typer.echo(f"{counted(documents, 'document')} read", err=True),
    )
    if json:
        print_json(found)
    else:
        _show(found)


def _show(found: Import) -> None:
    chunks = f"{counted(found.documents, 'document')}, {counted(found.chunks, 'chunk')}"
    typer.echo(f"{'Would read' if found.is_dry_run else 'Read'} {chunks} as {found.name!r}.")
    for each in found.dimensions:
        where = "no model has as many" if each.model is None else f"to model {each.model!r}"
        typer.echo(f"embeddings: {each.embeddings:,} of {each.dimensions:,} dimensions, {where}")
    would = "would be " if found.is_dry_run else ""
    rows = (
        ("waits for an embedding", found.without_embedding + found.zero_embeddings, "chunk"),
        (f"{would}added", found.added, "document"),
        (f"{would}changed", found.changed, "document"),
        ("unchanged", found.unchanged, "document"),
        (f"{would}embedded as the source has it now", found.reembedded, "chunk"),
        ("left alone, because somebody else has published or retired it", found.left_alone, "document"),
        ("deleted in the source", found.deleted, "document"),
        ("without text, left out", found.empty_chunks, "chunk"),
        ("refused, left out", found.refused, "document"),
        ("gone from the source", found.gone, "document"),
        ("retired", found.retired, "document"),
        (f"{would}enqueued", found.jobs, "job"),
    )
    for what, number, noun in rows:
        if number:
            typer.echo(f"{what}: {counted(number, noun)}")
    for refusal in found.refusals:
        typer.echo(f"refused: {refusal.article_id}: {refusal.reason}")
    if found.no_home:
        typer.echo(f"no place here for: {', '.join(found.no_home)}")
    for note in found.notes:
        typer.echo(f"note: {note}")
    for obstacle in found.obstacles:
        typer.echo(f"obstacle: {obstacle}")
