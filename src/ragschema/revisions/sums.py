"""``rag.sum`` and ``HEAD``, the files beside the revisions that keep their history from changing unseen.

``rag.sum`` has a line for each frozen file: the helpers that revisions import, and the revisions from base to
head. A new file is a new line at the end, and the lines above it stay. A line's hash is the SHA-256 of the hash
before it, a line feed and the file's bytes with line feeds as line endings; the first line is the hash of the lines
below it. ``HEAD`` is the head's id on one line: two branches that each add a revision conflict there in git, before
they become two heads.

Reading takes neither Alembic nor SQLAlchemy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path

from ragschema.errors import ConfigurationError
from ragschema.revisions.files import (
    RevisionFile,
    find_heads,
    helper_files,
    read_revision_files,
    two_heads,
    versions_directory,
)
from ragschema.revisions.locations import require_checkout

SUM_FILE = "rag.sum"
HEAD_FILE = "HEAD"

_PREFIX = "sha256:"


@dataclass(frozen=True)
class SumChange:
    """How the frozen files differ from ``rag.sum``.

    Attributes:
        added: Names of files that it does not have.
        changed: Names of files whose bytes are not those it was written for.
        removed: Names that it has, and no file.
        is_damaged: Whether its own lines do not fit together: it was merged or edited by hand, or is missing.
    """

    added: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    is_damaged: bool = False

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed or self.is_damaged)


def file_checksum(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal, the same whatever its line endings."""
    return hashlib.sha256(_read(path)).hexdigest()


def edited_files(files: Iterable[RevisionFile], versions: Path) -> list[RevisionFile]:
    """Return the revisions whose files are not those that ``rag.sum`` was written for."""
    recorded, _ = _read_sum(versions)
    before = dict(zip(recorded, ["", *recorded.values()], strict=False))
    return [
        file
        for file in files
        if (line := recorded.get(name := file.path.name)) is None or _link(before[name], file.path) != line
    ]


def compare_sum(versions: Path | None = None) -> SumChange:
    """Compare the frozen files with ``rag.sum``."""
    versions = versions or versions_directory()
    recorded, fits = _read_sum(versions)
    files = _frozen_files(versions, recorded)
    known = [name for name in files if name in recorded]
    chained = dict(zip(recorded, ["", *recorded.values()], strict=False))
    is_chained = list(recorded) == list(files) and all(
        _link(chained[name], files[name]) == recorded[name] for name in known
    )
    # after a merge by hand a line may stand below another one than it was written under
    before = ["", *recorded.values()]
    changed = [n for n in known if all(_link(line, files[n]) != recorded[n] for line in before)]
    added = [name for name in files if name not in recorded]
    removed = [name for name in recorded if name not in files]
    return SumChange(
        added, changed, removed, is_damaged=not fits or not (is_chained or added or changed or removed)
    )


def write_sum(versions: Path | None = None) -> SumChange:
    """Write ``rag.sum`` and ``HEAD`` anew; return how the files differed from the old ``rag.sum``.

    Raises:
        ConfigurationError: These are an installed package's revisions, or they have several heads.
    """
    versions = versions or versions_directory()
    _refuse_packaged(versions)
    change = compare_sum(versions)
    _write(versions, sum_texts(versions))
    return change


def sum_texts(versions: Path | None = None) -> dict[str, str]:
    """Return what ``rag.sum`` and ``HEAD`` must be, by file name.

    Raises:
        ConfigurationError: The revisions have several heads.
    """
    versions = versions or versions_directory()
    heads = find_heads(read_revision_files(versions))
    if len(heads) > 1:
        raise ConfigurationError(*two_heads(heads))
    lines: dict[str, str] = {}
    previous = ""
    for name, path in _frozen_files(versions, _read_sum(versions)[0]).items():
        previous = lines[name] = _link(previous, path)
    return _texts(lines, heads[0] if heads else "")


def add_revision(path: Path) -> None:
    """Append a revision just written to ``rag.sum``, and name it in ``HEAD``; no other line changes.

    Raises:
        ConfigurationError: ``rag.sum`` is missing or damaged.
    """
    recorded, fits = _read_sum(path.parent)
    if not fits:
        raise ConfigurationError(
            f"{SUM_FILE} is missing or damaged, so {path.name} was not added to it.",
            "Run `rag migrate hash`, and look at what it names.",
        )
    recorded[path.name] = _link(list(recorded.values())[-1] if recorded else "", path)
    _write(path.parent, _texts(recorded, path.name[:14]))


def read_head(versions: Path) -> str | None:
    """Return the text of ``HEAD``, None where there is no such file."""
    path = versions / HEAD_FILE
    return path.read_text(encoding="utf-8").rstrip("\n") if path.is_file() else None


def _frozen_files(versions: Path, recorded: Mapping[str, str]) -> dict[str, Path]:
    """Return the files by name: as they are recorded, as long as that is from base to head, then the others."""
    revisions = {file.path.name: file.path for file in read_revision_files(versions)}
    files = helper_files() | revisions
    expected = iter(revisions)
    kept = takewhile(
        lambda name: name not in revisions or name == next(expected), filter(files.get, recorded)
    )
    return {name: files[name] for name in dict.fromkeys([*kept, *files])}


def _read(path: Path) -> bytes:
    return path.read_bytes().replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _link(previous: str, path: Path) -> str:
    return hashlib.sha256(previous.encode() + b"\n" + _read(path)).hexdigest()


def _read_sum(versions: Path) -> tuple[dict[str, str], bool]:
    """Return the recorded hashes by file name, and whether the lines fit together."""
    path = versions / SUM_FILE
    if not path.is_file():
        return {}, False
    first, *lines = path.read_text(encoding="utf-8").splitlines() or [""]
    parts = [line.partition(f" {_PREFIX}") for line in lines]
    recorded = {name: checksum for name, mark, checksum in parts if mark}
    return recorded, first == _PREFIX + _total(lines)


def _total(lines: Sequence[str]) -> str:
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()


def _texts(checksums: Mapping[str, str], head: str) -> dict[str, str]:
    lines = [f"{name} {_PREFIX}{checksum}" for name, checksum in checksums.items()]
    return {
        SUM_FILE: "".join(f"{line}\n" for line in [_PREFIX + _total(lines), *lines]),
        HEAD_FILE: f"{head}\n",
    }


def _write(versions: Path, texts: Mapping[str, str]) -> None:
    for name, text in texts.items():
        (versions / name).write_text(text, encoding="utf-8", newline="\n")


def _refuse_packaged(versions: Path) -> None:
    if versions == versions_directory():
        require_checkout("Sums", "uv run rag migrate hash")
