"""The revisions' files, read as text: nothing of them is run, and neither Alembic nor SQLAlchemy imported."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path

from ragschema.errors import RagSchemaError
from ragschema.revisions.locations import script_location

_PACKAGE = Path(__file__).resolve().parents[1]
_FILE_NAME = re.compile(r"(\d{14})_\w+\.py")


@dataclass(frozen=True)
class RevisionFile:
    """The file of a revision.

    Attributes:
        path: Where it is.
        source: Its text.
    """

    path: Path
    source: str = field(repr=False)

    @property
    def prefix(self) -> str | None:
        """The 14 digits that the file's name starts with, None where it does not."""
        match = _FILE_NAME.fullmatch(self.path.name)
        return match[1] if match else None

    @cached_property
    def tree(self) -> ast.Module:
        """The syntax tree; RagSchemaError where the file is not Python."""
        try:
            return ast.parse(self.source, self.path.name)
        except SyntaxError as exc:
            raise RagSchemaError(
                f"{self.path.name} is not Python: line {exc.lineno}: {exc.msg}.", "Mend the file."
            ) from exc

    @cached_property
    def heading(self) -> ast.Module:
        """The syntax tree of what stands before the functions: to read all of 80 files takes four times as long."""
        try:
            return ast.parse(self.source.partition("\ndef ")[0])
        except SyntaxError:  # a docstring has such a line, or the file is not Python
            return self.tree

    @property
    def docstring(self) -> str:
        """The docstring, empty where there is none."""
        return ast.get_docstring(self.heading) or ""

    @cached_property
    def revision(self) -> str | None:
        """The text assigned to ``revision``."""
        value = self._assigned("revision")
        return value if isinstance(value, str) else None

    @cached_property
    def parents(self) -> tuple[str, ...]:
        """The revisions in ``down_revision``: none at the base, two or more in a merge."""
        value = self._assigned("down_revision")
        if isinstance(value, tuple | list):
            return tuple(map(str, value))
        return (value,) if isinstance(value, str) else ()

    def function(self, name: str) -> ast.FunctionDef | None:
        """Return a function of the module, such as ``upgrade``."""
        functions = (node for node in self.tree.body if isinstance(node, ast.FunctionDef))
        return next((node for node in functions if node.name == name), None)

    def _assigned(self, name: str) -> object:
        for node in chain(self.heading.body, self._rest()):
            if isinstance(node, ast.Assign):
                targets, value = node.targets, node.value
            elif isinstance(node, ast.AnnAssign) and node.value is not None:
                targets, value = [node.target], node.value
            else:
                continue
            if any(isinstance(target, ast.Name) and target.id == name for target in targets):
                try:
                    return ast.literal_eval(value)
                except ValueError:
                    return None
        return None

    def _rest(self) -> Iterator[ast.stmt]:
        yield from self.tree.body


def versions_directory() -> Path:
    """Return the directory of this package's revisions."""
    return script_location() / "versions"


def helper_files() -> dict[str, Path]:
    """Return the files that revisions use, frozen too, by name: ``operations_v1/...``, ``routines/...``."""
    helpers = sorted(_PACKAGE.glob("operations_v[0-9]*/**/*.py"))
    routines = routine_paths()
    return {path.relative_to(_PACKAGE).as_posix(): path for path in helpers} | {
        f"{path.parent.name}/{path.name}": path for path in routines
    }


def routine_paths() -> list[Path]:
    """Return the files of functions and triggers, in the order of their names."""
    return sorted((script_location() / "routines").glob("*_v*.sql"))


def revision_paths(versions: Path) -> list[Path]:
    """Return the files of the revisions, in the order of their names."""
    return sorted(path for path in versions.glob("*.py") if path.name != "__init__.py")


def read_revision_files(versions: Path) -> list[RevisionFile]:
    """Read the files of the revisions: each after those it follows, otherwise in the order of names."""
    waiting = [RevisionFile(path, path.read_text(encoding="utf-8")) for path in revision_paths(versions)]
    ordered: list[RevisionFile] = []
    while waiting:
        later = {file.prefix for file in waiting}
        ready = [file for file in waiting if later.isdisjoint(_parents(file))]
        ordered.append((ready or waiting)[0])
        waiting.remove(ordered[-1])
    return ordered


def find_heads(files: Iterable[RevisionFile]) -> list[str]:
    """Return the revisions that no other one follows."""
    files = list(files)
    followed = {parent for file in files for parent in file.parents}
    return sorted({file.revision for file in files if file.revision} - followed)


def two_heads(heads: Sequence[str]) -> tuple[str, str]:
    """Say what is wrong with several heads, and what to run."""
    return (
        f"The revisions have {len(heads)} heads: {', '.join(heads)}.",
        f'In a checkout run `alembic merge --rev-id "$(date -u +%Y%m%d%H%M%S)" -m "Merge heads"'
        f" {' '.join(heads)}`, write its docstring and `pass` in both functions, and run `rag migrate hash`.",
    )


def _parents(file: RevisionFile) -> tuple[str, ...]:
    try:
        return file.parents
    except RagSchemaError:
        return ()
