"""Calls of Alembic from a process that may have threads.

Alembic keeps its environment in module globals, so one lock lets one thread of a process run it at a time.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import StringIO
from typing import TYPE_CHECKING, Any

from ragschema.database.options import Options, find_options
from ragschema.database.settings import Database
from ragschema.errors import RagSchemaError, UsageError

if TYPE_CHECKING:
    from alembic.config import Config

    from ragschema.migrations.run import Run

Target = Database | Options | str | None

ALEMBIC_LOCK = threading.Lock()


@contextmanager
def alembic_config(run: Run | None, output: StringIO | None = None) -> Iterator[tuple[Any, Config]]:
    """Let one thread use Alembic, and turn its errors into ours."""
    from alembic import command
    from alembic.util import CommandError

    from ragschema.migrations.run import Run as EmptyRun
    from ragschema.revisions.scripts import make_config

    with ALEMBIC_LOCK:
        try:
            yield command, make_config(run or EmptyRun(), output=output)
        except CommandError as exc:
            if isinstance(exc.__cause__, RagSchemaError):
                raise exc.__cause__ from exc
            if run is not None and (remedy := getattr(exc, "remedy", "")):  # an operation of a revision
                raise run.refusal(exc, remedy) from exc
            raise UsageError(
                f"{str(exc).rstrip('.')}.", "Run `rag migrate history` to see the revisions."
            ) from exc


def resolve_options(database: Target, schema: str | None) -> Options:
    """Return the options of a target: a database, its URL, options, or None for what the settings say."""
    if isinstance(database, Options):
        return replace(database, schema=schema) if schema is not None else database
    return find_options(database, schema=schema)
