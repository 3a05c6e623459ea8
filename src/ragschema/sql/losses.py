"""Losses: which rows and values a statement may destroy, as far as its text tells.

What a text cannot tell, such as what a DO block does, it says to be unknown. It is read for advice, and where
nothing could be taken back: what is promised of rows is kept by the database (`ragschema.migrations.loss_guard`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Literal

from ragschema.sql.names import unquote
from ragschema.sql.splitting import split_sql
from ragschema.sql.tokens import Token, tokenize

Kind = Literal["table", "column", "schema", "all rows", "rows", "values", "call", "unknown"]

# CASCADE from these reaches columns, of a dropped type for one. From others it reaches no row.
_REACHES_COLUMNS = re.compile(
    "TYPE|DOMAIN|EXTENSION|FUNCTION|PROCEDURE|ROUTINE|AGGREGATE|OPERATOR|COLLATION|LANGUAGE|CAST|ACCESS"
)
_NO_CALL = re.compile(
    "SELECT|ALL|DISTINCT|ON|FROM|AS|IN|ANY|SOME|EXISTS|ARRAY|ROW|VALUES|CAST|OVER|FILTER|GROUP|BY|AND|OR|NOT"
    "|USING|WHEN|THEN|ELSE|CASE|WHERE|LATERAL|JOIN|UNION|EXCEPT|INTERSECT|WITH|LIMIT|MATERIALIZED|RECURSIVE"
)
_HARMLESS_CALL = re.compile(
    r"pg_\w+|to_\w+|has_\w+|quote_\w+|current_\w+|set_config|setval|nextval|count|sum|min|max|coalesce|now|version"
)


@dataclass(frozen=True)
class Loss:
    """What a statement may destroy.

    Attributes:
        kind: ``table``, ``column`` or ``schema``, which it drops; ``all rows`` of a table, which it truncates;
            ``rows`` of a table, some of which it may delete; ``values`` of a column, which it gives another
            type; ``call``: whatever the function does; ``unknown``: its text does not tell.
        name: The table, also of a column; or the schema, or the function.
        column: The column.
        schema: The schema of the table, where the text names one.
    """

    kind: Kind
    name: str = ""
    column: str | None = None
    schema: str | None = None


@lru_cache(maxsize=1024)
def find_losses(sql: str) -> tuple[Loss, ...]:
    """Return what a statement may destroy, or several in one string, each loss once."""
    found = (loss for _, statement in split_sql(sql) for loss in _read(statement))
    return tuple(dict.fromkeys(found))


@lru_cache(maxsize=1024)
def ends_transaction(sql: str) -> bool:
    """Whether a statement, or one of several in one string, commits or rolls back: not to a savepoint."""
    for _, statement in split_sql(sql):
        words = [token.word for token in tokenize(statement) if token.kind != "space"]
        if words[0] in ("COMMIT", "END", "ABORT") or words[:2] == ["PREPARE", "TRANSACTION"]:
            return True
        if words[0] == "ROLLBACK" and "TO" not in words:
            return True
    return False


def _read(sql: str) -> Iterator[Loss]:
    reader = _Reader([token for token in tokenize(sql) if token.kind != "space"])
    first = reader.next()
    if first == "DROP":
        yield from _drop(reader)
    elif first == "ALTER" and reader.takes("TABLE"):
        yield from _alter_table(reader)
    elif first == "ALTER" and reader.takes("TYPE"):
        reader.path()
        if any(a.takes("DROP", "ATTRIBUTE") or a.takes("ALTER", "ATTRIBUTE") for a in reader.split()):
            yield Loss("unknown")
    elif first == "TRUNCATE":
        reader.takes("TABLE")
        yield from (Loss("all rows", name, None, schema) for schema, name in reader.paths())
        if reader.has("CASCADE"):
            yield Loss("unknown")
    elif first in ("DO", "CALL", "EXECUTE"):
        yield Loss("unknown")
    elif first in ("DELETE", "MERGE", "WITH", "EXPLAIN", "COPY", "INSERT", "UPDATE", "SELECT"):
        yield from _write(sql)
        if first in ("SELECT", "WITH"):
            yield from (Loss("call", name) for name in _called(reader.rest))


def _drop(reader: _Reader) -> Iterator[Loss]:
    if reader.takes("OWNED") or reader.takes("DATABASE"):
        yield Loss("unknown")
    elif reader.takes("TABLE"):
        yield from (Loss("table", name, None, schema) for schema, name in reader.if_exists().paths())
    elif reader.takes("SCHEMA"):
        names = [name for _, name in reader.if_exists().paths()]
        if reader.has("CASCADE"):  # without, an empty one
            yield from (Loss("schema", name) for name in names)
    elif _REACHES_COLUMNS.fullmatch(reader.next()) and reader.has("CASCADE"):
        yield Loss("unknown")


def _alter_table(reader: _Reader) -> Iterator[Loss]:
    schema, table = reader.if_exists().path()
    for action in reader.split():
        if action.takes("DROP"):
            if action.takes("CONSTRAINT"):
                continue
            action.takes("COLUMN")
            yield Loss("column", table, action.if_exists().path()[1], schema)
        elif action.takes("ALTER"):
            action.takes("COLUMN")
            column = action.path()[1]
            if action.takes("TYPE") or action.takes("SET", "DATA", "TYPE"):
                yield Loss("values", table, column, schema)


def _write(sql: str) -> Iterator[Loss]:
    """Read what writes rows, wherever in the statement: a DELETE may stand in a WITH, or behind EXPLAIN."""
    reader = _Reader([token for token in tokenize(sql) if token.kind != "space"])
    before, merged = "", None
    while reader.rest:
        word = reader.next()
        if word == "DELETE" and reader.takes("FROM"):
            schema, name = reader.path()
            yield Loss("rows", name, None, schema)
        elif word == "MERGE" and reader.takes("INTO"):
            merged = reader.path()
        elif word == "DELETE" and before == "THEN" and merged is not None:
            yield Loss("rows", merged[1], None, merged[0])
        elif word == "EXECUTE":  # behind EXPLAIN ANALYZE
            yield Loss("unknown")
        before = word


def _called(tokens: Sequence[Token]) -> Iterator[str]:
    """Yield the functions that a query calls before its WHERE."""
    before = ""
    for token, following in pairwise(tokens):
        if token.word == "WHERE":
            return
        is_name = token.kind == "name" or (token.kind == "word" and not _NO_CALL.fullmatch(token.word))
        is_call = is_name and following.text == "(" and before != "AS"
        if is_call and not _HARMLESS_CALL.fullmatch(unquote(token.text)):
            yield unquote(token.text)
        before = token.word


class _Reader:
    """Reads tokens from left to right."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self.rest = list(tokens)

    def next(self) -> str:
        """Take a token; return the word that it is, in capitals."""
        return self.rest.pop(0).word if self.rest else ""

    def takes(self, *words: str) -> bool:
        """Take these words, if they are the next."""
        if tuple(token.word for token in self.rest[: len(words)]) != words:
            return False
        del self.rest[: len(words)]
        return True

    def has(self, word: str) -> bool:
        """Whether a word is still to come."""
        return any(token.word == word for token in self.rest)

    def if_exists(self) -> _Reader:
        """Pass over IF EXISTS."""
        self.takes("IF", "EXISTS")
        return self

    def path(self) -> tuple[str | None, str]:
        """Take the name of a table, or of a column; return its schema and itself, both as the catalogue has them."""
        self.takes("ONLY")
        names: list[str] = []
        while self.rest and self.rest[0].kind in ("word", "name"):
            names.append(unquote(self.rest.pop(0).text))
            if not (self.rest and self.rest[0].text == "."):
                break
            del self.rest[0]
        if self.rest and self.rest[0].text == "*":
            del self.rest[0]
        return (names[-2] if len(names) > 1 else None, names[-1] if names else "")

    def paths(self) -> Iterator[tuple[str | None, str]]:
        """Take a list of names."""
        while True:
            yield self.path()
            if not (self.rest and self.rest[0].text == ","):
                return
            del self.rest[0]

    def split(self) -> Iterator[_Reader]:
        """Take the rest, split at the commas that stand in no parentheses."""
        parts: list[list[Token]] = [[]]
        depth = 0
        for token in self.rest:
            depth += (token.text in ("(", "[")) - (token.text in (")", "]"))
            if token.text == "," and depth == 0:
                parts.append([])
            else:
                parts[-1].append(token)
        yield from map(_Reader, parts)
