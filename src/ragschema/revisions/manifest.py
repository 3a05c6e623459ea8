"""The revisions of this package as a list, read from their files without Alembic."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

from ragschema.errors import ConfigurationError, DatabaseAhead, UsageError
from ragschema.revisions.docstrings import Deploy, read_deploy, split_docstring
from ragschema.revisions.files import find_heads, read_revision_files, two_heads, versions_directory
from ragschema.revisions.locations import script_location
from ragschema.revisions.sums import edited_files, file_checksum
from ragschema.words import counted


class _FourteenDigits:
    """What the JSON schemas of results say of a revision id; pydantic looks for this method."""

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        return {**handler(schema), "pattern": "^[0-9]{14}$"}


RevisionId = Annotated[str, _FourteenDigits()]
Direction = Literal["upgrade", "downgrade"]
SEE_REVISIONS = "Run `rag migrate history` to see the revisions."
DIRECTIONS: tuple[Direction, Direction] = ("upgrade", "downgrade")
_NAMED = 3  # ids in a list; more become a range


@dataclass(frozen=True)
class Revision:
    """A revision of this package.

    Attributes:
        revision: Its id, 14 digits.
        summary: The first line of its docstring.
        deploy: ``expand``: goes before the code that needs it; ``contract``: after the last that used what goes.
    """

    revision: RevisionId
    summary: str
    deploy: Deploy


@dataclass(frozen=True)
class Manifest:
    """All revisions, oldest first.

    Attributes:
        revisions: The revisions.
        checksums: SHA-256 of each revision's file, in hexadecimal.
    """

    revisions: tuple[Revision, ...]
    checksums: Mapping[str, str]

    @property
    def head(self) -> str:
        """The revision this package ends at."""
        return self.revisions[-1].revision

    def after(self, current: str | None) -> tuple[Revision, ...] | None:
        """Return the revisions after one, all of them after None; None where that one is not known."""
        if current is None:
            return self.revisions
        ids = [revision.revision for revision in self.revisions]
        return self.revisions[ids.index(current) + 1 :] if current in ids else None

    def pending(self, current: str | None) -> tuple[Revision, ...]:
        """Return the revisions after the one that a database is at, all of them after None.

        Raises:
            DatabaseAhead: This package does not know that one.
        """
        if (pending := self.after(current)) is None:
            raise ahead(str(current))
        return pending


def ahead(*revisions: str) -> DatabaseAhead:
    """Return the error of a database at revisions that this package does not know."""
    return DatabaseAhead(
        f"The database is at revision {', '.join(revisions)}, which this ragschema does not know.",
        "Nothing was changed. Use the ragschema that wrote it, or a newer one.",
    )


def unknown_revision(revision: str) -> UsageError:
    """Return the error of a revision that is asked for and does not exist."""
    return UsageError(f"There is no revision {revision}.", SEE_REVISIONS)


def read_manifest() -> Manifest:
    """Read the packaged revisions: parsed once a process, and again when a file has changed.

    Raises:
        ConfigurationError: They have two heads.
        RagSchemaError: One that is not frozen is not Python.
    """
    versions = versions_directory()
    with os.scandir(versions) as entries:
        found = ((entry.name, entry.stat()) for entry in entries if entry.name.endswith(".py"))
        state = frozenset((name, stat.st_mtime_ns, stat.st_size) for name, stat in found)
    return _read_manifest(versions, state)


@lru_cache(maxsize=1)
def _read_manifest(versions: Path, _state: frozenset[tuple[str, int, int]]) -> Manifest:
    files = read_revision_files(versions)
    for file in edited_files(files, versions):
        _ = file.tree  # the whole: the frozen ones are known to be Python
    if len(heads := find_heads(files)) > 1:
        raise ConfigurationError(*two_heads(heads))
    return Manifest(
        tuple(
            Revision(str(file.revision), file.docstring.partition("\n")[0], deploy_label(file.docstring))
            for file in files
        ),
        MappingProxyType({str(file.revision): file_checksum(file.path) for file in files}),
    )


def describe_ids(revisions: Sequence[str]) -> str:
    """Return ids that follow each other as words: up to three by name, more as a range."""
    if len(revisions) <= _NAMED:
        return ", ".join(revisions)
    return f"{revisions[0]} to {revisions[-1]}, {counted(len(revisions), 'revision')}"


def deploy_label(docstring: str) -> Deploy:
    """Return what a revision's docstring says of its place in a deploy; expand where it says nothing."""
    return read_deploy(split_docstring(docstring)["Deploy"]) or "expand"


def revision_of_release(version: str) -> str:
    """Return the head of a released package version, for ``rollback --to-version``.

    ``releases.json`` is written at a release only: this package itself, where it is not in there yet, is at head.

    Raises:
        UsageError: There is no such release.
    """
    releases = read_releases()
    releases.setdefault(package_version(), read_manifest().head)
    numbers = _numbers(version)
    fitting = [name for name in releases if _numbers(name)[: len(numbers)] == numbers]
    if not fitting:
        raise UsageError(f"There is no release {version}.", f"Released are {', '.join(releases)}.")
    return releases[max(fitting, key=_numbers)]


def read_releases() -> dict[str, str]:
    """Return the head of every release, by package version, oldest first."""
    releases: dict[str, str] = json.loads(releases_path().read_text(encoding="utf-8"))
    return releases


def releases_path() -> Path:
    """Return where the file of the releases is: beside versions/."""
    return script_location() / "releases.json"


def package_version() -> str:
    """Return this package's version."""
    from importlib.metadata import version  # here: it takes as long to import as a status takes to read

    return version("ragschema")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))
