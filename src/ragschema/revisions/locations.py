"""Where the revisions and what ships with them are; imports nothing, so that looking is quick."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]


def script_location() -> Path:
    """Return the directory of env.py and versions/: in the package if installed, else beside src/."""
    packaged = _PACKAGE / "alembic"
    return packaged if packaged.is_dir() else _PACKAGE.parents[1] / "alembic"


def checkout() -> Path | None:
    """Return the root of the checkout, or None where the package is installed from a wheel."""
    root = script_location().parent
    return root if (root / "alembic.ini").is_file() and root != _PACKAGE else None
