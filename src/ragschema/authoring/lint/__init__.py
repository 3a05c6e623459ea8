"""Lint of revisions: what would hurt a database in use, and the code to write instead.

squawk reads the SQL of each revision, our own rules read the revision. What is right here all the same is
allowed where it stands, with its reason: ``# lint: allow RULE: reason`` on the line, or above it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import takewhile

from alembic.script import ScriptDirectory
from alembic.util import CommandError

from ragschema.authoring.lint.advice import advise
from ragschema.authoring.lint.citus_rules import SINCE, refused_by_citus
from ragschema.authoring.lint.findings import Finding
from ragschema.authoring.lint.rules import RULES
from ragschema.authoring.lint.squawk import (
    ABOUT_ROWS_AND_USERS,
    ALLOWED_IN_CONTRACT,
    EXCLUDED,
    Violation,
    is_covered,
    run_squawk,
)
from ragschema.authoring.lint.subject import Revisions, Subject, read_subject
from ragschema.revisions.manifest import unknown_revision
from ragschema.revisions.offline import Statement
from ragschema.revisions.scripts import refused_by_alembic, script_directory
from ragschema.sql.statements import find_target

__all__ = ["Finding", "lint"]

_ALLOWED = re.compile(r"#\s*lint: allow ([\w-]+): \S")


def lint(
    revisions: Sequence[str] | None = None, scripts: ScriptDirectory | None = None, *, citus: bool = False
) -> list[Finding]:
    """Lint revisions; return what is found, in the order of revisions and lines.

    Reads their offline SQL through Alembic's ``op``: call it where no migration runs in this process.

    Args:
        revisions: Their ids, or ``head``; all by default.
        scripts: Where they are; this package's own by default.
        citus: Whether to look for what Citus refuses, too: of this package's own, in those since `SINCE`, where a
            tenant on Citus begins.

    Raises:
        UsageError: There is no such revision.
        ConfigurationError: squawk is not installed.
    """
    since = "" if scripts else SINCE
    scripts = scripts or script_directory()
    chosen = None if revisions is None else [_find(scripts, revision) for revision in revisions]
    everything = Revisions([read_subject(script) for script in reversed(list(scripts.walk_revisions()))])
    subjects = [s for s in everything.subjects if chosen is None or s.revision in chosen]
    violations = run_squawk({subject.revision: subject.upgrade.text for subject in subjects})
    findings = []
    for subject in subjects:
        found = [*_read_violations(subject, violations[subject.revision])]
        found += [finding for rule in RULES for finding in rule(subject, everything)]
        if citus and subject.revision >= since:
            found += refused_by_citus(subject, everything)
        findings += sorted((f for f in found if not _is_allowed(f, subject)), key=lambda f: (f.line, f.rule))
    return findings


def _find(scripts: ScriptDirectory, revision: str) -> str:
    try:
        script = scripts.get_revision(revision)
    except CommandError as exc:
        raise refused_by_alembic(exc) from exc
    if script is None:
        raise unknown_revision(revision)
    return script.revision


def _read_violations(subject: Subject, violations: Sequence[Violation]) -> Iterator[Finding]:
    placed = [(violation, subject.upgrade.statement_at(violation.offset)) for violation in violations]
    broken: dict[Statement | None, set[str]] = {}
    for violation, statement in placed:
        broken.setdefault(statement, set()).add(violation.rule)
    told = set()
    for violation, statement in placed:
        rule = violation.rule
        if statement is None or statement.is_helper or (rule, statement) in told:
            continue
        if not _is_decided_otherwise(rule, statement, subject) and not is_covered(rule, broken[statement]):
            told.add((rule, statement))
            advice = advise(rule, statement.sql, violation.message, violation.remedy)
            finding = subject.finding(rule, statement, advice)
            yield replace(finding, line=_line_of(violation, statement, subject))


def _is_decided_otherwise(rule: str, statement: Statement, subject: Subject) -> bool:
    if rule in ALLOWED_IN_CONTRACT:
        return subject.deploy == "contract"
    if rule in ABOUT_ROWS_AND_USERS:
        return find_target(statement.sql) in subject.new_tables
    return rule in EXCLUDED


def _line_of(violation: Violation, statement: Statement, subject: Subject) -> int:
    """Return the line of what a call spread over several lines names, such as a column; else the call's."""
    sql = subject.upgrade.text
    name = re.match(r'\s*"?(\w+)', sql[sql.rfind("\n", 0, violation.offset) + 1 :])
    lines = subject.file.source.splitlines()
    place = next((place for place, _ in subject.body("upgrade") if statement.line in place), range(0))
    named = [line for line in place if line > statement.line and name and f'"{name[1]}"' in lines[line - 1]]
    return named[0] if named else statement.line


def _is_allowed(finding: Finding, subject: Subject) -> bool:
    lines = subject.file.source.splitlines()
    here, above = lines[finding.line - 1], reversed(lines[: finding.line - 1])
    places = [here, *takewhile(lambda line: line.lstrip().startswith("#"), above)]
    return any(match[1] == finding.rule for place in places if (match := _ALLOWED.search(place)))
