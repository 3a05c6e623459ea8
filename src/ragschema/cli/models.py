"""The commands ``rag models``: embedding models, from their registration to their end."""

from __future__ import annotations

import shlex
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from ragschema.cli.arguments import Target, duration, takes_target
from ragschema.cli.commands import Group
from ragschema.cli.model_lines import describe_progress, describe_size, print_switch, row_of
from ragschema.cli.output import Debug, Json, Yes, confirm, print_json, print_table, show_progress
from ragschema.errors import DataLossRefused
from ragschema.words import counted

if TYPE_CHECKING:
    from ragschema.database.options import Options

app = typer.Typer(cls=Group, rich_markup_mode=None, pretty_exceptions_enable=False, no_args_is_help=True)

Key = Annotated[str, typer.Argument(metavar="KEY", help="The model; `list` shows their keys.")]
LockWait = Annotated[float | None, duration("--wait-lock", help="Wait this long for another deployer.")]


class Distance(StrEnum):
    """A distance, without loading the models."""

    cosine = "cosine"
    l2 = "l2"
    inner_product = "inner_product"


class IndexType(StrEnum):
    """What an index holds, without loading the models."""

    vector = "vector"
    halfvec = "halfvec"
    bit = "bit"
    none = "none"


@app.callback()
def models() -> None:
    """Embedding models: add one, fill it, search by it, go back, and drop the old one."""
    show_progress()


@app.command()
@takes_target
def add(
    target: Target,
    key: Annotated[str, typer.Argument(metavar="KEY", help="What services and commands will call it.")],
    dimensions: Annotated[int, typer.Option(metavar="D", help="Dimensions of its embeddings, 1 to 16000.")],
    distance: Annotated[Distance, typer.Option(help="By which distance it is searched.")] = Distance.cosine,
    index: Annotated[
        IndexType | None,
        typer.Option(help="What its index holds; halfvec by default, above 4000 dimensions bit."),
    ] = None,
    m: Annotated[int, typer.Option("--m", metavar="N", help="Neighbours that an element of it keeps.")] = 16,
    ef_construction: Annotated[
        int, typer.Option(metavar="N", help="Candidates kept while an element is inserted.")
    ] = 64,
    lock_wait: LockWait = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Register a model and make the table of its embeddings; the first of an empty database is active at once."""
    from ragschema.embedding_models import add_model

    added = add_model(
        target.options(lock_wait=lock_wait),
        key,
        dimensions,
        distance=distance.value,
        index_type=None if index is None else index.value,
        m=m,
        ef_construction=ef_construction,
    )
    if json:
        print_json(added)
        return
    if added.registered_column is not None:
        typer.echo(f"Registered the column rag_chunks.embedding: {added.registered_column}, active.")
    if not added.is_new:
        typer.echo(f"Nothing to do: {key} is there, {added.state}.")
        return
    shape = f"{added.dimensions} dimensions, {added.distance}, index {added.index_type}"
    typer.echo(f"Added {key}: {shape}, {added.state}.")
    if added.state == "building":
        named = shlex.quote(key)
        typer.echo(
            f"Now run `rag models backfill {named}`, `rag models index {named}`, `rag models activate {named}`."
        )


@app.command("list")
@takes_target
def list_(
    target: Target,
    recall: Annotated[
        bool, typer.Option("--recall", help="Measure the recall of each index: some seconds each.")
    ] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """List the models: state, chunks that have an embedding or wait for one, index, backfill."""
    from ragschema.embedding_models import list_models

    found = list_models(target.options(), recall=recall)
    if json:
        print_json({"models": found})
        return
    columns = (
        "key",
        "state",
        "dimensions",
        "distance",
        "rows",
        "missing",
        "refused",
        "index",
        "recall",
        "backfill",
    )
    print_table(columns, [row_of(each) for each in found])


@app.command()
@takes_target
def backfill(
    target: Target,
    key: Key,
    status: Annotated[bool, typer.Option("--status", help="Only say how far it is.")] = False,
    batch: Annotated[int, typer.Option(min=1, metavar="N", help="Chunks of a job.")] = 1000,
    priority: Annotated[int, typer.Option(metavar="N", help="Of the jobs; the lowest runs first.")] = 0,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Enqueue jobs that embed the chunks that wait; a service's worker does them. What is enqueued stays as it is."""
    from ragschema.embedding_models import backfill_status, enqueue_backfill

    if status:
        found = backfill_status(target.options(), key)
        if json:
            print_json(found)
        else:
            done = (
                f"{counted(found.rows, 'chunk')} done, {found.missing:,} missing, {found.refused:,} refused"
            )
            typer.echo(f"{key}: {done}; jobs: {describe_progress(found.backfill) or 'none'}.")
        return
    enqueued = enqueue_backfill(target.options(), key, batch=batch, priority=priority)
    if json:
        print_json(enqueued)
    elif enqueued.jobs:
        chunks, jobs = counted(enqueued.chunks, "chunk"), counted(enqueued.jobs, "job")
        typer.echo(f"Enqueued {jobs} for {chunks}; `rag models list` shows how far they are.")
    else:
        typer.echo("Nothing to enqueue: no chunk waits that a job is not for already.")


@app.command()
@takes_target
def index(
    target: Target,
    key: Key,
    maintenance_work_mem: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Memory for the build, such as 2GB.")
    ] = None,
    parallel_workers: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Parallel workers of the build.")
    ] = None,
    lock_wait: LockWait = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Build a model's index concurrently; one that a failed build left is dropped first."""
    from ragschema.cli.progress import showing_builds
    from ragschema.embedding_models import index_model

    options = target.options(
        maintenance_work_mem=maintenance_work_mem, parallel_workers=parallel_workers, lock_wait=lock_wait
    )
    with showing_builds() as show_build:
        built = index_model(options, key, show_build=show_build)
    if json:
        print_json(built)
    elif built.is_new:
        typer.echo(f"Built {built.index}: {describe_size(built.size)}.")
    else:
        typer.echo(f"Nothing to do: {built.index} is there, and valid.")


@app.command("check-recall")
@takes_target
def check_recall(
    target: Target,
    key: Key,
    sample: Annotated[int, typer.Option(min=1, metavar="N", help="Queries to ask at most.")] = 50,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Measure how much of what an exact search finds a model's index finds."""
    from ragschema import embedding_models

    found = embedding_models.check_recall(target.options(), key, sample=sample)
    if json:
        print_json(found)
    elif found.recall is None:
        typer.echo(f"{key} has no embedding of a current chunk: there is nothing to measure.")
    else:
        asked = f"{counted(found.queries, 'query', 'queries')} for {found.limit} chunks, ef_search {found.ef_search}"
        typer.echo(f"Recall of {key}: {found.recall:.4f} ({asked}).")


@app.command()
@takes_target
def activate(
    target: Target,
    key: Key,
    allow_missing: Annotated[
        int, typer.Option(min=0, metavar="N", help="Even where so many chunks wait for their embedding.")
    ] = 0,
    least_recall: Annotated[
        float,
        typer.Option(min=0, max=1, metavar="SHARE", help="The recall its index must have; 0 measures none."),
    ] = 0.95,
    lock_wait: LockWait = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Make a model the active one; the one before stands by. Refused while chunks, index or recall are missing."""
    from ragschema.embedding_models import activate_model

    options = target.options(lock_wait=lock_wait)
    print_switch(
        activate_model(options, key, allow_missing=allow_missing, least_recall=least_recall), json=json
    )


@app.command()
@takes_target
def rollback(target: Target, lock_wait: LockWait = None, json: Json = False, debug: Debug = False) -> None:
    """Make the model active again that was before the last switch, at once."""
    from ragschema.embedding_models import rollback_model

    print_switch(rollback_model(target.options(lock_wait=lock_wait)), json=json)


@app.command()
@takes_target
def drop(
    target: Target,
    key: Key,
    yes: Yes = False,
    lock_wait: LockWait = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Destroy the embeddings of a model that is not active, and forget it."""
    from ragschema.embedding_models import drop_model

    options: Options = target.options(lock_wait=lock_wait)
    try:
        dropped = drop_model(options, key)
    except DataLossRefused as exc:
        if not yes:
            typer.echo(f"This destroys {exc.evidence}.", err=True)
        confirm("Destroy them?", yes=yes)
        dropped = drop_model(options, key, allow_data_loss=True)
    if json:
        print_json(dropped)
    else:
        jobs = f" {counted(dropped.jobs, 'job')} cancelled." if dropped.jobs else ""
        typer.echo(f"Dropped {key}: {counted(dropped.embeddings, 'embedding')} destroyed.{jobs}")


@app.command()
@takes_target
def rename(
    target: Target,
    key: Key,
    new_key: Annotated[str, typer.Argument(metavar="NEW_KEY", help="What to call it from now on.")],
    lock_wait: LockWait = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Give a model another key. Services that name the old one fail from then on."""
    from ragschema.embedding_models import rename_model

    renamed = rename_model(target.options(lock_wait=lock_wait), key, new_key)
    if json:
        print_json(renamed)
    else:
        typer.echo(f"{key} is called {renamed.key} now.")
