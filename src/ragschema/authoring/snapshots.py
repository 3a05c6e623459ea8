"""Snapshots: the files that are derived from the revisions and the models, and the command that writes them.

A new one is a line in `_derive`: its path in the checkout, and its text.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import psycopg

from ragschema import migrations
from ragschema.authoring.diagram import draw_page
from ragschema.authoring.head_dump import dump_head
from ragschema.authoring.schema_dump import dump_schema
from ragschema.database.options import Options
from ragschema.database.settings import Database
from ragschema.errors import ConfigurationError, UsageError
from ragschema.migrations.request import Applied
from ragschema.models import Base
from ragschema.planning.scratch_server import SILENCED, scratch_server, silent
from ragschema.revisions.files import versions_directory
from ragschema.revisions.head_script import head_script_path, head_script_text
from ragschema.revisions.locations import require_checkout
from ragschema.revisions.manifest import package_version, read_manifest, read_releases, releases_path
from ragschema.revisions.sums import sum_texts
from ragschema.state.catalogue import Catalogue, read_catalogue
from ragschema.state.expected import COMMAND, fingerprints_path, read_changes, read_fingerprints

_HEADER = f"""\
-- The schema at head, for readers and tools; its source is the revisions in alembic/versions.
-- Written by: {COMMAND}

"""


@dataclass(frozen=True)
class Freeze:
    """The derived files that were not what the revisions and the models say.

    Attributes:
        changed: Their paths in the checkout, in order.
    """

    changed: tuple[str, ...] = ()


def freeze(*, check: bool = False, release: bool = False) -> Freeze:
    """Write every derived file anew that is not what it must be, from one replay on a scratch server.

    All are derived before the first is written, so that a revision that fails leaves them as they were.

    Args:
        check: Compare only, and write nothing.
        release: Write down in ``releases.json``, too, that this version of the package is released at head.

    Raises:
        ConfigurationError: This is not a checkout, or the embedded server is not installed.
        UsageError: This version is released already, at another head.
        RagSchemaError: A revision fails.
    """
    require_checkout("Derived files", COMMAND)
    with scratch_server("Replaying the revisions on a scratch server") as server, silent(*SILENCED):
        texts = derive(Database(server.superuser, "the scratch server"))
    if release:
        texts[releases_path()] = releases_text()
    changed = find_stale(texts)
    if not check:
        for path in changed:
            path.write_text(texts[path], encoding="utf-8", newline="\n")
        read_changes.cache_clear()
        read_fingerprints.cache_clear()
    return Freeze(tuple(map(_shown, changed)))


def derive(database: Database) -> dict[Path, str]:
    """Return what every derived file must be, by its path.

    Args:
        database: An empty one, without tables; afterwards it is at head.
    """
    try:
        from ragschema.authoring.json_schemas import json_schemas_path, json_schemas_text
    except ModuleNotFoundError as exc:
        raise ConfigurationError(
            "pydantic is not installed, and the JSON schemas are made with it.", "Run `uv sync`."
        ) from exc
    fingerprints = _replay(database)
    root = fingerprints_path().parents[1]
    return {
        **{versions_directory() / name: text for name, text in sum_texts().items()},
        fingerprints_path(): fingerprints,
        head_script_path(): head_script_text(dump_head(database), read_manifest(), COMMAND),
        root / "schema.sql": _HEADER + dump_schema(database),
        root / "docs" / "schema.md": draw_page(Base.metadata),
        json_schemas_path(): json_schemas_text(),
    }


def releases_text() -> str:
    """Return the text of ``releases.json`` with this version of the package, at head.

    Raises:
        UsageError: It is released already, at another head.
    """
    releases, version, head = read_releases(), package_version(), read_manifest().head
    if releases.setdefault(version, head) != head:
        raise UsageError(
            f"Version {version} is released at {releases[version]}, and head is {head}.",
            "Raise the version in pyproject.toml, and run `uv sync`.",
        )
    return json.dumps(releases, indent=1) + "\n"


def find_stale(texts: dict[Path, str]) -> list[Path]:
    """Return the paths of the files that are missing or differ from what they must be."""
    return [
        path for path, text in texts.items() if not path.is_file() or path.read_text(encoding="utf-8") != text
    ]


def _shown(path: Path) -> str:
    return str(path.relative_to(fingerprints_path().parents[1]))


def _replay(database: Database) -> str:
    """Run every revision, read the catalogue after each; return the text of ``fingerprints.json``."""
    changes: dict[str, dict[str, str | None]] = {}
    last: Catalogue = {}
    with psycopg.connect(database.libpq_url(), autocommit=True) as connection:

        def look(applied: Applied) -> None:
            nonlocal last
            found = read_catalogue(connection, "public")
            differing = sorted(name for name in {*last, *found} if last.get(name) != found.get(name))
            changes[applied.revision] = {name: found.get(name) for name in differing}
            last = found

        options = Options(database, schema="public")
        migrations.upgrade(options, report=look, show_build=lambda build: None, replay=True)
    return json.dumps(changes, indent=1, ensure_ascii=False) + "\n"
