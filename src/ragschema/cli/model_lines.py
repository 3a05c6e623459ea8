"""Lines about embedding models, as ``rag models`` prints them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from ragschema.cli.output import print_json

if TYPE_CHECKING:
    from ragschema.embedding_models import Backfill, ModelStatus, Switch


def print_switch(switch: Switch, *, json: bool) -> None:
    if json:
        print_json(switch)
        return
    if not switch.is_new:
        typer.echo(f"Nothing to do: {switch.key} is active.")
        return
    recall = f" Its recall is {switch.recall:.4f}." if switch.recall is not None else ""
    before = f", {switch.before} stands by" if switch.before else ""
    typer.echo(f"{switch.key} is active now{before}.{recall}")
    for note in switch.notes:
        typer.echo(f"Note: {note}")


def row_of(each: ModelStatus) -> tuple[Any, ...]:
    index = each.index if not each.index_size else f"{each.index}, {describe_size(each.index_size)}"
    return (
        each.key,
        each.state,
        each.dimensions,
        each.distance,
        each.rows,
        each.missing,
        each.refused,
        index,
        "" if each.recall is None else f"{each.recall:.4f}",
        describe_progress(each.backfill),
    )


def describe_progress(backfill: Backfill | None) -> str:
    if backfill is None:
        return ""
    counts = {
        "waiting": backfill.waiting,
        "running": backfill.processing,
        "done": backfill.completed,
        "failed": backfill.failed,
    }
    text = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
    return f"{text}, about {_time(backfill.seconds)} left" if backfill.seconds is not None else text


def _time(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    return f"{hours:.1f} h" if hours >= 1 else f"{minutes:.0f} min" if minutes >= 1 else f"{seconds:.0f} s"


def describe_size(size: int) -> str:
    return f"{size / 2**20:,.1f} MB"
