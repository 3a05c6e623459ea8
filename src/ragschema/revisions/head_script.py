"""The head script: every table, function and trigger of head in one text, for a schema that has none of them yet.

``alembic/head.sql`` is derived from the revisions by ``rag migrate freeze``. It names no schema: it is to be run with a
search_path of our schema, then pgvector's, as revisions are. Read without Alembic and SQLAlchemy.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ragschema.revisions.files import helper_files
from ragschema.revisions.locations import checkout, script_location
from ragschema.revisions.manifest import Manifest, RevisionId
from ragschema.revisions.sums import file_checksum

_OF, _HEAD = "-- Of: sha256:", "-- Head: "
_ADDS_KEY = re.compile(r"ALTER TABLE [^;]+\bADD CONSTRAINT ")
_BETWEEN = "\n--\n"  # statements: to read them takes no parser then


@dataclass(frozen=True)
class HeadScript:
    """The statements that make what all revisions up to head leave behind.

    Attributes:
        revision: That head.
        statements: In order, without semicolons.
        checksum: SHA-256 of the file, in hexadecimal.
        summary: What it does, in a line.
    """

    revision: RevisionId
    statements: tuple[str, ...]
    checksum: str
    summary: str = "Every table at once, by the head script"

    @property
    def text(self) -> str:
        """All of it in one string."""
        return _joined(self.statements)

    @property
    def before_rows(self) -> str:
        """Its tables, with what they need to take rows: no key yet, no index and no trigger."""
        return _joined(self.statements[: self._first_key])

    @property
    def after_rows(self) -> str:
        """The rest of it: keys, indexes, triggers, foreign keys."""
        return _joined(self.statements[self._first_key :])

    @property
    def _first_key(self) -> int:
        return next(number for number, each in enumerate(self.statements) if _ADDS_KEY.match(each))


def _joined(statements: Iterable[str]) -> str:
    return ";\n".join(statements)


def head_script_path() -> Path:
    """Return where the file is: beside versions/."""
    return script_location() / "head.sql"


def head_script_text(statements: Iterable[str], manifest: Manifest, command: str) -> str:
    """Return the text of the file.

    Args:
        statements: In order, without semicolons.
        manifest: The revisions that they come of.
        command: What writes the file.

    Raises:
        ValueError: A statement has a line that would end it in the file.
    """
    listed = list(statements)
    if any(_BETWEEN in f"\n{each}\n" for each in listed):
        raise ValueError("a statement has a line of two hyphens alone, which parts statements in the file")
    head = (
        "-- What all revisions leave in an empty schema. Run it with a search_path of that schema, then pgvector's.\n"
        f"-- Written by: {command}\n{_HEAD}{manifest.head}\n{_OF}{_digest(manifest)}"
    )
    return _BETWEEN.join([head, *(f"{each};" for each in listed)]) + "\n"


def read_head_script(manifest: Manifest) -> HeadScript | None:
    """Read the head script; None where it is not of these revisions: one was added or edited since it was written."""
    path = head_script_path()
    try:
        status = path.stat()
        return _read(path, status.st_mtime_ns, status.st_size, manifest.head, _digest_of_checkout(manifest))
    except FileNotFoundError:
        return None


@lru_cache(maxsize=1)
def _read(path: Path, _changed: int, _size: int, head: str, digest: str | None) -> HeadScript | None:
    first, *statements = path.read_text(encoding="utf-8").rstrip("\n").split(_BETWEEN)
    told = first.split("\n")
    if f"{_HEAD}{head}" not in told or (digest is not None and f"{_OF}{digest}" not in told):
        return None
    return HeadScript(head, tuple(each.removesuffix(";") for each in statements), file_checksum(path))


def _digest_of_checkout(manifest: Manifest) -> str | None:
    """Return the digest of the revisions; None in an installed package, whose files nobody edits."""
    return None if checkout() is None else _digest(manifest)


def _digest(manifest: Manifest) -> str:
    return _digest_of(tuple(manifest.checksums.items()))


@lru_cache(maxsize=1)
def _digest_of(revisions: tuple[tuple[str, str], ...]) -> str:
    """Return the SHA-256 of the revisions and of the files that they use."""
    helpers = ((name, file_checksum(path)) for name, path in sorted(helper_files().items()))
    lines = (f"{name} {checksum}\n" for name, checksum in (*revisions, *helpers))
    return hashlib.sha256("".join(lines).encode()).hexdigest()
