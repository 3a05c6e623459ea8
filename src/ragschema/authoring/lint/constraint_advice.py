"""Advice on constraints that are added to a table with rows."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ragschema.authoring.lint.findings import Advice, call, followed_by, quote, revision
from ragschema.sql.names import NAME, in_parentheses, split_list, unquote
from ragschema.sql.statements import altered

_OWN = "In a revision of its own:"

_ADD = re.compile(
    rf"ADD\s+(?:CONSTRAINT\s+({NAME})\s+)?(CHECK|UNIQUE|PRIMARY\s+KEY|FOREIGN\s+KEY)\s*(\(.*)", re.I | re.S
)
_REFERENCES = re.compile(rf"REFERENCES\s+({NAME})\s*(?:\(([^)]*)\))?", re.I)
_ACTION = re.compile(r"\bON\s+(DELETE|UPDATE)\s+(CASCADE|RESTRICT|SET\s+NULL|SET\s+DEFAULT)", re.I)
_VALIDATE = re.compile(rf"VALIDATE\s+CONSTRAINT\s+({NAME})", re.I)
_SUFFIXES = {"CHECK": "check", "UNIQUE": "key", "PRIMARY KEY": "pkey", "FOREIGN KEY": "fkey"}


@dataclass(frozen=True)
class _Constraint:
    """A constraint that a statement adds; the name is PostgreSQL's own where it gives none."""

    table: str
    name: str
    kind: str
    inside: str
    rest: str

    @property
    def columns(self) -> list[str]:
        return [unquote(column) for column in split_list(self.inside)]


def unique(sql: str) -> Advice | None:
    """Tell about UNIQUE."""
    found = _read(sql, "UNIQUE")
    if found is None:
        return None
    return Advice(
        f"Blocks reads and writes of {found.table} until the unique index is built.",
        _OWN,
        revision(
            call("add_unique", found.table, found.name, found.columns),
            downgrade=call("op.drop_constraint", found.name, found.table, type_="unique"),
        ),
    )


def primary_key(sql: str) -> Advice | None:
    """Tell about PRIMARY KEY."""
    found = _read(sql, "PRIMARY KEY")
    if found is None:
        return None
    name = quote(found.name)
    add = f"ALTER TABLE {quote(found.table)} ADD CONSTRAINT {name} PRIMARY KEY USING INDEX {name}"
    return Advice(
        f"Blocks reads and writes of {found.table} until the index of the key is built.",
        "In a revision of its own, on columns that are NOT NULL:",
        followed_by(
            revision(call("concurrent_index", found.name, found.table, found.columns, unique=True)),
            revision(call("op.execute", add)),
        ),
    )


def foreign_key(sql: str) -> Advice | None:
    """Tell about FOREIGN KEY."""
    found = _read(sql, "FOREIGN KEY")
    references = _REFERENCES.search(found.rest) if found else None
    if found is None or references is None:
        return None
    referenced = unquote(references[1])
    keys = [unquote(key) for key in split_list(references[2] or "id")]
    options: dict[str, object] = {
        f"on_{event.lower()}": " ".join(action.upper().split())
        for event, action in _ACTION.findall(found.rest)
    }
    if re.search(r"\bINITIALLY\s+DEFERRED\b", found.rest, re.I):
        options["initially_deferred"] = True
    add = call("add_foreign_key", found.table, found.name, found.columns, referenced, keys, **options)
    validate = call("validate_constraint", found.table, found.name)
    drop = call("op.drop_constraint", found.name, found.table, type_="foreignkey")
    if re.search(r"(?<!NOT )\bDEFERRABLE\b", found.rest, re.I) and "initially_deferred" not in options:
        plain = call("op.execute", f"{' '.join(sql.split())} NOT VALID")  # the helper has no word for it
        code = followed_by(revision(plain, downgrade=drop), revision(validate))
    else:
        code = revision(add, validate, downgrade=drop)
    return Advice(
        f"Blocks writes to {found.table} and {referenced} while every row of {found.table} is checked.",
        _OWN,
        code,
    )


def not_valid(sql: str) -> Advice | None:
    """Tell about CHECK, and about VALIDATE under the lock of what it validates."""
    alter = altered(sql)
    if alter and (validate := _VALIDATE.match(alter[1])):
        return Advice(
            f"Blocks reads and writes of {alter[0]}, because the lock that added the constraint is still held.",
            "In the next revision, when that lock is gone:",
            revision(call("validate_constraint", alter[0], unquote(validate[1]))),
        )
    found = _read(sql, "CHECK")
    if found is None:
        return None
    return Advice(
        f"Blocks reads and writes of {found.table} while every row is checked.",
        _OWN,
        revision(
            call("add_check", found.table, found.name, found.inside.strip()),
            call("validate_constraint", found.table, found.name),
            downgrade=call("op.drop_constraint", found.name, found.table, type_="check"),
        ),
    )


def _read(sql: str, kind: str) -> _Constraint | None:
    alter = altered(sql)
    match = _ADD.match(alter[1]) if alter else None
    if alter is None or match is None or " ".join(match[2].upper().split()) != kind:
        return None
    inside, rest = in_parentheses(match[3])
    columns = [] if kind in ("CHECK", "PRIMARY KEY") else [unquote(item) for item in split_list(inside)]
    name = unquote(match[1]) if match[1] else "_".join([alter[0], *columns, _SUFFIXES[kind]])
    return _Constraint(alter[0], name, kind, inside, rest)
