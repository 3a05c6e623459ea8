"""The commands ``rag db``: the embedded PostgreSQL server."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ragschema.cli.commands import Group
from ragschema.cli.output import Debug, Json, Yes, confirm, print_json, print_table, show_progress
from ragschema.errors import ConfigurationError, DatabaseUnreachable

if TYPE_CHECKING:
    from ragschema.database.settings import Database

_VARIABLES = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "dbname": "PGDATABASE"}
_ELSEWHERE = ("PGHOSTADDR", "PGSERVICE", "PGPASSWORD")  # would lead psql to another server

app = typer.Typer(cls=Group, rich_markup_mode=None, pretty_exceptions_enable=False, no_args_is_help=True)


@app.callback()
def db() -> None:
    """Run the embedded PostgreSQL, for a machine with no server.

    Its data is in .ragschema/postgres of the working directory, or in RAG_EMBEDDED_DIR.
    """
    show_progress()


@app.command()
def start(json: Json = False, debug: Debug = False) -> None:
    """Start the server, leave it running, and print its URL.

    --json: {"url": URL, "directory": PATH}
    """
    from ragschema import embedded

    data = _data()
    embedded.program("postgres")
    is_new = "" if embedded.is_made(data) else ", made now"
    typer.echo(f"Starting the embedded PostgreSQL in {data}{is_new}", err=True)
    embedded.start(data)
    _print_url(data, json=json)


@app.command()
def status(json: Json = False, debug: Debug = False) -> None:
    """Say whether the server is made and runs, where its data is, and its URL.

    --json: {"state": "running", "stopped" or "none", "directory": PATH, "url": URL or null}
    """
    from ragschema import embedded

    data = _data()
    is_running = embedded.is_running(data)
    state = "running" if is_running else "stopped" if embedded.is_made(data) else "none"
    location = _database(data).libpq_url() if is_running else None
    if json:
        print_json({"state": state, "directory": str(data), "url": location})
        return
    hints = {
        "none": "`rag migrate` or `rag db start` makes it",
        "stopped": "it starts with the first command",
    }
    rows = [("state", f"{state}: {hints[state]}" if state in hints else state), ("directory", str(data))]
    print_table(("", ""), rows + ([("url", location)] if location else []))


@app.command()
def url(json: Json = False, debug: Debug = False) -> None:
    """Print the URL of the running server.

    --json: {"url": URL, "directory": PATH}
    """
    from ragschema import embedded

    data = _data()
    if not embedded.is_running(data):
        raise DatabaseUnreachable(f"The embedded server in {data} is not running.", "Run `rag db start`.")
    _print_url(data, json=json)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def psql(arguments: Annotated[list[str] | None, typer.Argument(help="Passed to psql.")] = None) -> None:
    """Open psql on the server, which runs meanwhile; every argument but --help goes to psql."""
    import shutil
    import signal
    import subprocess

    from ragschema import embedded

    data = _data()
    executable = shutil.which("psql") or str(embedded.program("psql"))
    with embedded.running(data, makes=False) as parameters:
        typer.echo(f"Database: {_database(data)}", err=True)
        signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C cancels psql's query, not us
        # through the environment: as an argument it would lose its place to a -d or a database name
        environ = {name: value for name, value in os.environ.items() if name not in _ELSEWHERE}
        environ |= {_VARIABLES[name]: value for name, value in parameters.items()}
        child = subprocess.run([executable, *(arguments or [])], env=environ, check=False)
    sys.exit(child.returncode)


@app.command()
def stop(json: Json = False, debug: Debug = False) -> None:
    """Stop the server; the data stays.

    --json: {"directory": PATH, "was_running": BOOLEAN}
    """
    from ragschema import embedded

    data = _data()
    was_running = embedded.stop(data)
    if json:
        print_json({"directory": str(data), "was_running": was_running})
    elif was_running:
        typer.echo(f"Stopped: the data stays in {data}.")
    else:
        typer.echo("Nothing to do: the server is not running.")


@app.command()
def destroy(
    without_marker: Annotated[
        bool,
        typer.Option(
            "--without-marker", help="Also data that an earlier ragschema made, which has no marker."
        ),
    ] = False,
    yes: Yes = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Stop the server and delete its data, every row of it.

    Only what ragschema made: its marker, ragschema.json, is in the data directory. RAG_EMBEDDED_DIR counts only
    in the environment, and only as a full path; .env is not asked.

    --json: {"directory": PATH}
    """
    from ragschema import embedded

    named = _doomed()
    data = embedded.real_place(named)
    embedded.check_destroyable(named, without_marker=without_marker)
    confirm(f"Delete {data} and every row in it?", yes=yes)
    embedded.destroy(named, without_marker=without_marker)
    if json:
        print_json({"directory": str(data)})
    else:
        typer.echo(f"Deleted {data}.")


def _data() -> Path:
    from ragschema.database.settings import embedded_directory

    return embedded_directory()


def _doomed() -> Path:
    """Return the data directory that was named for `destroy`, links and all.

    Raises:
        ConfigurationError: It is named by a file, which may be somebody else's, or by a relative path.
    """
    from ragschema import embedded
    from ragschema.database.environment import Environment, upwards

    embedded.program("postgres")
    found = _data()
    setting = Environment(os.environ, Path.cwd()).get("RAG_EMBEDDED_DIR")
    if setting is None:
        places = [place / ".ragschema" / "postgres" for place in upwards(Path.cwd())]
        return next((place for place in places if place.is_dir()), places[0])
    named = Path(setting.value).expanduser()
    if setting.file is not None or not named.is_absolute() or ".." in named.parts:
        raise ConfigurationError(
            f"{setting.source} is {setting.value}: what is destroyed is named in the environment, as a full path.",
            f"Nothing was deleted. If you mean it: `RAG_EMBEDDED_DIR={found} rag db destroy`.",
        )
    return named


def _database(data: Path) -> Database:
    from ragschema import embedded
    from ragschema.database.settings import Database

    return Database(embedded.parameters(data), "this command", embedded=data)


def _print_url(data: Path, *, json: bool) -> None:
    location = _database(data).libpq_url()
    if json:
        print_json({"url": location, "directory": str(data)})
    else:
        typer.echo(location)
