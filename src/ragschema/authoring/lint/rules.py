"""Rules of our own: what squawk does not know of revisions, and of how this package runs them."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from itertools import groupby

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from ragschema.authoring.lint.advice import index_code
from ragschema.authoring.lint.findings import (
    NEXT,
    Advice,
    Finding,
    call,
    followed_by,
    function,
    revision,
    with_imports,
)
from ragschema.authoring.lint.loss_rules import destructive_autocommit, undeclared_deletion
from ragschema.authoring.lint.subject import Revisions, Subject, find_removals
from ragschema.models import Base
from ragschema.revisions.manifest import Direction
from ragschema.revisions.offline import Statement
from ragschema.sql.statements import Thing, find_locked, read_index

Rule = Callable[[Subject, Revisions], Iterator[Finding]]

_SET = re.compile(
    r"SET\s+(?:SESSION\s+)?(?!LOCAL\b|CONSTRAINTS\b|TRANSACTION\b)([\w.]+)\s*(?:=|TO\b)\s*(.*)", re.I | re.S
)
_SET_CONFIG = re.compile(
    r"SELECT\s+(?:pg_catalog\.)?set_config\s*\(\s*'([\w.]+)'\s*,\s*(.*),\s*(?:false|'f'|0)\s*\)", re.I | re.S
)
_RESET = re.compile(
    r"(RESET|DISCARD)\s+(\w+)|SET\s+(SESSION\s+(?:AUTHORIZATION|CHARACTERISTICS)|ROLE|TIME\s+ZONE)\b", re.I
)
_FORBIDDEN = {
    "lock_timeout": "Delete it, and run `rag migrate --lock-timeout` where 2 s are wrong.",
    "statement_timeout": "Delete it: a statement waits for a lock no longer than lock_timeout.",
    "search_path": "Delete it: names resolve in the schema that is being migrated.",
    "role": "Delete it, and run `rag migrate --role`.",
}


def autocommit_not_alone(subject: Subject, revisions: Revisions) -> Iterator[Finding]:
    """An autocommit block commits what is before it, and cannot be rolled back with what is after it."""
    for direction, sql in subject.directions():
        if not sql.blocks:
            yield from _beside_helpers(subject, direction)
            continue
        alone = [s for s in sql.statements if s.is_autocommit and not s.is_helper]
        others = [s for s in sql.statements if s not in alone]
        if others or len(sql.blocks) > 1:
            yield _split(subject, direction, sql.blocks[0] if others else sql.blocks[1], set(sql.blocks))


def _beside_helpers(subject: Subject, direction: Direction) -> Iterator[Finding]:
    """Helpers that commit may stand beside each other, and beside nothing else."""
    sql = dict(subject.directions())[direction]
    committing = {s.line for s in sql.statements if s.is_helper and s.is_autocommit}
    if committing and any(not s.is_helper for s in sql.statements):
        yield _split(subject, direction, min(committing), committing)


def _split(subject: Subject, direction: Direction, line: int, lines: set[int]) -> Finding:
    body = subject.body(direction)
    blocks = [text for place, text in body if lines.intersection(place)]
    others = [text for place, text in body if not lines.intersection(place)]
    parts = [with_imports(function(direction, *lines)) for lines in (others, *([b] for b in blocks)) if lines]
    code = f"\n\n\n{NEXT}\n".join(parts) if len(parts) > 1 else ""
    return subject.finding(
        "autocommit-not-alone",
        line,
        Advice(
            "An autocommit block commits what is before it: where it fails, that stays without its revision,"
            " and the next run fails on it.",
            "Give it a revision of its own:" if code else "Give each block a revision of its own.",
            code,
        ),
    )


def session_set(subject: Subject, revisions: Revisions) -> Iterator[Finding]:
    """A setting of the session outlives the revision."""
    for _, sql in subject.directions():
        for statement in sql.statements:
            match = _SET.match(statement.sql) or _SET_CONFIG.match(statement.sql)
            reset = _RESET.match(statement.sql)
            if statement.is_helper or (match is None and reset is None):
                continue
            name = match[1].lower() if match else (reset[2] or reset[3] if reset else "").lower()
            if match and name not in _FORBIDDEN:
                instead, value = "For this revision's transaction only:", match[2].strip()
                code = call("op.execute", f"SET LOCAL {name} = {value}")
            else:
                instead, code = _FORBIDDEN.get(name, "Delete it."), ""
            yield subject.finding(
                "session-set",
                statement,
                Advice(
                    "Outlives the revision: it holds for every later one of the run, over what the runner set;"
                    " behind a pooler for other clients too.",
                    instead,
                    code,
                ),
            )


def concurrent_if_not_exists(subject: Subject, revisions: Revisions) -> Iterator[Finding]:
    """IF NOT EXISTS keeps what a failed build left."""
    for _, sql in subject.directions():
        for statement in sql.statements:
            index = read_index(statement.sql)
            if index and index.is_concurrent and index.has_if_not_exists and not statement.is_helper:
                yield subject.finding(
                    "concurrent-if-not-exists",
                    statement,
                    Advice(
                        f"After a failed build it keeps the INVALID index {index.name} and succeeds: writes pay"
                        " for an index that no query uses.",
                        "Let the helper drop what a failed build left:",
                        index_code(statement.sql),
                    ),
                )


def missing_deploy_label(subject: Subject, revisions: Revisions) -> Iterator[Finding]:
    """Every revision says whether it goes before or after the code."""
    if subject.deploy is None:
        yield subject.finding(
            "missing-deploy-label",
            1,
            Advice(
                "`rag migrate --expand-only` cannot tell whether code that runs now can live with it.",
                "Write one of the two into the docstring:",
                "Deploy: expand (before the code that needs it).\n"
                "Deploy: contract (after the last code that used it is gone).",
            ),
        )


def removed_but_modelled(subject: Subject, revisions: Revisions) -> Iterator[Finding]:
    """What a revision removes for good is not in the models any more."""
    for statement, thing in find_removals(subject):
        home = _find_model(thing)
        if home and not revisions.is_created_after(thing, statement, subject):
            yield subject.finding(
                "removed-but-modelled",
                statement,
                Advice(
                    f"The models of this package still have {thing}: statements built from them fail, or"
                    " `alembic check` asks for it again.",
                    "Ship the models without it first, and this revision after that code is gone:",
                    home,
                ),
            )


def _find_model(thing: Thing) -> str | None:
    """Say where the models have a table, column, index or constraint; None where they do not."""
    prepare = postgresql.dialect().identifier_preparer  # type: ignore[no-untyped-call]
    for mapper in Base.registry.mappers:
        table = mapper.local_table
        if not isinstance(table, sa.Table) or thing.table not in (None, table.name):
            continue
        if thing.kind == "table":
            what = "" if table.name == thing.name else None
        elif thing.kind == "column":
            column = table.columns.get(thing.name)
            what = None if column is None else f"{mapper.get_property_by_column(column).key} of "
        else:
            items = (
                map(prepare.format_index, table.indexes)
                if thing.kind == "index"
                else map(prepare.format_constraint, table.constraints)
            )
            what = f"the {thing.kind} {thing.name} of " if thing.name in items else None
        if what is not None:
            home = mapper.class_.__module__.replace(".", "/")
            return f"# {home}.py: delete {what}class {mapper.class_.__name__}"
    return None


def two_tables_locked(subject: Subject, revisions: Revisions) -> Iterator[Finding]:
    """A revision that holds the lock on one table waits for no other one."""
    held: list[str] = []
    transaction = 0
    for statement in subject.upgrade.statements:
        if statement.transaction != transaction or statement.is_autocommit:
            transaction, held = statement.transaction, []
        locked = [
            table
            for table in find_locked(statement.sql, revisions.indexes)
            if table not in subject.new_tables
        ]
        if held and (waiting := [table for table in locked if table not in held]):
            yield subject.finding(
                "two-tables-locked",
                statement,
                Advice(
                    f"Holds the lock on {', '.join(held)} while it waits for {', '.join(waiting)}: readers or"
                    " writers of both stand still, and a session that takes them the other way round deadlocks.",
                    "Lock one table a revision:",
                    _cut(subject, statement),
                ),
            )
            return
        held += [table for table in locked if table not in held]


def _cut(subject: Subject, statement: Statement) -> str:
    body = subject.body("upgrade")
    before = [text for place, text in body if place.stop <= statement.line]
    after = [text for place, text in body if place.stop > statement.line]
    if not before or not after:
        return revision(call("op.execute", statement.sql))
    return followed_by(revision(*before), revision(*after))


def two_statements(subject: Subject, revisions: Revisions) -> Iterator[Finding]:
    """One statement in one string."""
    for _, sql in subject.directions():
        for _, calls in groupby(sql.statements, key=lambda statement: statement.call):
            first, *more = calls
            if more and not first.is_helper:
                yield subject.finding(
                    "two-statements",
                    first,
                    Advice(
                        "A distributed database refuses two statements in one string, and an error does not say"
                        " which of them failed.",
                        "One statement in each op.execute:",
                        "\n".join(call("op.execute", statement.sql) for statement in (first, *more)),
                    ),
                )


def models_import(subject: Subject, revisions: Revisions) -> Iterator[Finding]:
    """A revision does not import what changes after it."""
    for node in ast.walk(subject.file.tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if re.match(r"ragschema\b(?!\.operations_v\d)", name):
                yield subject.finding(
                    "models-import",
                    node.lineno,
                    Advice(
                        f"{name} is what it is at head: when it changes, this revision does something else,"
                        " or fails.",
                        "Write out the names that the revision needs:",
                        'documents = sa.table("rag_documents", sa.column("id"), sa.column("article_id"))',
                    ),
                )


def needs_a_database(subject: Subject, revisions: Revisions) -> Iterator[Finding]:
    """A revision can be read as SQL; a downgrade may raise, to say what to do instead."""
    raises = [node for node in ast.walk(subject.file.tree) if isinstance(node, ast.Raise)]
    for direction, sql in subject.directions():
        error, line = sql.error, sql.error_line
        if error is None or (
            direction == "downgrade" and any(r.lineno <= line <= (r.end_lineno or line) for r in raises)
        ):
            continue
        yield subject.finding(
            "needs-a-database",
            line or 1,
            Advice(
                "Where there is no database, `rag migrate --sql` fails here, and nobody can tell what it drops:"
                f" {type(error).__name__}: {error}",
                "Read from the database only where there is one:",
                "if not op.get_context().as_sql:\n    ...",
            ),
        )


RULES: tuple[Rule, ...] = (
    autocommit_not_alone,
    session_set,
    concurrent_if_not_exists,
    missing_deploy_label,
    removed_but_modelled,
    two_tables_locked,
    two_statements,
    models_import,
    needs_a_database,
    undeclared_deletion,
    destructive_autocommit,
)
