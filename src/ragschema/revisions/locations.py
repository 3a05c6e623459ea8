"""Locations of the revisions and of what ships with them; imports little, so that looking is quick."""

from __future__ import annotations

from pathlib import Path

from ragschema.errors import ConfigurationError

_PACKAGE = Path(__file__).resolve().parents[1]


def script_location() -> Path:
    """Return the directory of env.py and versions/: in the package if installed, else beside src/."""
    packaged = _PACKAGE / "alembic"
    return packaged if packaged.is_dir() else _PACKAGE.parents[1] / "alembic"


def checkout() -> Path | None:
    """Return the root of the checkout, or None where the package is installed from a wheel."""
    root = script_location().parent
    return root if (root / "alembic.ini").is_file() and root != _PACKAGE else None


def require_checkout(what: str, command: str) -> Path:
    """Return the root of the checkout.

    Args:
        what: What is to be written in it, a plural.
        command: What writes it.

    Raises:
        ConfigurationError: The package is installed from a wheel.
    """
    if (root := checkout()) is None:
        raise ConfigurationError(
            f"{what} are written in a checkout of ragschema, and this is an installed package.",
            f"Clone the repository and run `{command}` there.",
        )
    return root
