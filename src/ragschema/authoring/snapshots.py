"""Snapshots: the files that are derived from the revisions."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import psycopg

from ragschema import embedded, migrations
from ragschema.revisions.scripts import script_directory
from ragschema.state.catalogue import Catalogue, read_catalogue
from ragschema.state.expected import fingerprints_path, read_fingerprints


def write_fingerprints(path: Path | None = None) -> None:
    """Write the file anew: upgrade an embedded scratch server revision by revision, and read it after each.

    Args:
        path: Where to write; beside versions/ by default.

    Raises:
        ConfigurationError: The embedded server is not installed.
        RagSchemaError: A revision fails.
    """
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
