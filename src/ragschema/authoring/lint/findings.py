"""Findings of lint, and the words of an advice."""

from __future__ import annotations

import json
from dataclasses import dataclass
from textwrap import indent
from typing import NamedTuple

from sqlalchemy.dialects import postgresql

from ragschema import operations_v2
from ragschema.revisions.manifest import RevisionId

NEXT = "# and in the next revision (`rag migrate create`):"

quote = postgresql.dialect().identifier_preparer.quote  # type: ignore[no-untyped-call]

_WIDTH = 100  # columns of a line of code that is offered
_SHOWN = 160  # characters of a statement that are shown


class Advice(NamedTuple):
    """What to tell about a statement.

    Attributes:
        blocks: What it blocks, breaks or hides.
        instead: What to do, a sentence that ends in a colon where code follows.
        code: The code to write instead, empty where words are enough.
    """

    blocks: str
    instead: str
    code: str = ""


@dataclass(frozen=True)
class Finding:
    """Something in a revision that would hurt a database in use.

    Attributes:
        rule: The name of the rule, one of squawk's or one of ours.
        revision: The revision's id.
        file: The name of its file.
        line: The line in it.
        statement: The SQL it is about, on one line, empty where it is about no statement.
        blocks: What it blocks, breaks or hides.
        instead: What to do, a sentence that ends in a colon where code follows.
        code: The code to write instead, empty where words are enough.
    """

    rule: str
    revision: RevisionId
    file: str
    line: int
    statement: str
    blocks: str
    instead: str
    code: str

    def __str__(self) -> str:
        parts = [f"{self.file}:{self.line}: {self.rule}"]
        if self.statement:
            parts.append(f"  {self.statement}")
        parts += [self.blocks, self.instead]
        text = "\n".join(parts)
        return f"{text}\n\n{indent(self.code, '    ')}" if self.code else text


def shorten(sql: str) -> str:
    """Return a statement on one line, cut off where it is long."""
    line = " ".join(sql.split())
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}..."


def literal(value: object) -> str:
    """Return a Python literal, with double quotes where the text has none."""
    if isinstance(value, str) and "\n" in value and '"""' not in value and "\\" not in value:
        return f'"""{value}"""'
    if isinstance(value, str) and '"' in value and "'" not in value and "\\" not in value:
        return f"'{value}'"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        return f"[{', '.join(map(literal, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{literal(k)}: {literal(v)}' for k, v in value.items())}}}"
    return repr(value)


def call(function: str, *arguments: object, **keywords: object) -> str:
    """Return a call in Python, its arguments below each other where they do not fit on a line."""
    parts = [*map(literal, arguments), *(f"{name}={literal(value)}" for name, value in keywords.items())]
    line = f"{function}({', '.join(parts)})"
    if len(line) <= _WIDTH or len(parts) == 1:
        return line
    below = "".join(f"    {part},\n" for part in parts)
    return f"{function}(\n{below})"


def function(name: str, *lines: str) -> str:
    """Return a function of a revision."""
    body = indent("\n".join(lines), "    ")
    return f"def {name}() -> None:\n{body}"


def revision(*upgrade: str, downgrade: str = "") -> str:
    """Return the functions of a revision, below the import of the helpers they call."""
    functions = [function("upgrade", *upgrade)]
    if downgrade:
        functions.append(function("downgrade", downgrade))
    return with_imports("\n\n\n".join(functions))


def with_imports(code: str) -> str:
    """Return code below the import of the helpers it calls."""
    helpers = [name for name in operations_v2.__all__ if f" {name}(" in code]
    return f"from {operations_v2.__name__} import {', '.join(helpers)}\n\n\n{code}" if helpers else code


def followed_by(first: str, second: str, *, comment: str = NEXT) -> str:
    """Return the code of two revisions."""
    return f"{first}\n\n\n{comment}\n{second}"
