"""Drops: the objects that a statement removes, or gives another type, unless something depends on them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ragschema.sql.names import split_list, unquote
from ragschema.sql.splitting import split_sql
from ragschema.sql.tokens import Token, tokenize

Kind = Literal["table", "column", "column type", "index", "constraint", "function", "type"]

_KINDS: dict[str, Kind] = {
    "TABLE": "table",
    "VIEW": "table",
    "INDEX": "index",
    "FUNCTION": "function",
    "PROCEDURE": "function",
    "ROUTINE": "function",
    "AGGREGATE": "function",
    "TYPE": "type",
    "DOMAIN": "type",
}


@dataclass(frozen=True)
class Drop:
    """What a statement removes.

    Attributes:
        kind: What it is; a view counts as a table, ``column type`` is a column that gets another type.
        name: Its name, or the table of a column or a constraint.
        part: The column or the constraint; None for the others.
    """

    kind: Kind
    name: str
    part: str | None = None


def find_drops(sql: str) -> Iterator[Drop]:
    """Yield what a statement removes, or several in one string; not with CASCADE, which nothing stops."""
    for _, statement in split_sql(sql):
        tokens = [token for token in tokenize(statement) if token.kind != "space"]
        words = [token.word for token in tokens]
        if words[:1] == ["DROP"] and "CASCADE" not in words:
            yield from _dropped(tokens, words)
        elif words[:2] == ["ALTER", "TABLE"]:
            yield from _altered(tokens, words)


def _dropped(tokens: list[Token], words: list[str]) -> Iterator[Drop]:
    place = 2 if words[1:2] == ["MATERIALIZED"] else 1
    kind = _KINDS.get(words[place]) if place < len(words) else None
    if kind is None:
        return
    rest = _rest(tokens, _after(words, place + 1, "CONCURRENTLY", "IF", "EXISTS"))
    for path in split_list(rest):
        name = path.partition("(")[0].strip()
        if name:
            yield Drop(kind, unquote(name))


def _altered(tokens: list[Token], words: list[str]) -> Iterator[Drop]:
    start = _after(words, 2, "IF", "EXISTS", "ONLY")
    end = start
    while end + 1 < len(tokens) and tokens[end + 1].text == ".":
        end += 2
    if end >= len(tokens):
        return
    table = unquote(tokens[end].text)
    for action in split_list(_rest(tokens, end + 1)):
        parts = [token for token in tokenize(action) if token.kind != "space"]
        verbs = [part.word for part in parts]
        if verbs[:1] == ["DROP"] and "CASCADE" not in verbs:
            kind: Kind = "constraint" if verbs[1:2] == ["CONSTRAINT"] else "column"
            place = _after(verbs, 1, "COLUMN", "CONSTRAINT", "IF", "EXISTS")
        elif verbs[:1] == ["ALTER"] and "TYPE" in verbs:
            kind, place = "column type", _after(verbs, 1, "COLUMN")
        else:
            continue
        if place < len(parts):
            yield Drop(kind, table, unquote(parts[place].text))


def _after(words: list[str], place: int, *optional: str) -> int:
    while place < len(words) and words[place] in optional:
        place += 1
    return place


def _rest(tokens: list[Token], place: int) -> str:
    return " ".join(token.text for token in tokens[place:])
