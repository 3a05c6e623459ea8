"""The history's integrity: what every revision must say and be, checked without a database.

Revisions are read, not run, so a broken one is a problem to report like any other.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ragschema.errors import ConfigurationError, RagSchemaError
from ragschema.revisions.docstrings import read_deploy, split_docstring
from ragschema.revisions.files import (
    RevisionFile,
    find_heads,
    read_revision_files,
    two_heads,
    versions_directory,
)
from ragschema.revisions.sums import HEAD_FILE, SUM_FILE, compare_sum, read_head

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory

_TEMPLATE = re.compile(r'"""(.*?)"""', re.S)
_PUBLIC = re.compile(r'(?<![\w."])(?:public|"public")\s*\.', re.I)
_IMPORTED = re.compile(r"(alembic|sqlalchemy|pgvector)(\.|$)|ragschema\.operations_v\d+$")


@dataclass(frozen=True)
class Problem:
    """Something in the history that must be mended before it ships.

    Attributes:
        file: The name of the file it is in.
        line: The line, None where it is the file as a whole.
        message: What is wrong.
        remedy: What to do.
    """

    file: str
    line: int | None
    message: str
    remedy: str

    def __str__(self) -> str:
        where = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{where}: {self.message}\n  {self.remedy}"


def check_single_head(scripts: ScriptDirectory) -> None:
    """Refuse two heads: nobody can say which of them a database should be at.

    Raises:
        ConfigurationError: There are several; it names them and the ``alembic merge`` command.
    """
    heads = sorted(scripts.get_heads())
    if len(heads) > 1:
        raise ConfigurationError(*two_heads(heads))


def validate(versions: Path | None = None) -> list[Problem]:
    """Check the revisions' files, ``HEAD`` and ``rag.sum``; return what is wrong with them, in order.

    Args:
        versions: The directory of the revisions; this package's own by default.
    """
    versions = versions or versions_directory()
    placeholders = _read_placeholders(versions)
    files = read_revision_files(versions)
    problems: list[Problem] = []
    for file in files:
        try:
            problems += _check_file(file, placeholders)
        except RagSchemaError as exc:
            problems.append(Problem(file.path.name, None, exc.message, exc.remedy))
            files = []  # the order of the others cannot be told without it
    if files:
        problems += [*_check_order(files), *_check_head(files, versions)]
    return [*problems, *_check_sum(versions)]


def _check_file(file: RevisionFile, placeholders: dict[str, str]) -> Iterator[Problem]:
    name, revision = file.path.name, file.revision
    if file.prefix is None or file.prefix != revision:
        yield Problem(
            name,
            None,
            f"The file's name and its revision {revision!r} do not start with the same 14 digits.",
            f"Name it {revision if revision and re.fullmatch('[0-9]{14}', revision) else 'YYYYMMDDHHMMSS'}"
            "_what_it_does.py, with the same id as `revision`.",
        )
    yield from _check_docstring(file, placeholders)
    yield from _check_functions(file)
    yield from _check_imports(file)
    yield from _check_schema(file)


def _check_docstring(file: RevisionFile, placeholders: dict[str, str]) -> Iterator[Problem]:
    name = file.path.name
    parts = split_docstring(file.docstring)
    for part, text in parts.items():
        label = part if part in ("title", "Why") else f"{part}:"
        if not text:
            yield Problem(
                name,
                1,
                f"The docstring has no {label}{' text' if part == 'Why' else ''}.",
                f"Write it; the template says what belongs there: {placeholders.get(part) or part}",
            )
        elif text == placeholders.get(part):
            yield Problem(
                name, 1, f"{label} is still the template's text.", "Write what holds for this revision."
            )
    deploy = parts["Deploy"]
    if deploy and deploy != placeholders.get("Deploy") and read_deploy(deploy) is None:
        yield Problem(
            name,
            1,
            f"Deploy: says neither expand nor contract: {deploy}",
            "Start it with expand (before the code that needs it) or contract (after the last that used it).",
        )


def _check_functions(file: RevisionFile) -> Iterator[Problem]:
    name, is_merge = file.path.name, len(file.parents) > 1
    for direction in ("upgrade", "downgrade"):
        function = file.function(direction)
        if function is None:
            yield Problem(
                name, None, f"There is no function {direction}.", f"Write `def {direction}() -> None:`."
            )
        elif any("is not written yet" in text for text in _errors(function)):
            yield Problem(name, function.lineno, f"{direction} is still the template's.", "Write it.")
        elif direction == "downgrade" and not is_merge and all(map(_does_nothing, function.body)):
            yield Problem(
                name,
                function.lineno,
                "downgrade does nothing.",
                "Reverse upgrade, or raise an error that says what to do instead.",
            )


def _check_imports(file: RevisionFile) -> Iterator[Problem]:
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            modules = [f"{module}.{a.name}" for a in node.names] if module == "ragschema" else [module]
        else:
            continue
        for module in modules:
            if module.partition(".")[0] not in sys.stdlib_module_names and not _IMPORTED.match(module):
                yield Problem(
                    file.path.name,
                    node.lineno,
                    f"It imports {module}, which may change after the revision has landed.",
                    "Import alembic, sqlalchemy, pgvector, ragschema.operations_v2 and the standard library"
                    " only; write names and types out.",
                )


def _check_schema(file: RevisionFile) -> Iterator[Problem]:
    errors = _errors(file.tree)  # which may speak of anything
    lines = {line for line, text in _strings(file.tree) if _PUBLIC.search(text) and text not in errors}
    for node in ast.walk(file.tree):
        if isinstance(node, ast.keyword) and (node.arg or "").endswith("schema"):
            lines |= {node.value.lineno for _, text in _strings(node) if text == "public"}
    for line in sorted(lines):
        yield Problem(
            file.path.name,
            line,
            "It names the schema public.",
            "Leave the schema out: names resolve in the schema that is being migrated.",
        )


def _check_order(files: Sequence[RevisionFile]) -> Iterator[Problem]:
    names = Counter(file.revision for file in files)
    for file in files:
        if names[file.revision] > 1:
            yield Problem(
                file.path.name, None, f"Another file is revision {file.revision} too.", "Give one a new id."
            )
        for parent in file.parents:
            if parent not in names:
                yield Problem(
                    file.path.name,
                    None,
                    f"It follows revision {parent}, which does not exist.",
                    "Set down_revision to the revision before it.",
                )
    bases = [file.path.name for file in files if not file.parents]
    for name in bases[1:]:
        yield Problem(
            name,
            None,
            f"It follows no revision, and neither does {bases[0]}.",
            "Set down_revision to the revision before it.",
        )


def _check_head(files: Sequence[RevisionFile], versions: Path) -> Iterator[Problem]:
    heads = find_heads(files)
    if len(heads) > 1:
        yield Problem(HEAD_FILE, None, *two_heads(heads))
    elif read_head(versions) != (found := "".join(heads)):
        yield Problem(
            HEAD_FILE,
            None,
            f"It does not name the head, {found}.",
            "Run `rag migrate hash`; in a merge, first set the newer revision's down_revision.",
        )


def _check_sum(versions: Path) -> Iterator[Problem]:
    change = compare_sum(versions)
    for name in change.added:
        yield Problem(name, None, f"It is not in {SUM_FILE}.", "Run `rag migrate hash`.")
    for name in change.changed:
        yield Problem(
            name,
            None,
            f"It is not the file that {SUM_FILE} was written for.",
            "If it has landed, restore it and correct it with a new revision; else run `rag migrate hash`.",
        )
    for name in change.removed:
        yield Problem(name, None, f"It is in {SUM_FILE}, but there is no such file.", "Restore the file.")
    if change.is_damaged:
        yield Problem(
            SUM_FILE,
            None,
            "It is missing, or its lines do not fit together.",
            "Run `rag migrate hash`, and look at what it names.",
        )


def _read_placeholders(versions: Path) -> dict[str, str]:
    template = versions.parent / "script.py.mako"
    docstring = _TEMPLATE.search(template.read_text(encoding="utf-8")) if template.is_file() else None
    return split_docstring(docstring[1]) if docstring else {}


def _strings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the strings in a tree with their lines, but for docstrings."""
    alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in alone:
            yield node.lineno, node.value


def _errors(tree: ast.AST) -> set[str]:
    """Return the strings that errors are raised with."""
    raised = (node for node in ast.walk(tree) if isinstance(node, ast.Raise))
    return {text for node in raised for _, text in _strings(node)}


def _does_nothing(node: ast.stmt) -> bool:
    if isinstance(node, ast.Expr | ast.Return):
        return node.value is None or isinstance(node.value, ast.Constant)
    return isinstance(node, ast.Pass)
