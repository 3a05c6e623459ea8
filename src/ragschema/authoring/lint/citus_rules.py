"""Rules of our own about Citus: what it refuses of a tenant whose schema is on one of its nodes. Off by default.

Each was seen with Citus 14.0.1 and PostgreSQL 18, but for what an error message of theirs says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import sqlalchemy as sa

from ragschema.authoring.lint.findings import Advice, Finding, call
from ragschema.authoring.lint.subject import Revisions, Subject
from ragschema.models import Base
from ragschema.revisions.offline import Statement
from ragschema.sql.names import split_list
from ragschema.sql.tokens import plain, without_comments

SINCE = "20261128180010"
"""The first of our own revisions that runs on Citus: a tenant there begins with the head script, at it or later."""

_RENAME_CONSTRAINT = re.compile(
    r"ALTER TABLE (?:IF EXISTS )?(?:ONLY )?(\S+) RENAME CONSTRAINT (\S+) TO (\S+)", re.I
)
_TRIGGER = re.compile(r"CREATE (?:OR REPLACE )?(?:CONSTRAINT )?TRIGGER (\S+)", re.I)
_NOT_NULL = re.compile(r"ALTER TABLE (?:IF EXISTS )?(?:ONLY )?(\S+) ADD NOT NULL (\S+) NOT VALID", re.I)
_ALTER = re.compile(r"ALTER TABLE (?:IF EXISTS )?(?:ONLY )?(\S+) (.*)", re.I | re.S)
_COLUMN = re.compile(
    r"ALTER (?:COLUMN )?(\S+) (ADD GENERATED|SET GENERATED|DROP IDENTITY|SET STORAGE|SET STATISTICS|SET COMPRESSION)\b",
    re.I,
)
_FUNCTION = re.compile(r"CREATE (?:OR REPLACE )?(?:FUNCTION|PROCEDURE)\b", re.I)
_NOW = r"now\(\)|CURRENT_(?:TIMESTAMP|DATE|TIME)\b|LOCALTIME(?:STAMP)?\b|(?:transaction|statement|clock)_timestamp\(\)"
_VOLATILE = re.compile(
    rf"{_NOW}|\b(?:random|gen_random_uuid|uuidv7|nextval|set_config|current_setting|to_regtype)\(", re.I
)
_OF_MOMENT = re.compile(rf"{_NOW}|\b(?:random|gen_random_uuid|uuidv7|nextval)\(", re.I)
_STABLE_OF_COLUMNS = re.compile(
    r"\b(?:format|concat|concat_ws|to_char|to_json|to_jsonb|to_tsvector|date_trunc)\([^()]*\b[a-z_]\w*"
    r"|\b[a-z_]\w*\s*[-+]\s*(?:CAST\()?(?:interval\b|'')",
    re.I,
)
_INSERT = re.compile(
    r"INSERT INTO (\S+?)(?: AS \w+)? ?\(([^()]*)\) (?:OVERRIDING \w+ VALUE )?(SELECT\b.*)", re.I | re.S
)


def _alters_two(text: str) -> tuple[str, list[str]] | None:
    match = _ALTER.match(text)
    if match is None:
        return None
    commands = [each.strip() for each in split_list(match[2])]
    has_constraint = any(re.match(r"(?:ADD|DROP|VALIDATE) CONSTRAINT\b", each, re.I) for each in commands)
    return (match[1], commands) if len(commands) > 1 and has_constraint else None


def _rename_constraint(text: str) -> Advice | None:
    if (match := _RENAME_CONSTRAINT.match(text)) is None:
        return None
    table, old, new = match.groups()
    return Advice(
        "Citus renames no constraint of a distributed table.",
        "Add it under its new name, NOT VALID, and drop the old one; validate it in the next revision:",
        f"{call('op.execute', f'ALTER TABLE {table} ADD CONSTRAINT {new} ... NOT VALID')}\n"
        f"{call('op.execute', f'ALTER TABLE {table} DROP CONSTRAINT {old}')}",
    )


def _trigger(text: str) -> Advice | None:
    if (match := _TRIGGER.match(text)) is None:
        return None
    return Advice(
        f"Citus refuses every trigger of a distributed table, {match[1]} too, with a transition table or without.",
        "Let our own functions be right without it, and create it where there is no Citus:",
        "if not op.get_context().as_sql and not op.get_bind().scalar(\n"
        """    sa.text("SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'citus')")\n"""
        "):\n    ...",
    )


def _not_null(text: str) -> Advice | None:
    if (match := _NOT_NULL.match(text)) is None:
        return None
    table, column = match.groups()
    name = f"{table}_{column}_not_null"
    return Advice(
        "The name that PostgreSQL makes up is another one on Citus's nodes, so that the constraint cannot be"
        " validated there.",
        "Name it:",
        call("op.execute", f"ALTER TABLE {table} ADD CONSTRAINT {name} NOT NULL {column} NOT VALID"),
    )


def _subcommands(text: str) -> Advice | None:
    if (found := _alters_two(text)) is None:
        return None
    table, commands = found
    return Advice(
        "Citus refuses an ALTER TABLE that adds, drops or validates a constraint and does something else too.",
        "One statement for each:",
        "\n".join(call("op.execute", f"ALTER TABLE {table} {each}") for each in commands),
    )


def _alter_column(text: str) -> Advice | None:
    altered = _ALTER.match(text)
    match = _COLUMN.match(altered[2]) if altered else None
    if match is None:
        return None
    return Advice(
        f"Citus refuses {match[2].upper()} of a column whose table is distributed.",
        "Say it in CREATE TABLE, or where the column is added; a tenant that is distributed keeps what it has.",
    )


def _update(text: str) -> Advice | None:
    assigned = re.match(r"UPDATE\b.*?\bSET\b(.*?)(?:\bFROM\b|\bWHERE\b|\bRETURNING\b|$)", text, re.I | re.S)
    if assigned is None or _STABLE_OF_COLUMNS.search(assigned[1]) is None:
        return None
    return Advice(
        "Citus refuses a function of a column in UPDATE that is not immutable: format, concat, a time and an interval.",
        "Write it with what is immutable, || and casts to text, or work it out in a SELECT before.",
    )


def _returning(text: str) -> Advice | None:
    match = re.match(r"(?:INSERT|UPDATE|DELETE)\b.*\bRETURNING\b(.*)", text, re.I | re.S)
    if match is None or _VOLATILE.search(match[1]) is None:
        return None
    return Advice(
        "Citus refuses a function in RETURNING that is not immutable.",
        "Ask for it in a statement of its own.",
    )


def _on_conflict(text: str) -> Advice | None:
    match = re.match(r"INSERT\b.*\bON CONFLICT\b.*?\bDO UPDATE SET\b(.*)", text, re.I | re.S)
    if match is None or _VOLATILE.search(match[1].partition(" RETURNING ")[0]) is None:
        return None
    return Advice(
        "Citus refuses a function in DO UPDATE SET that is not immutable.",
        "Insert the value, and set the column to excluded's: DO UPDATE SET updated_at = excluded.updated_at.",
    )


def _insert_select(text: str) -> Advice | None:
    match = _INSERT.search(text)
    if match is None or re.search(r"\bFROM (?!unnest|generate_series)\w", match[3], re.I) is None:
        return None
    is_materialized = re.match(r"WITH\b.*\bAS MATERIALIZED\b", text, re.I | re.S) is not None
    missing = _defaults_of_moment(match[1].rpartition(".")[2].strip('"')) - {
        each.strip().strip('"') for each in match[2].split(",")
    }
    if is_materialized or not (missing or _OF_MOMENT.search(match[3])):
        return None
    what = f"the default of {', '.join(sorted(missing))}" if missing else "a function of the moment"
    return Advice(
        f"Citus makes a statement that is none of an INSERT that reads a table and needs {what}: syntax error at or"
        ' near "NOT".',
        "Work the rows out before, every such column among them, and insert them as they are:",
        call(
            "op.execute",
            f"WITH rows AS MATERIALIZED (SELECT ...) INSERT INTO {match[1]} (...) SELECT * FROM rows",
        ),
    )


def _defaults_of_moment(table: str) -> set[str]:
    """Return the columns of a table of ours whose default is not the same in every row."""
    found: sa.Table | None = Base.metadata.tables.get(table)
    columns = () if found is None else found.columns
    return {
        column.name
        for column in columns
        if isinstance(column.server_default, sa.DefaultClause)
        and _OF_MOMENT.search(str(column.server_default.arg))
    }


_BY_STATEMENT: dict[str, Callable[[str], Advice | None]] = {
    "citus-rename-constraint": _rename_constraint,
    "citus-trigger": _trigger,
    "citus-unnamed-not-null": _not_null,
    "citus-several-subcommands": _subcommands,
    "citus-alter-column": _alter_column,
    "citus-update": _update,
    "citus-returning": _returning,
    "citus-on-conflict": _on_conflict,
    "citus-insert-select": _insert_select,
}
CITUS_RULES = (*_BY_STATEMENT,)
"""Their names."""


def refused_by_citus(subject: Subject, revisions: Revisions) -> Iterator[Finding]:
    """Yield what of a revision Citus would refuse; the text of functions is not looked into."""
    for _, sql in subject.directions():
        for statement in sql.statements:
            text = _one_line(statement)
            if _FUNCTION.match(text):
                continue
            for rule, find in _BY_STATEMENT.items():
                if (advice := find(text)) is not None:
                    yield subject.finding(rule, statement, advice)


def _one_line(statement: Statement) -> str:
    text = without_comments(statement.sql)
    return re.sub(r"\s+", " ", plain(text)).strip()
