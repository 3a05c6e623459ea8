"""Statements of a text of SQL, each with its place."""

from __future__ import annotations

import re
from collections.abc import Iterator

# What may hold a semicolon that ends nothing: strings, names, dollar quotes, comments, bodies of functions.
_PIECE = re.compile(
    r"""
    [eE]'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*' | "(?:[^"]|"")*"
    | (?P<tag>\$(?:[A-Za-z_]\w*)?\$).*?(?P=tag)
    | (?P<comment>--[^\n]* | /\*.*?\*/)
    | \bBEGIN\s+ATOMIC\b.*?;\s*END\b
    | (?P<end>;)
    | .
    """,
    re.S | re.X | re.I,
)


def split_sql(sql: str) -> Iterator[tuple[int, str]]:
    """Split SQL into its statements, each with its offset; comments before a statement are left out."""
    start, found = 0, False
    for piece in _PIECE.finditer(sql):
        if piece["end"]:
            if found:
                yield start, sql[start : piece.start()].rstrip()
            found = False
        elif not found and not piece["comment"] and piece[0].strip():
            start, found = piece.start(), True
    if found:
        yield start, sql[start:].rstrip()
