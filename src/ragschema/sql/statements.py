"""Statements of DDL: what one names, creates, removes and locks, as far as its text tells."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from ragschema.sql.losses import find_losses
from ragschema.sql.names import NAME, PATH, PATHS, in_parentheses, split_list, unquote
from ragschema.sql.tokens import without_comments

Kind = Literal["table", "column", "index", "constraint"]

_ALTER = re.compile(rf"ALTER\s+TABLE\s+(?:IF\s+EXISTS\s+)?(?:ONLY\s+)?({PATH})\s+(.*)", re.I | re.S)
_CREATE_TABLE = re.compile(
    rf"CREATE\s+(?:(?:GLOBAL\s+|LOCAL\s+)?(?:TEMP|TEMPORARY|UNLOGGED)\s+)?TABLE\s+(?:IF\s+NOT\s+EXISTS\s+)?({PATH})",
    re.I,
)
_DROP_TABLE = re.compile(rf"DROP\s+TABLE\s+(?:IF\s+EXISTS\s+)?({PATHS})", re.I)
_DROP_INDEX = re.compile(rf"DROP\s+INDEX\s+(CONCURRENTLY\s+)?(?:IF\s+EXISTS\s+)?({PATHS})", re.I)
_ON_TABLE = re.compile(
    rf"(?:CREATE\s+(?:OR\s+REPLACE\s+)?(?:CONSTRAINT\s+)?|DROP\s+|ALTER\s+)(?:TRIGGER|POLICY|RULE)\b"
    rf".*?\bON\s+({PATH})",
    re.I | re.S,
)
_WHOLE_TABLE = re.compile(
    rf"(?:TRUNCATE(?:\s+TABLE)?|LOCK(?:\s+TABLE)?|CLUSTER|REINDEX\s+TABLE|VACUUM\s*\(?FULL\)?)"
    rf"\s+(?:ONLY\s+)?({PATHS})",
    re.I,
)
_REFERENCES = re.compile(rf"\bREFERENCES\s+({PATH})", re.I)
_INDEX = re.compile(
    rf"CREATE\s+(?P<unique>UNIQUE\s+)?INDEX\s+(?P<concurrently>CONCURRENTLY\s+)?"
    rf"(?P<if_not_exists>IF\s+NOT\s+EXISTS\s+)?(?P<name>{PATH})\s+ON\s+(?:ONLY\s+)?(?P<table>{PATH})\s*"
    rf"(?:USING\s+(?P<using>\w+)\s*)?(?P<rest>\(.*)",
    re.I | re.S,
)
_DROP_CONSTRAINT = re.compile(rf"DROP\s+CONSTRAINT\s+(?:IF\s+EXISTS\s+)?({NAME})", re.I)
_ADD_COLUMN = re.compile(
    rf"ADD\s+(?!(?:CONSTRAINT|CHECK|UNIQUE|PRIMARY|FOREIGN|EXCLUDE|NOT)\b)(?:COLUMN\s+)?"
    rf"(?:IF\s+NOT\s+EXISTS\s+)?({NAME})",
    re.I,
)
_CONSTRAINT = re.compile(rf"\bCONSTRAINT\s+({NAME})\s+(?:CHECK|FOREIGN|UNIQUE|PRIMARY|EXCLUDE|NOT)\b", re.I)
_QUIET = re.compile(r"(VALIDATE\s+CONSTRAINT|ALTER\s+(COLUMN\s+)?\S+\s+SET\s+STATISTICS|SET\s*\()", re.I)


@dataclass(frozen=True)
class Thing:
    """A table, or a column, index or constraint.

    Attributes:
        kind: What it is.
        name: Its name, without a schema.
        table: Its table, None for an index that is dropped by its name alone.
    """

    kind: Kind
    name: str
    table: str | None = None

    def __str__(self) -> str:
        return f"{self.kind} {self.name}" + (
            f" of {self.table}" if self.table and self.kind != "table" else ""
        )


@dataclass(frozen=True)
class IndexSql:
    """A CREATE INDEX, taken apart.

    Attributes:
        name: The index.
        table: Its table.
        columns: What is indexed, as written: a column, an expression, with its operator class and order.
        options: The other arguments of `ragschema.operations_v1.concurrent_index`.
        is_concurrent: Whether it says CONCURRENTLY.
        has_if_not_exists: Whether it says IF NOT EXISTS.
    """

    name: str
    table: str
    columns: list[str]
    options: Mapping[str, object]
    is_concurrent: bool
    has_if_not_exists: bool


def altered(sql: str) -> tuple[str, str] | None:
    """Return the table of an ALTER TABLE, and what it does to it."""
    match = _ALTER.match(without_comments(sql))
    return (unquote(match[1]), match[2]) if match else None


def find_target(sql: str) -> str | None:
    """Return the table that an ALTER TABLE or a CREATE INDEX works on."""
    alter, index = altered(sql), read_index(sql)
    return alter[0] if alter else index.table if index else None


def read_index(sql: str) -> IndexSql | None:
    """Take a CREATE INDEX apart; None for any other statement."""
    match = _INDEX.match(without_comments(sql))
    if match is None:
        return None
    columns, rest = in_parentheses(match["rest"])
    options: dict[str, object] = {}
    if match["unique"]:
        options["unique"] = True
    if match["using"] and match["using"].lower() != "btree":
        options["using"] = match["using"].lower()
    if include := re.match(r"INCLUDE\s*(\(.*)", rest, re.I | re.S):
        names, rest = in_parentheses(include[1])
        options["include"] = [unquote(name) for name in split_list(names)]
    if parameters := re.match(r"WITH\s*(\(.*)", rest, re.I | re.S):
        pairs, rest = in_parentheses(parameters[1])
        options["with_"] = dict(_storage_parameter(pair) for pair in split_list(pairs))
    if where := re.match(r"WHERE\s+(.*)", rest, re.I | re.S):
        options["where"] = where[1].strip()
    return IndexSql(
        unquote(match["name"]),
        unquote(match["table"]),
        [unquote(item) if re.fullmatch(NAME, item) else item for item in split_list(columns)],
        options,
        bool(match["concurrently"]),
        bool(match["if_not_exists"]),
    )


def find_created(sql: str) -> Iterator[Thing]:
    """Yield what a statement creates."""
    sql = without_comments(sql)
    if table := _CREATE_TABLE.match(sql):
        yield Thing("table", unquote(table[1]))
        yield from (
            Thing("constraint", unquote(name), unquote(table[1])) for name in _CONSTRAINT.findall(sql)
        )
    if index := read_index(sql):
        yield Thing("index", index.name, index.table)
    if alter := altered(sql):
        actions = map(_ADD_COLUMN.match, split_list(alter[1]))
        yield from (Thing("column", unquote(action[1]), alter[0]) for action in actions if action)
        yield from (Thing("constraint", unquote(name), alter[0]) for name in _CONSTRAINT.findall(alter[1]))


def find_removed(sql: str) -> Iterator[Thing]:
    """Yield what a statement removes."""
    for loss in find_losses(sql):
        if loss.kind == "table":
            yield Thing("table", loss.name)
        elif loss.kind == "column":
            yield Thing("column", str(loss.column), loss.name)
    sql = without_comments(sql)
    if indexes := _DROP_INDEX.match(sql):
        yield from (Thing("index", unquote(name)) for name in split_list(indexes[2]))
    if alter := altered(sql):
        actions = map(_DROP_CONSTRAINT.match, split_list(alter[1]))
        yield from (Thing("constraint", unquote(action[1]), alter[0]) for action in actions if action)


def find_locked(sql: str, indexes: Mapping[str, str]) -> list[str]:
    """Return the tables whose readers or writers a statement stops, in the order it names them.

    Args:
        sql: The statement.
        indexes: The table of each index that exists, for DROP INDEX.
    """
    found: list[str] = []
    sql = without_comments(sql)
    if alter := altered(sql):
        if _QUIET.match(alter[1]):
            return []
        found.append(alter[0])
    elif (index := read_index(sql)) and not index.is_concurrent:
        found.append(index.table)
    elif (dropped := _DROP_INDEX.match(sql)) and not dropped[1]:
        found += [indexes[name] for name in map(unquote, split_list(dropped[2])) if name in indexes]
    elif match := _DROP_TABLE.match(sql) or _WHOLE_TABLE.match(sql) or _ON_TABLE.match(sql):
        found += [unquote(name) for name in split_list(match[1])]
    elif table := _CREATE_TABLE.match(sql):
        found.append(unquote(table[1]))
    else:
        return []
    found += [unquote(name) for name in _REFERENCES.findall(sql)]
    return list(dict.fromkeys(found))


def _storage_parameter(pair: str) -> tuple[str, object]:
    name, _, value = (part.strip() for part in pair.partition("="))
    return name, int(value) if value.isdigit() else value.strip("'")
