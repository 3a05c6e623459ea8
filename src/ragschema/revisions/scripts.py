"""Alembic's view of the revisions: its configuration, their scripts and their SQL."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import Script, ScriptDirectory
from alembic.util import CommandError

from ragschema.errors import UsageError
from ragschema.revisions.locations import checkout, script_location
from ragschema.revisions.manifest import SEE_REVISIONS, Direction
from ragschema.revisions.sums import file_checksum

REQUEST_ATTRIBUTE = "ragschema"  # keys in alembic's Config.attributes: what is asked, and what came of it
RESULT_ATTRIBUTE = "ragschema result"


def make_config(request: object = None, *, output: StringIO | None = None) -> Config:
    """Return an alembic configuration for this package's revisions.

    Args:
        request: The `ragschema.migrations.request.Request`; bare alembic has none.
        output: Where offline SQL goes; standard output by default.
    """
    root = checkout()
    config = Config(root / "alembic.ini" if root else None, output_buffer=output)
    config.set_main_option("script_location", str(script_location()).replace("%", "%%"))
    config.attributes[REQUEST_ATTRIBUTE] = request
    return config


def script_directory() -> ScriptDirectory:
    """Return alembic's view of this package's revisions."""
    return ScriptDirectory.from_config(make_config())


def refused_by_alembic(exc: CommandError) -> UsageError:
    """Return the error of what Alembic refuses, most often a revision that does not exist, in its own words."""
    return UsageError(f"{str(exc).rstrip('.')}.", SEE_REVISIONS)


def script_checksum(script: Script) -> str:
    """Return the SHA-256 of a revision's file, in hexadecimal."""
    return file_checksum(Path(script.path))


def offline_sql(script: Script, direction: Direction, output: StringIO | None = None) -> str:
    """Return the SQL of one revision, without a database; each statement is one write to ``output``."""
    output = output or StringIO()
    options = {"as_sql": True, "literal_binds": True, "output_buffer": output}
    context = MigrationContext.configure(
        dialect_name="postgresql", dialect_opts={"paramstyle": "named"}, opts=options
    )
    with Operations.context(context):
        getattr(script.module, direction)()
    return output.getvalue()
