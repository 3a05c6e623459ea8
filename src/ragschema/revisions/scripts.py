"""Where the revisions are, and what they say of themselves."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import Literal

from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import Script, ScriptDirectory

from ragschema.revisions.locations import checkout as checkout
from ragschema.revisions.locations import script_location as script_location
from ragschema.revisions.sums import file_checksum

RUN_ATTRIBUTE = "ragschema"  # the key of the run in alembic's Config.attributes

Direction = Literal["upgrade", "downgrade"]
DIRECTIONS: tuple[Direction, Direction] = ("upgrade", "downgrade")


def make_config(run: object = None, *, output: StringIO | None = None) -> Config:
    """Return an alembic configuration for this package's revisions.

    Args:
        run: What `ragschema.migrations.environment` is told; bare alembic tells it nothing.
        output: Where offline SQL goes; standard output by default.
    """
    root = checkout()
    config = Config(root / "alembic.ini" if root else None, output_buffer=output)
    config.set_main_option("script_location", str(script_location()).replace("%", "%%"))
    config.attributes[RUN_ATTRIBUTE] = run
    return config


def script_directory() -> ScriptDirectory:
    """Return alembic's view of this package's revisions."""
    return ScriptDirectory.from_config(make_config())


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
