"""Our errors as the source raises them: each message with ``…`` for what it fills in."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

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
        taken: list[str] = []
        for word in (self.message or "").replace(FILLED_IN, f" {FILLED_IN} ").split():
            taken.append(word.rstrip(".,:;"))
            literal = [each for each in taken if re.search(r"\w", each)]
            if len(literal) == 5 or (literal and word[-1] in ".:;"):
                break
        while taken and not re.search(r"\w", taken[-1]):
            taken.pop()
        return " ".join(taken)


@cache
def parsed_sources() -> dict[Path, ast.Module]:
    """Return the syntax tree of every module of the package, by its path: parsed once a process."""
    return {path: ast.parse(path.read_text()) for path in sorted(SOURCE.rglob("*.py"))}


@cache
def read_errors() -> list[RaisedError]:
    """Return every error of ours that the source makes, sorted by place."""
    trees = {path: list(ast.walk(tree)) for path, tree in parsed_sources().items()}
    classes = [node for nodes in trees.values() for node in nodes if isinstance(node, ast.ClassDef)]
    kinds = {"RagSchemaError"}
    while True:
        found = {
            node.name
            for node in classes
            if any(isinstance(base, ast.Name) and base.id in kinds for base in node.bases)
        }
        if found <= kinds:
            break
        kinds |= found
    makers = {
        function.name: [argument.arg for argument in function.args.args].index(name)
        for nodes in trees.values()
        for function in nodes
        if isinstance(function, ast.FunctionDef) and (name := _passed_on(function, kinds)) is not None
    }
    errors = []
    for path, nodes in trees.items():
        for node in nodes:
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args):
                continue
            place = makers.get(node.func.id, 0 if node.func.id in kinds else None)
            if place is not None and place < len(node.args):
                where = f"{path.relative_to(ROOT)}:{node.lineno}"
                errors.append(RaisedError(node.func.id, _template(node.args[place]), where))
    return errors


def _passed_on(function: ast.FunctionDef, kinds: set[str]) -> str | None:
    """Return the parameter of a function that begins the message of an error which it makes."""
    parameters = {argument.arg for argument in function.args.args}
    for node in ast.walk(function):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in kinds
            and node.args
        ):
            first = node.args[0]
            if isinstance(first, ast.Name):
                assigned = [
                    each.value
                    for each in ast.walk(function)
                    if isinstance(each, ast.Assign) and ast.unparse(each.targets[0]) == first.id
                ]
                first = assigned[0] if assigned else first
            if (
                isinstance(first, ast.JoinedStr)
                and first.values
                and isinstance(first.values[0], ast.FormattedValue)
            ):
                first = first.values[0].value
            if isinstance(first, ast.Name) and first.id in parameters and _template(node.args[0]) is None:
                return first.id
    return None


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
