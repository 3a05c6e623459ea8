"""Advice on what squawk finds: what it blocks here, and the code to write instead.

A rule that has no advice of its own is told in squawk's words.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from ragschema.authoring.lint import constraint_advice
from ragschema.authoring.lint.findings import Advice, call, followed_by, quote, revision
from ragschema.sql.names import NAME, in_parentheses, unquote
from ragschema.sql.statements import altered, find_removed, read_index

_DOCUMENTATION = "https://squawkhq.com/docs/"

_ALTER_COLUMN = re.compile(rf"ALTER\s+(?:COLUMN\s+)?({NAME})\s+(.*)", re.I | re.S)
_ADD_COLUMN = re.compile(
    rf"ADD\s+(?:COLUMN\s+)?(?:IF\s+NOT\s+EXISTS\s+)?({NAME})\s+(.*?)"
    r"(?=\s+(?:DEFAULT|NOT\s+NULL|NULL|GENERATED|CONSTRAINT|UNIQUE|PRIMARY|CHECK|REFERENCES)\b|$)(.*)",
    re.I | re.S,
)
_DEFAULT = re.compile(r"\bDEFAULT\s+(.*?)(?=\s+(?:NOT\s+NULL|NULL|CONSTRAINT|UNIQUE|CHECK)\b|$)", re.I | re.S)
_GENERATED = re.compile(r"\bGENERATED\s+ALWAYS\s+AS\s*(\(.*)", re.I | re.S)
_TYPE = re.compile(r"(?:SET\s+DATA\s+)?TYPE\s+(.*?)(?:\s+USING\b.*)?$", re.I | re.S)
_RENAME_COLUMN = re.compile(rf"RENAME\s+(?:COLUMN\s+)?({NAME})\s+TO\s+({NAME})", re.I)
_RENAME = re.compile(rf"RENAME\s+TO\s+({NAME})", re.I)


def advise(rule: str, sql: str, message: str, remedy: str) -> Advice:
    """Return what to tell about a statement that breaks one of squawk's rules.

    Args:
        rule: The rule.
        sql: The statement.
        message: What squawk says is wrong.
        remedy: What squawk says to do.
    """
    teach = ADVICE.get(rule) or (_removal if rule.startswith("ban-drop-") else None)
    advice = teach(sql) if teach else None
    words = " ".join(filter(None, (remedy, f"See {_DOCUMENTATION}{rule}.")))
    return advice or Advice(message, words)


def index_code(sql: str) -> str:
    """Return the revision that builds the index of a CREATE INDEX beside readers and writers."""
    index = read_index(sql)
    if index is None:
        return ""
    return revision(
        call("concurrent_index", index.name, index.table, index.columns, **index.options),
        downgrade=call("drop_concurrent_index", index.name),
    )


def _index_creation(sql: str) -> Advice | None:
    index = read_index(sql)
    if index is None:
        return None
    return Advice(
        f"Blocks every write to {index.table} until the index is built.",
        "In a revision of its own:",
        index_code(sql),
    )


def _index_in_transaction(sql: str) -> Advice:
    return Advice(
        "PostgreSQL refuses CREATE INDEX CONCURRENTLY in a transaction.",
        "In a revision of its own:",
        index_code(sql),
    )


def _index_deletion(sql: str) -> Advice:
    drops = [call("drop_concurrent_index", thing.name) for thing in find_removed(sql)]
    return Advice(
        "Blocks reads and writes of the index's table, as soon as it waits for a query that is running.",
        "In a revision of its own:",
        revision(*drops),
    )


def _set_not_null(sql: str) -> Advice | None:
    found = _altered_column(sql)
    if found is None:
        return None
    table, column, _ = found
    return Advice(
        f"Blocks reads and writes of {table} while every row is read.",
        "In a revision of its own:",
        revision(
            call("set_not_null", table, column),
            downgrade=call("op.alter_column", table, column, nullable=True),
        ),
    )


def _required_column(sql: str) -> Advice | None:
    found = _added_column(sql)
    if found is None:
        return None
    table, column, kind, _ = found
    name = quote(column)
    return Advice(
        f"Fails where {table} has rows; and after it the INSERTs of the code that runs now fail.",
        "Add it nullable; forbid NULL when the code writes it and every row has a value:",
        followed_by(
            revision(call("op.execute", f"ALTER TABLE {quote(table)} ADD COLUMN {name} {kind}")),
            revision(
                call("backfill", table, f"{name} = 'what old rows get'", f"{name} IS NULL"),
                call("set_not_null", table, column),
            ),
        ),
    )


def _computed_column(sql: str) -> Advice | None:
    found = _added_column(sql)
    if found is None:
        return None
    table, column, kind, rest = found
    alter, name = f"ALTER TABLE {quote(table)}", quote(column)
    first = [call("op.execute", f"{alter} ADD COLUMN {name} {kind}")]
    if generated := _GENERATED.search(rest):
        value, _ = in_parentheses(generated[1])
        instead = "Add a plain column that whoever writes the row sets, and fill it in for the old rows:"
    elif default := _DEFAULT.search(rest):
        value = default[1].strip()
        first.append(call("op.execute", f"{alter} ALTER COLUMN {name} SET DEFAULT {value}"))
        instead = "Set the default when the column is there, and fill it in for the old rows:"
    else:
        return None
    later = [call("backfill", table, f"{name} = {value}", f"{name} IS NULL")]
    if re.search(r"\bNOT\s+NULL\b", rest, re.I):
        later.append(call("set_not_null", table, column))
    return Advice(
        f"Rewrites {table}, and blocks its reads and writes meanwhile.",
        instead,
        followed_by(revision(*first), revision(*later)),
    )


def _column_type(sql: str) -> Advice | None:
    found = _altered_column(sql)
    kind = _TYPE.match(found[2]) if found else None
    if found is None or kind is None:
        return None
    table, column, _ = found
    old, new = quote(column), quote(f"{column}_new")
    fill = call("backfill", table, f"{new} = {old}::{kind[1]}", f"{new} IS NULL AND {old} IS NOT NULL")
    add = revision(call("op.execute", f"ALTER TABLE {quote(table)} ADD COLUMN {new} {kind[1]}"))
    return Advice(
        f"Rewrites {table}, blocks its reads and writes meanwhile, and breaks code that knows the old type.",
        "Add a second column, write both, and drop the first in a contract revision:",
        followed_by(
            followed_by(add, revision(fill)),
            revision(call("op.drop_column", table, column)),
            comment="# and in a contract revision, when nothing reads the first:",
        ),
    )


def _rename_column(sql: str) -> Advice | None:
    alter = altered(sql)
    names = _RENAME_COLUMN.match(alter[1]) if alter else None
    if alter is None or names is None:
        return None
    old, new = unquote(names[1]), unquote(names[2])
    return Advice(
        f"Breaks the code that runs now, which reads {alter[0]}.{old}, until the last of it is gone.",
        "Give it the new name in Python only, where its model keeps its type:",
        f'{new}: Mapped[...] = mapped_column("{old}")',
    )


def _rename_table(sql: str) -> Advice | None:
    alter = altered(sql)
    if alter is None or not _RENAME.match(alter[1]):
        return None
    return Advice(
        f"Breaks the code that runs now, which reads {alter[0]}, until the last of it is gone.",
        "Give the new name to the model's class only:",
        f'__tablename__ = "{alter[0]}"',
    )


def _removal(sql: str) -> Advice:
    removed = next(iter(find_removed(sql)), None)
    what = str(removed) if removed else "it"
    return Advice(
        f"Breaks the code that runs now, where it still uses {what}.",
        "Remove it in a revision that runs after that code is gone, and say so in its docstring:",
        f"Deploy: contract (after the last code that used {what} is gone).",
    )


def _extension(sql: str) -> Advice:
    return Advice(
        "Takes the extension from every schema of the database, and fails where one uses it.",
        "Delete the statement: an extension stays.",
    )


def _altered_column(sql: str) -> tuple[str, str, str] | None:
    """Return table, column, and what an ALTER COLUMN does to it."""
    alter = altered(sql)
    match = _ALTER_COLUMN.match(alter[1]) if alter else None
    return (alter[0], unquote(match[1]), match[2]) if alter and match else None


def _added_column(sql: str) -> tuple[str, str, str, str] | None:
    """Return table, column, type, and the rest of an ADD COLUMN."""
    alter = altered(sql)
    match = _ADD_COLUMN.match(alter[1]) if alter else None
    return (alter[0], unquote(match[1]), match[2].strip(), match[3].strip()) if alter and match else None


ADVICE: dict[str, Callable[[str], Advice | None]] = {
    "adding-field-with-default": _computed_column,
    "adding-foreign-key-constraint": constraint_advice.foreign_key,
    "adding-not-nullable-field": _set_not_null,
    "adding-required-field": _required_column,
    "adding-serial-primary-key-field": constraint_advice.primary_key,
    "ban-concurrent-index-creation-in-transaction": _index_in_transaction,
    "ban-drop-extension": _extension,
    "changing-column-type": _column_type,
    "constraint-missing-not-valid": constraint_advice.not_valid,
    "disallowed-unique-constraint": constraint_advice.unique,
    "renaming-column": _rename_column,
    "renaming-table": _rename_table,
    "require-concurrent-index-creation": _index_creation,
    "require-concurrent-index-deletion": _index_deletion,
}
