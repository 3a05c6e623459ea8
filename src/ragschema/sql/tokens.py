"""Tokens of SQL: the one place that knows where a comment, a string or a quoted name ends."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import groupby
from typing import Literal, NamedTuple

Kind = Literal["word", "name", "string", "number", "mark", "space"]

_TOKEN = re.compile(
    r"""
    (?P<space>\s+|--[^\n]*)
    | (?P<comment>/\*)
    | (?P<string>[eE]'(?:[^'\\]|\\.|'')*'? | (?:[bBxXnN]|[uU]&)?'(?:[^']|'')*'?
        | (?P<tag>\$(?:[^\W\d]\w*)?\$).*?(?:(?P=tag)|\Z))
    | (?P<name>(?:[uU]&)?"(?:[^"]|"")*"?)
    | (?P<word>[^\W\d][\w$]*)
    | (?P<number>\d[\w.]*)
    | (?P<mark>::|.)
    """,
    re.S | re.X,
)
_COMMENT_EDGE = re.compile(r"/\*|\*/")


class Token(NamedTuple):
    """A piece of a text of SQL.

    Attributes:
        kind: ``word`` is a keyword or a name without quotes, ``name`` one in quotes; ``space`` is a comment too.
        text: It, as written.
        start: Where it begins, in characters.
    """

    kind: Kind
    text: str
    start: int

    @property
    def word(self) -> str:
        """The word in capitals, empty for anything else."""
        return self.text.upper() if self.kind == "word" else ""


@lru_cache(maxsize=1024)  # lint, plan and guard read the same statements
def tokenize(sql: str) -> tuple[Token, ...]:
    """Split a text of SQL into tokens, which together are the text."""
    return tuple(_tokenize(sql))


def _tokenize(sql: str) -> Iterator[Token]:
    start = 0
    while match := _TOKEN.match(sql, start):
        kind, end = match.lastgroup or "mark", match.end()
        if kind == "comment":
            kind, end = "space", _end_of_comment(sql, end)
        yield Token(kind, sql[start:end], start)  # type: ignore[arg-type]  # the groups are the kinds
        start = end


def _end_of_comment(sql: str, start: int) -> int:
    """Return where a comment ends, which may hold others; it begins before ``start``."""
    depth = 1
    for edge in _COMMENT_EDGE.finditer(sql, start):
        depth += 1 if edge[0] == "/*" else -1
        if depth == 0:
            return edge.end()
    return len(sql)


def without_comments(sql: str) -> str:
    """Return a text of SQL on one line but for its strings, with a space for each comment."""
    return _join(tokenize(sql))


def plain(sql: str) -> str:
    """Return a statement on one line, without comments and without what its strings hold."""
    return _join(t._replace(text="''") if t.kind == "string" else t for t in tokenize(sql))


def _join(tokens: Iterable[Token]) -> str:
    return "".join(
        " " if is_space else "".join(token.text for token in found)
        for is_space, found in groupby(tokens, key=lambda token: token.kind == "space")
    ).strip()
