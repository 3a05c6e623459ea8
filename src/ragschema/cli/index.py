"""The commands ``rag index``: how good the vector indexes are, and what makes them good again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ragschema.cli.arguments import Target, duration, takes_target
from ragschema.cli.commands import Group
from ragschema.cli.exit_codes import FINDINGS
from ragschema.cli.output import Debug, Json, print_json, print_table, show_progress

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ragschema.index_health import IndexHealth, Rebuilt

app = typer.Typer(cls=Group, rich_markup_mode=None, pretty_exceptions_enable=False, no_args_is_help=True)

Sample = Annotated[
    int | None,
    typer.Option(
        min=0, metavar="N", help="How many questions to ask each index; 100 by default, 0 for none."
    ),
]
EfSearch = Annotated[
    int | None,
    typer.Option(
        "--ef-search",
        min=1,
        max=1000,
        metavar="N",
        help="Candidates of a search; what a search keeps by default.",
    ),
]
LockWait = Annotated[
    float | None, duration("--wait-lock", help="Wait this long for another deployer; 5m by default.")
]
Memory = Annotated[
    str | None,
    typer.Option("--maintenance-work-mem", metavar="SIZE", help="Memory for a rebuild, such as 2GB."),
]
Workers = Annotated[
    int | None, typer.Option("--parallel-workers", min=0, metavar="N", help="Parallel workers of a rebuild.")
]


@app.callback()
def index() -> None:
    """Look how good the vector indexes are, and make them good again."""
    show_progress()


@app.command()
@takes_target
def health(
    target: Target,
    sample: Sample = None,
    ef_search: EfSearch = None,
    fail_below: Annotated[
        float | None,
        typer.Option(
            "--fail-below",
            min=0.0,
            max=1.0,
            metavar="RECALL",
            help=f"Exit {FINDINGS} if an index is invalid, or its recall below this.",
        ),
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Show of every vector index its size, rows, dead entries, last vacuum, and recall, measured now.

    Asks questions that are made of the rows, by the index and by an exact search: a few seconds for each index.
    """
    from ragschema.index_health.health import SAMPLE, check_indexes

    found = check_indexes(target.options(), sample=SAMPLE if sample is None else sample, ef_search=ef_search)
    if json:
        print_json({"indexes": found})
    else:
        _print_health(found)
    if fail_below is not None and any(each.is_below(fail_below) for each in found):
        raise typer.Exit(FINDINGS)


@app.command()
@takes_target
def rebuild(
    target: Target,
    name: Annotated[
        str | None,
        typer.Argument(metavar="[INDEX]", help="Every vector index by default.", show_default=False),
    ] = None,
    lock_wait: LockWait = None,
    maintenance_work_mem: Memory = None,
    parallel_workers: Workers = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Rebuild a vector index while others read and write; drops what an interrupted rebuild has left."""
    from ragschema import index_health
    from ragschema.cli.progress import showing_builds

    options = target.options(
        lock_wait=lock_wait, maintenance_work_mem=maintenance_work_mem, parallel_workers=parallel_workers
    )
    with showing_builds() as show_build:
        done = index_health.rebuild(
            options, name, show_build=show_build, report=None if json else _print_rebuilt
        )
    if json:
        print_json(done)
        return
    _print_dropped(done.dropped)
    if not done.rebuilt and not done.dropped:
        typer.echo("Nothing to do: no table of ours has an HNSW index.")


@app.command()
@takes_target
def maintain(
    target: Target,
    if_recall_below: Annotated[
        float | None,
        typer.Option(
            "--if-recall-below",
            min=0.0,
            max=1.0,
            metavar="RECALL",
            help="Rebuild what is below; 0.98 by default.",
        ),
    ] = None,
    sample: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="How many questions to ask each index; 100 by default."),
    ] = None,
    ef_search: EfSearch = None,
    lock_wait: LockWait = None,
    maintenance_work_mem: Memory = None,
    parallel_workers: Workers = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Measure every vector index, rebuild what is below, vacuum its table, and measure again: for cron."""
    from ragschema import index_health
    from ragschema.cli.progress import showing_builds
    from ragschema.index_health.health import SAMPLE
    from ragschema.index_health.maintenance import ENOUGH

    options = target.options(
        lock_wait=lock_wait, maintenance_work_mem=maintenance_work_mem, parallel_workers=parallel_workers
    )
    with showing_builds() as show_build:
        done = index_health.maintain(
            options,
            if_recall_below=ENOUGH if if_recall_below is None else if_recall_below,
            sample=sample or SAMPLE,
            ef_search=ef_search,
            show_build=show_build,
            report=None if json else _print_rebuilt,
        )
    if json:
        print_json(done)
    else:
        _print_dropped(done.dropped)
        for table in done.vacuumed:
            typer.echo(f"vacuumed {table}")
        _print_health(done.after)
        if not done.rebuilt and not done.dropped:
            typer.echo(f"Nothing to do: no recall was measured below {done.threshold:g}.")
    if done.still_below:
        raise typer.Exit(FINDINGS)


def _print_health(found: Iterable[IndexHealth]) -> None:
    from ragschema.index_health.disk import megabytes

    rows = []
    for each in found:
        state = (
            "valid"
            if each.is_valid
            else "being built"
            if each.is_building
            else "invalid: `rag index rebuild`"
        )
        recall = each.note
        if each.recall is not None:
            about = "" if each.recall.compared == 1 else "about "
            recall = f"{about}{each.recall.value:.3f} (ef_search {each.recall.ef_search})"
        rows.append(
            (
                each.index,
                each.table,
                state,
                megabytes(each.size),
                "" if each.rows is None else f"{each.rows:,}",
                "" if each.dead_share is None else f"{each.dead_share:.1%}",
                f"{each.vacuumed_at:%Y-%m-%d %H:%M:%S %Z}" if each.vacuumed_at else "never",
                recall,
            )
        )
    print_table(("index", "table", "state", "size", "rows", "dead", "vacuumed", "recall"), rows)


def _print_rebuilt(rebuilt: Rebuilt) -> None:
    from ragschema.index_health.disk import megabytes

    sizes = f"{megabytes(rebuilt.size_before)} -> {megabytes(rebuilt.size_after)}"
    typer.echo(f"rebuilt {rebuilt.index}  {sizes}  ({rebuilt.seconds:.2f} s)")


def _print_dropped(names: Iterable[str]) -> None:
    for name in names:
        typer.echo(f"dropped {name}")
