"""The commands ``rag tenants``: schemas with our tables, one for each customer of a database."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from ragschema.cli.arguments import Target, duration, takes_target
from ragschema.cli.commands import Group
from ragschema.cli.output import Debug, Json, Yes, confirm, print_json, print_table, show_progress
from ragschema.errors import UsageError
from ragschema.words import counted

if TYPE_CHECKING:
    from ragschema.database.options import Options
    from ragschema.tenants.placing import PlacedTenant

app = typer.Typer(cls=Group, rich_markup_mode=None, pretty_exceptions_enable=False, no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The tenant, which is a schema of this name.")]
LockWait = Annotated[
    float | None, duration("--wait-lock", help="Wait this long for another deployer of it; 5m by default.")
]


@app.callback()
def tenants() -> None:
    """Tenants of a database: a schema with all tables for each."""
    show_progress()


@app.command("list")
@takes_target
def list_(
    target: Target,
    sizes: Annotated[
        bool, typer.Option("--sizes", help="With the size of each, which looks at every file of it.")
    ] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """List the tenants, each with its revision, and whether that is head."""
    from ragschema.planning.hazards import describe_bytes
    from ragschema.tenants.finding import list_tenants

    found = list_tenants(options_of(target), with_sizes=sizes)
    if json:
        print_json({"tenants": found})
        return
    columns = ("tenant", "revision", "", *(("size",) if sizes else ()))
    rows = [
        (
            each.schema,
            each.revision or "",
            f"{each.standing}: {each.problem}" if each.problem else each.standing,
            *(("" if each.bytes is None else describe_bytes(each.bytes),) if sizes else ()),
        )
        for each in found
    ]
    print_table(columns, rows)


@app.command()
@takes_target
def create(
    target: Target, name: Name, lock_wait: LockWait = None, json: Json = False, debug: Debug = False
) -> None:
    """Make a tenant at head, in one transaction; refuses a schema that has something in it.

    Rights of services are granted by `rag grants --schema NAME`.
    """
    from ragschema.tenants.creating import create_tenant

    made = create_tenant(name, options_of(target, makes_server=True, lock_wait=lock_wait))
    if json:
        print_json(made)
    else:
        typer.echo(f"Created {made.schema}, at {made.revision} ({made.seconds:.2f} s).")


@app.command()
@takes_target
def drop(
    target: Target,
    name: Name,
    allow_data_loss: Annotated[
        bool, typer.Option("--allow-data-loss", help="Destroy the rows that the refusal counts.")
    ] = False,
    lock_wait: LockWait = None,
    yes: Yes = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Drop a tenant: its tables, and its schema. Says what is in it, and asks; refuses to destroy rows."""
    from ragschema.database.connections import held_reachable
    from ragschema.tenants.dropping import count_tenant, drop_tenant

    with held_reachable(options_of(target, lock_wait=lock_wait)) as held:
        rows = count_tenant(name, held)
        if rows.total and allow_data_loss:
            typer.echo("This destroys:\n" + "\n".join(rows.lines()), err=True)
            confirm("Destroy it?", yes=yes)
        elif not rows.total:
            confirm(f"Drop {name}, which has no rows?", yes=yes)
        done = drop_tenant(name, replace(held, is_announced=True), allow_data_loss=allow_data_loss)
    if json:
        print_json(done)
    else:
        had = ", ".join(done.rows.lines()) or "no rows"
        typer.echo(f"Dropped {done.schema}; it had {had}.")


@app.command()
@takes_target
def distribute(
    target: Target,
    name: Name,
    lock_wait: LockWait = None,
    yes: Yes = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Hand a tenant's tables and rows to a node of Citus, without triggers. Changes nothing without --yes."""
    from ragschema.tenants.placing import distribute_tenant

    options = options_of(target, lock_wait=lock_wait)
    _show_placed(distribute_tenant(name, options, dry_run=not yes), json=json)


@app.command()
@takes_target
def move(
    target: Target,
    name: Name,
    node: Annotated[str, typer.Argument(metavar="HOST:PORT", help="As the cluster names it.")],
    lock_wait: LockWait = None,
    yes: Yes = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Take a tenant to another node of Citus while its service goes on. Changes nothing without --yes."""
    from ragschema.tenants.placing import move_tenant

    host, _, port = node.rpartition(":")
    if not host or not port.isdecimal():
        raise UsageError(f"The node is {node!r}.", "Write HOST:PORT, as `rag tenants move` lists them.")
    options = options_of(target, lock_wait=lock_wait)
    _show_placed(move_tenant(name, host, int(port), options, dry_run=not yes), json=json)


@app.command()
@takes_target
def undistribute(
    target: Target,
    name: Name,
    lock_wait: LockWait = None,
    yes: Yes = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Take a tenant from its node of Citus into an ordinary schema, with triggers. Changes nothing without --yes."""
    from ragschema.tenants.undistributing import undistribute_tenant

    options = options_of(target, lock_wait=lock_wait)
    _show_placed(undistribute_tenant(name, options, dry_run=not yes), json=json)


def _show_placed(placed: PlacedTenant, *, json: bool) -> None:
    from ragschema.planning.hazards import describe_bytes

    if json:
        print_json(placed)
        return
    here = "this database"
    after = placed.after or ("a node that Citus chooses" if placed.before is None else here)
    typer.echo(f"{placed.schema}: from {placed.before or here} to {after}")
    if placed.rows is not None:
        had = ", ".join(placed.rows.lines()) or "no rows"
        typer.echo(
            f"Copied, while all who read or write it wait: {had} ({describe_bytes(placed.bytes or 0)})"
        )
    if placed.triggers:
        became = "dropped" if placed.rows is None else "made again"
        typer.echo(f"{counted(len(placed.triggers), 'trigger')} {became}: {', '.join(placed.triggers)}")
    if placed.is_dry_run:
        typer.echo("Nothing was changed: add --yes.")


def options_of(target: Target, **others: object) -> Options:
    """Return the options of a command that is about tenants.

    Raises:
        UsageError: A schema is named beside the tenant.
    """
    if target.schema is not None:
        raise UsageError("A tenant is its schema, and --schema names another.", "Leave out --schema.")
    return replace(target.options(**others), application_name="rag tenants")
