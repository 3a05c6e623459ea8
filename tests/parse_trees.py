"""Parse trees: which function or operator the server chose for each call in a PL/pgSQL body, and how."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}()]|\[[^\]]*\]|[^\s{}()]+')
_SEEN = re.compile(
    r'\A(?:PL/pgSQL (?:expression|assignment)|SQL (?:statement|expression)) "(.*?)"\nPL/pgSQL function (\w+)\(',
    re.S,
)
_CALLS = ("FUNCEXPR", "OPEXPR", "DISTINCTEXPR", "NULLIFEXPR", "SCALARARRAYOPEXPR", "AGGREF", "WINDOWFUNC")
_FORMATS = ("funcformat", "relabelformat", "coerceformat", "coercionformat", "convertformat")
_IMPLICIT, _SYNTAX = "2", "3"  # CoercionForm: a cast that nobody wrote; a call that the grammar qualifies


@dataclass(frozen=True)
class Seen:
    """An expression or statement that the server analysed, in which function, and its tree."""

    function: str
    text: str
    tree: Any


def watch(connection: psycopg.Connection[Any]) -> list[Seen]:
    """Collect every expression of a function that is analysed in a session from now on, each once."""
    seen: list[Seen] = []

    def notice(diagnostic: psycopg.errors.Diagnostic) -> None:
        found = _SEEN.match(diagnostic.context or "")
        if found and diagnostic.message_primary == "parse tree:":
            seen.append(Seen(found[2], found[1], _read(diagnostic.message_detail or "")))

    connection.add_notice_handler(notice)
    for setting in ("debug_pretty_print = off", "client_min_messages = log", "debug_print_parse = on"):
        connection.execute(f"SET {setting}".encode())
    return seen


def _read(text: str) -> Any:
    """Return a node as a dictionary, ``_`` its kind; a list of nodes as a list, anything else as a string."""
    tokens = _TOKEN.findall(text)
    place = 0

    def value() -> Any:
        nonlocal place
        token = tokens[place]
        place += 1
        if token == "(":
            items = []
            while tokens[place] != ")":
                items.append(value())
            place += 1
            return items
        if token != "{":
            return token
        node: dict[str, Any] = {"_": tokens[place]}
        place += 1
        field = ""
        while tokens[place] != "}":
            if tokens[place].startswith(":"):
                field = tokens[place][1:]
                node[field] = None
                place += 1
            else:
                found = value()
                node[field] = found if node[field] is None else node[field]
        place += 1
        return node

    return value()


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    if isinstance(tree, dict):
        yield tree
    for inner in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        yield from _nodes(inner)


@dataclass(frozen=True)
class Catalogue:
    """What calls are declared with: argument types of functions and operators, and which types are polymorphic."""

    functions: dict[str, list[str]]
    operators: dict[str, list[str]]
    polymorphic: frozenset[str]
    text: str

    @classmethod
    def read(cls, connection: psycopg.Connection[Any]) -> Catalogue:
        functions = connection.execute("SELECT oid::text, proargtypes::oid[]::text[] FROM pg_proc").fetchall()
        operators = connection.execute(
            "SELECT oid::text, ARRAY[oprleft, oprright]::text[] FROM pg_operator"
        ).fetchall()
        loose = connection.execute(
            "SELECT oid::text FROM pg_type WHERE typtype = 'p' AND typname ~ '^any'"
        ).fetchall()
        return cls(dict(functions), dict(operators), frozenset(oid for (oid,) in loose), "25")


def loose_calls(seen: Seen, catalogue: Catalogue) -> list[str]:
    """Return the calls that another function of the search_path could answer, by fitting better."""
    calls = [
        node
        for node in _nodes(seen.tree)
        if node["_"] in _CALLS and node.get("funcformat") not in ("1", "2", "3")
    ]
    places = Counter(int(node["location"]) for node in calls)
    found = []
    for node in calls:
        place = int(node["location"])
        written = seen.text[place:] if place >= 0 else "?"
        if written.startswith(("pg_catalog.", "OPERATOR(pg_catalog.")):
            continue
        if places[place] > 1 and re.match(r"unnest\(\s*\S+,", written):
            continue  # of several arrays in FROM: the grammar itself says pg_catalog
        if _is_loose(node, seen.text, catalogue):
            found.append(f"{seen.function}: {seen.text[max(place - 30, 0) : place + 40]!r}")
    return found


def _is_loose(node: dict[str, Any], text: str, catalogue: Catalogue) -> bool:
    is_operator = "opno" in node
    declared = (
        catalogue.operators[node["opno"]]
        if is_operator
        else catalogue.functions[node.get("funcid") or node["aggfnoid"]]
    )
    arguments = node["args"] if isinstance(node["args"], list) else []
    arguments = [each["expr"] if each["_"] == "TARGETENTRY" else each for each in arguments]
    if len(arguments) != len(declared) or node.get("funcvariadic") == "true":
        return True
    if any(each in catalogue.polymorphic for each in declared):
        return True
    if any(argument.get(name) == _IMPLICIT for argument in arguments for name in _FORMATS):
        return True
    unknown = [_is_unknown(argument, text) for argument in arguments]
    if is_operator:  # the other operand's type is tried first
        return all(unknown) or (any(unknown) and declared[0] != declared[1])
    return any(declared[i] != catalogue.text for i, is_unknown in enumerate(unknown) if is_unknown)


def _is_unknown(argument: dict[str, Any], text: str) -> bool:
    """Whether an argument is a literal without a type."""
    if argument["_"] != "CONST":
        return False
    place = int(argument["location"])
    literal = re.compile(r"E?'(?:[^']|'')*'|NULL\b").match(text, place)
    if literal is None:
        return False
    return not text[literal.end() :].startswith("::") and not re.search(r"\binterval\s*\Z", text[:place])


def unseen(body: str, texts: list[str]) -> str:
    """Return what is left of a body without what was seen: it should hold neither call nor operator."""
    for text in sorted(texts, key=len, reverse=True):
        words = [re.escape(word) for word in text.split()]
        if re.match(r"\s*SELECT\b", text):
            words[0] = "(?:SELECT|PERFORM)"
        body = re.sub(r"\s+(?:INTO\s+\w+(?:,\s*\w+)*\s+)?".join(words), " ", body)
    body = re.sub(r"--.*|'(?:[^']|'')*'", " ", body)
    body = re.sub(
        r"GET DIAGNOSTICS \w+ = ROW_COUNT|\b(?:ERRCODE|MESSAGE|TABLE|COLUMN|HINT|DETAIL) =|:=", " ", body
    )
    return re.sub(r"\s+", " ", body)
