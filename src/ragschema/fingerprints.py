"""The expected catalogue of every revision: ``alembic/fingerprints.json``, shipped in the wheel.

The file holds, for each revision, what it changes in the catalogue of the one before: a definition by object,
null where the object goes. ``python -m ragschema.fingerprints`` writes it anew.
"""

from __future__ import annotations

import json
import tempfile
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from ragschema.errors import RagSchemaError, UsageError
from ragschema.locations import script_location

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ragschema.catalogue import Catalogue

COMMAND = "uv run python -m ragschema.fingerprints"


def fingerprints_path() -> Path:
    """Return where the file is: beside versions/."""
    return script_location() / "fingerprints.json"


@cache
def read_fingerprints() -> Mapping[str, Mapping[str, str]]:
    """Return the expected catalogue by revision, oldest first.

    Raises:
        RagSchemaError: The file is missing or unreadable.
    """
    path = fingerprints_path()
    try:
        changes: dict[str, dict[str, str | None]] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise RagSchemaError(
            f"The expected catalogues cannot be read from {path}.",
            f"Install ragschema again, or run `{COMMAND}` in a checkout.",
            str(exc),
        ) from exc
    catalogues: dict[str, Mapping[str, str]] = {}
    last: Catalogue = {}
    for revision, changed in changes.items():
        merged = last | changed
        last = {name: text for name, text in merged.items() if text is not None}
        catalogues[revision] = MappingProxyType(last)
    return MappingProxyType(catalogues)


def expected(revision: str) -> Mapping[str, str]:
    """Return the expected catalogue of a revision.

    Raises:
        UsageError: There is none of that revision.
    """
    catalogues = read_fingerprints()
    if revision not in catalogues:
        raise UsageError(
            f"The expected catalogue of revision {revision} is not known; known are {', '.join(catalogues)}.",
            f"Run `{COMMAND}` if the revision is new, or use the ragschema that has it.",
        )
    return catalogues[revision]


def write_fingerprints(path: Path | None = None) -> None:
    """Write the file anew: upgrade an embedded scratch server revision by revision, and read it after each.

    Args:
        path: Where to write; beside versions/ by default.

    Raises:
        ConfigurationError: The embedded server is not installed.
        RagSchemaError: A revision fails.
    """
    import psycopg

    from ragschema import embedded, migrations
    from ragschema.catalogue import read_catalogue
    from ragschema.scripts import script_directory

    changes: dict[str, dict[str, str | None]] = {}
    last: Catalogue = {}
    with (
        tempfile.TemporaryDirectory(prefix="ragschema-") as directory,
        embedded.running(Path(directory).resolve() / "postgres") as parameters,
        psycopg.connect(**dict(parameters), autocommit=True) as connection,  # type: ignore[arg-type]
    ):
        url = "postgresql://{user}@/{dbname}?host={host}&port={port}".format(**parameters)
        for script in reversed(list(script_directory().walk_revisions())):
            migrations.upgrade(url, script.revision)
            found = read_catalogue(connection, "public")
            changed: dict[str, str | None] = {
                n: found.get(n) for n in {*last, *found} if last.get(n) != found.get(n)
            }
            changes[script.revision], last = dict(sorted(changed.items())), found
    text = json.dumps(changes, indent=1, ensure_ascii=False)
    (path or fingerprints_path()).write_text(text + "\n", encoding="utf-8")
    read_fingerprints.cache_clear()


if __name__ == "__main__":
    write_fingerprints()
