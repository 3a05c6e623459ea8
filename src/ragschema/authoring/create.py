"""New revisions, written in a checkout."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path

from ragschema.migrations.alembic_lock import alembic_config
from ragschema.migrations.request import DatabaseArgument, Request, resolve_options
from ragschema.revisions.locations import require_checkout
from ragschema.revisions.sums import add_revision


def create(
    message: str, *, with_autogenerate: bool = False, database: DatabaseArgument = None
) -> Path | None:
    """Write a new revision in a checkout; return its path, or None where autogenerate found no difference.

    Args:
        message: What it does, in a few words.
        with_autogenerate: Draft it from the difference between the models and the database.
        database: The database to compare with, at head.

    Raises:
        ConfigurationError: This is not a checkout.
    """
    require_checkout("Revisions", "uv run rag migrate create")
    from ragschema.migrations.autogenerate import new_revision_id

    request = Request(resolve_options(database, None) if with_autogenerate else None)
    with alembic_config(request) as (command, config), redirect_stdout(sys.stderr):
        script = command.revision(config, message, autogenerate=with_autogenerate, rev_id=new_revision_id())
    scripts = script if isinstance(script, list) else [script]
    path = next((Path(each.path) for each in scripts if each is not None), None)
    if path is not None:
        add_revision(path)
    return path
