"""Maps: sources that no preset knows, each a TOML file with the SQL that reads it."""

from __future__ import annotations

import tomllib
from pathlib import Path

from ragschema.errors import UsageError
from ragschema.importing.presets import PRESETS, Preset

_KEYS = {"name", "query", "embedder"}


def read_map(path: Path) -> Preset:
    """Read a map: ``name``, ``query``, and where the library has but one embedder ``embedder``.

    The query is one SELECT of `SOURCE_COLUMNS`, as a preset's, with nothing in braces.

    Raises:
        UsageError: It cannot be read, or is no map.
    """
    remedy = 'Write name = "..." and query = """SELECT ...""", see docs/moving-in.md.'
    try:
        said = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise UsageError(f"The map {path} cannot be read: {exc}.", remedy) from exc
    wrong = sorted(said.keys() - _KEYS) + [
        name for name in said.keys() & _KEYS if not isinstance(said[name], str) or not said[name].strip()
    ]
    wrong += [f"name = {said['name']!r}, a preset's"] if said.get("name") in PRESETS else []
    if wrong or not {"name", "query"} <= said.keys():
        what = f"says {', '.join(wrong)}" if wrong else "lacks its name or its query"
        raise UsageError(f"The map {path} {what}, which is no map.", remedy)
    query = said["query"].strip().rstrip(";")
    return Preset(
        said["name"].strip(),
        query.replace("{", "{{").replace("}", "}}"),
        embedder=said.get("embedder"),
    )
