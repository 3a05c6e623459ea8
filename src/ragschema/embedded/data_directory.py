"""A data directory: what tells that it is ours, and that this PostgreSQL can use it."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

from ragschema.embedded.programs import program
from ragschema.errors import ConfigurationError

MARKER = "ragschema.json"
"""The file that a data directory of ours has from initdb on; nothing but it lets `destroy` delete one."""


def mark(data: Path) -> None:
    """Mark a data directory, which initdb has just made, as ours."""
    marker = {"made_by": "ragschema", "postgresql": read_version(data)}
    (data / MARKER).write_text(json.dumps(marker) + "\n", encoding="utf-8")


def is_marked(data: Path) -> bool:
    """Whether a data directory has our marker, written for the version of PostgreSQL that it has."""
    try:
        found = json.loads((data / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return (
        found == {"made_by": "ragschema", "postgresql": read_version(data)}
        and not (data / MARKER).is_symlink()
    )


def read_version(data: Path) -> str | None:
    """Return the major version of the PostgreSQL that made a data directory; None where none did."""
    try:
        return (data / "PG_VERSION").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def installed_version() -> str:
    """Return the major version of the PostgreSQL that is installed with the extra."""
    found = re.search(r"\d+", subprocess.check_output([program("postgres"), "-V"], text=True))
    assert found is not None
    return found[0]


def check_directory(data: Path) -> None:
    """Refuse a directory that cannot hold a server, holds something else, or another version's data.

    Raises:
        ConfigurationError: That is so.
    """
    if re.search(r'["$`\\\n]', str(data)):
        raise ConfigurationError(
            f"The embedded server cannot live in {data}: its path has a quote, $ or backslash.",
            "Set RAG_EMBEDDED_DIR to a plain path.",
        )
    version = read_version(data)
    if version is None:
        if data.exists() and any(data.iterdir()):
            raise ConfigurationError(
                f"{data} is not empty and holds no PostgreSQL server.",
                "Set RAG_EMBEDDED_DIR to a new directory.",
            )
        return
    if version != (installed := installed_version()):
        raise ConfigurationError(
            f"{data} was made by PostgreSQL {version}; installed is {installed}.",
            "Set RAG_EMBEDDED_DIR to a new directory, or delete this one with `rag db destroy`.",
        )
