"""Where the revisions are, and what they say of themselves."""

from __future__ import annotations

from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Literal

from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import Script, ScriptDirectory

RUN_ATTRIBUTE = "ragschema"  # the key of the run in alembic's Config.attributes

Direction = Literal["upgrade", "downgrade"]
DIRECTIONS: tuple[Direction, Direction] = ("upgrade", "downgrade")

_PACKAGE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Revision:
    """A revision of this package.

    Attributes:
        revision: Its id, 14 digits.
        summary: The first line of its docstring.
    """

    revision: str
    summary: str


def script_location() -> Path:
    """Return the directory of env.py and versions/: in the package if installed, else beside src/."""
    packaged = _PACKAGE / "alembic"
    return packaged if packaged.is_dir() else _PACKAGE.parents[1] / "alembic"


def checkout() -> Path | None:
    """Return the root of the checkout, or None where the package is installed from a wheel."""
    root = script_location().parent
    return root if (root / "alembic.ini").is_file() and root != _PACKAGE else None


def make_config(run: object = None, *, output: StringIO | None = None) -> Config:
    """Return an alembic configuration for this package's revisions.

    Args:
        run: What `ragschema.environment` is told; bare alembic tells it nothing.
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


def read_revision(script: Script) -> Revision:
    """Return what a revision says of itself."""
    return Revision(script.revision, script.doc)


def offline_sql(script: Script, direction: Direction) -> str:
    """Return the SQL of one revision, without a database."""
    output = StringIO()
    options = {"as_sql": True, "literal_binds": True, "output_buffer": output}
    context = MigrationContext.configure(
        dialect_name="postgresql", dialect_opts={"paramstyle": "named"}, opts=options
    )
    with Operations.context(context):
        getattr(script.module, direction)()
    return output.getvalue()
