"""Statements of a text of SQL, each with its place."""

from __future__ import annotations

from collections.abc import Iterator

from ragschema.sql.tokens import tokenize


def split_sql(sql: str) -> Iterator[tuple[int, str]]:
    """Split SQL into its statements, each with its offset; comments before a statement are left out."""
    start: int | None = None
    before, depth = "", 0  # inside BEGIN ATOMIC ... END a semicolon ends no statement of ours
    for token in tokenize(sql):
        if token.kind == "space":
            continue
        if token.word == "ATOMIC" and before == "BEGIN":
            depth = 1
        elif depth:
            depth += (token.word == "CASE") - (token.word == "END")
        before = token.word
        if token.text == ";" and token.kind == "mark" and not depth:
            if start is not None:
                yield start, sql[start : token.start].rstrip()
            start = None
        elif start is None:
            start = token.start
    if start is not None:
        yield start, sql[start:].rstrip()


def first_line(sql: str) -> str:
    """Return the first line of what a statement does, past the comments before it."""
    return next((statement for _, statement in split_sql(sql)), sql).partition("\n")[0].rstrip()
