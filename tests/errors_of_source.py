"""Our errors as the source raises them: each message with ``…`` for what it fills in."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from conftest import ROOT

SOURCE = ROOT / "src" / "ragschema"
FILLED_IN = "…"


@dataclass(frozen=True)
class RaisedError:
    """A call of an error's class.

    Attributes:
        kind: The class.
        message: Its first argument, with ``…`` for values; None where a variable holds all of it.
        place: The file and line.
    """

    kind: str
    message: str | None
    place: str

    @property
    def first_words(self) -> str:
        """The first words by which one looks for it, up to its first comma, colon or full stop."""
        words = (self.message or "").split()
        taken: list[str] = []
        for word in words:
            taken.append(word.rstrip(".,:;"))
            literal = [each for each in taken if FILLED_IN not in each]
            if word[-1] in ".:;" or len(literal) == 5:
                break
        return " ".join(taken)


def read_errors() -> list[RaisedError]:
    """Return every error of ours that the source makes, sorted by place."""
    trees = {path: ast.parse(path.read_text()) for path in sorted(SOURCE.rglob("*.py"))}
    kinds = {"RagSchemaError"}
    while True:
        found = {
            node.name
            for tree in trees.values()
            for node in ast.walk(tree)
            if isinstance(node, ast.ClassDef)
            and any(isinstance(base, ast.Name) and base.id in kinds for base in node.bases)
        }
        if found <= kinds:
            break
        kinds |= found
    return [
        RaisedError(node.func.id, _template(node.args[0]), f"{path.relative_to(ROOT)}:{node.lineno}")
        for path, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in kinds
        and node.args
    ]


def _template(node: ast.expr) -> str | None:
    pieces = list(_pieces(node))
    return None if all(piece == FILLED_IN for piece in pieces) else " ".join("".join(pieces).split())


def _pieces(node: ast.expr) -> Iterator[str]:
    if isinstance(node, ast.Constant):
        yield str(node.value)
    elif isinstance(node, ast.JoinedStr):
        for value in node.values:
            yield from _pieces(value)
    elif isinstance(node, ast.BinOp):
        yield from _pieces(node.left)
        yield from _pieces(node.right)
    elif isinstance(node, ast.IfExp):
        yield from _pieces(node.body)
    else:
        yield FILLED_IN
