"""New revisions, written in a checkout."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from pathlib import Path

from ragschema.database.options import Options
from ragschema.database.settings import Database
from ragschema.migrations.alembic_lock import alembic_config
from ragschema.migrations.commands import upgrade
from ragschema.migrations.request import DatabaseArgument, Request, resolve_options
from ragschema.planning.scratch_server import SILENCED, scratch_server, silent
from ragschema.revisions.locations import require_checkout
from ragschema.revisions.sums import add_revision


def create(
    message: str, *, with_autogenerate: bool = False, database: DatabaseArgument = None
) -> Path | None:
    """Write a new revision in a checkout; return its path, or None where autogenerate found no difference.

    Args:
        message: What it does, in a few words.
        with_autogenerate: Draft it from the difference between the models and the database.
        database: The database to compare with, at head. What the settings name by default; where they name
            none, a scratch server is made for it.

    Raises:
        ConfigurationError: This is not a checkout.
    """
    require_checkout("Revisions", "uv run rag migrate create")
    from ragschema.migrations.autogenerate import new_revision_id

    with (
        _compared_with(database) if with_autogenerate else nullcontext() as options,
        alembic_config(Request(options)) as (command, config),
        redirect_stdout(sys.stderr),
    ):
        script = command.revision(config, message, autogenerate=with_autogenerate, rev_id=new_revision_id())
    scripts = script if isinstance(script, list) else [script]
    path = next((Path(each.path) for each in scripts if each is not None), None)
    if path is not None:
        add_revision(path)
    return path


@contextmanager
def _compared_with(database: DatabaseArgument) -> Iterator[Options]:
    """Yield the options of the database to compare with: a scratch server's, at head, where none is named."""
    named = resolve_options(database, None)
    if named.database.embedded is None:
        yield named
        return
    with (
        scratch_server("Comparing with head, on a scratch server") as server,
        silent(*SILENCED),
    ):
        options = Options(
            Database(server.superuser, "the scratch server"), schema="public", is_announced=True
        )
        upgrade(options, show_build=lambda build: None)
        yield options
