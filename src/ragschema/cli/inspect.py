"""Commands of ``rag migrate`` that only look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated

import typer

from ragschema.cli import output
from ragschema.cli.arguments import Target, duration, takes_target
from ragschema.cli.commands import LOOK
from ragschema.cli.exit_codes import AHEAD, DRIFT, PENDING, REFUSED
from ragschema.cli.migrate import app
from ragschema.cli.output import Debug, Json, print_json, print_table
from ragschema.words import counted

if TYPE_CHECKING:
    from ragschema.schema.fact_rules import BrokenFacts
    from ragschema.schema.row_rules import BrokenDocument


_SHOWN = 50  # broken documents


@app.command(rich_help_panel=LOOK)
@takes_target
def status(
    target: Target,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="Exit 3 when revisions are pending or held back.")
    ] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Say where the database stands: state, current revision, head, what is pending. Exit 4 where it is broken."""
    from ragschema import migrations
    from ragschema.cli.quick import status_rows

    found = migrations.status(target.options())
    if json:
        print_json(found)
    else:
        is_cut = output.is_terminal() and found.backup is not None  # a table would wrap what is to be copied
        print_table(("", "", ""), status_rows(replace(found, backup=None) if is_cut else found))
        if is_cut:
            typer.echo(f"backup: {found.backup}")
    if found.state == "BROKEN":
        raise typer.Exit(DRIFT)
    if exit_code and found.state != "OK":
        raise typer.Exit(AHEAD if found.state == "AHEAD" else PENDING)


@app.command(rich_help_panel=LOOK)
@takes_target
def history(target: Target, json: Json = False, debug: Debug = False) -> None:
    """List every revision, oldest first, whether the database has it, and who applied it when."""
    from ragschema import migrations

    entries = migrations.history(target.options())
    if json:
        print_json(entries)
        return
    rows = []
    for entry in entries:
        standing = "held back" if entry.is_owed else "applied" if entry.is_applied else "pending"
        rows.append((entry.revision, standing, entry.summary, ""))
        for attempt in entry.attempts:
            outcome = f"{attempt.direction}{'' if attempt.succeeded else ' failed'}"
            by = f"{attempt.migrated_by}, ragschema {attempt.package_version}, {attempt.seconds:.2f} s"
            rows.append(("", outcome, f"{attempt.started_at:%Y-%m-%d %H:%M:%S %Z}", by))
    print_table(("revision", "", "summary", ""), rows)


@app.command(rich_help_panel=LOOK)
@takes_target
def wait(
    target: Target,
    timeout: Annotated[
        float | None, duration("--timeout", help="Give up after this long; 5m by default.")
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Wait until the database is at head: for a service's start-up. Exit 3 if it still is not."""
    from ragschema import migrations

    found = migrations.wait(target.options(), timeout=300.0 if timeout is None else timeout)
    if json:
        print_json(found)
    else:
        typer.echo(f"The database is at {found.current}.")


@app.command(rich_help_panel=LOOK)
@takes_target
def verify(
    target: Target,
    data: Annotated[
        bool,
        typer.Option("--data", help="Look at the rows too: are the right chunks current? Reads all of them."),
    ] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Compare the database with what its revision says. Exit 4 on drift; notes are not drift."""
    from ragschema import migrations
    from ragschema.database.connections import held_reachable

    with held_reachable(target.options()) as options:
        drift = migrations.verify(options)
        options = replace(options, is_announced=True)
        broken = migrations.verify_data(options) if data else []
        broken_facts = migrations.verify_facts(options) if data else []
    if json:
        of_data = {"broken_documents": broken, "broken_facts": broken_facts}
        print_json(asdict(drift) | of_data if data else drift)
    else:
        for note in drift.notes:
            typer.echo(f"note: {note}")
        for repaired in drift.repaired_later:
            typer.echo(f"repaired by a later revision: {repaired}")
        for line in drift.lines():
            typer.echo(f"drift: {line}")
        typer.echo(f"{drift.summary.capitalize()} from revision {drift.revision}.")
        if data:
            _show_broken(broken)
            _show_broken_facts(broken_facts)
    if drift.count or broken or broken_facts:
        raise typer.Exit(DRIFT)


def _show_broken_facts(broken: Sequence[BrokenFacts]) -> None:
    for facts in broken:
        typer.echo(f"broken: {facts}")
    if broken:
        typer.echo(
            "SELECT rag_set_current_facts(ARRAY(SELECT id FROM rag_entities), ARRAY(SELECT id FROM rag_relations))"
            " marks them anew, and locks them meanwhile; --json lists those that are wrong."
        )


def _show_broken(broken: Sequence[BrokenDocument]) -> None:
    for document in broken[:_SHOWN]:
        typer.echo(f"broken: {document}")
    if len(broken) > _SHOWN:
        typer.echo(f"... and {len(broken) - _SHOWN} more; --json lists them all.")
    if not broken:
        typer.echo("Every document's chunks are what its versions say.")
        return
    typer.echo(
        f"The rules are broken in {counted(len({document.article_id for document in broken}), 'document')}."
        " SELECT rag_set_current_chunks(id) FROM rag_documents WHERE article_id = '...' marks one's chunks anew;"
        " publish those with chunks of another document again."
    )


@app.command(rich_help_panel=LOOK)
@takes_target
def health(
    target: Target,
    service: Annotated[
        str | None,
        typer.Option("--app", metavar="ROLE", help="Look at what this role of a service may do, too."),
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Look at everything a migration needs: server, pgvector, rights, pooler, pending, drift, indexes.

    Exit 69 where the server cannot be reached, 78 where something refuses a migration.
    """
    from ragschema.migrations.health import check_health

    checks = check_health(target.options(), app=service)
    if json:
        print_json({"checks": checks})
    else:
        print_table(
            ("", "", "", ""), [(each.verdict, each.name, each.finding, each.remedy) for each in checks]
        )
    if any(each.verdict == "refused" for each in checks):
        raise typer.Exit(REFUSED)
