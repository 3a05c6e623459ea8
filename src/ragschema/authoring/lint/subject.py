"""The subject of a rule: one revision among the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from alembic.script import Script

from ragschema.authoring.lint.findings import Advice, Finding, shorten
from ragschema.revisions.docstrings import Deploy, read_deploy, split_docstring
from ragschema.revisions.files import RevisionFile
from ragschema.revisions.manifest import DIRECTIONS, Direction
from ragschema.revisions.offline import RevisionSql, Statement, read_sql
from ragschema.sql.losses import Loss, find_losses
from ragschema.sql.statements import Thing, find_created, find_removed


@dataclass(frozen=True)
class Subject:
    """A revision, its text and its SQL.

    Attributes:
        revision: Its id.
        file: Its file.
        upgrade: What it does.
        downgrade: How it is reversed.
    """

    revision: str
    file: RevisionFile
    upgrade: RevisionSql
    downgrade: RevisionSql

    @cached_property
    def deploy(self) -> Deploy | None:
        """Its label, None where the docstring has none."""
        return read_deploy(split_docstring(self.file.docstring)["Deploy"])

    @cached_property
    def created(self) -> set[Thing]:
        """What the upgrade creates."""
        return {thing for statement in self.upgrade.statements for thing in find_created(statement.sql)}

    @property
    def new_tables(self) -> set[str]:
        """The tables that the upgrade creates: they have no rows, and nobody uses them."""
        return {thing.name for thing in self.created if thing.kind == "table"}

    def directions(self) -> Iterator[tuple[Direction, RevisionSql]]:
        """Yield both directions and their SQL."""
        yield from zip(DIRECTIONS, (self.upgrade, self.downgrade), strict=True)

    def losses(self, direction: Direction) -> Iterator[tuple[Statement, Loss]]:
        """Yield what a direction may destroy, with the statement that does; what it creates itself is nobody's."""
        sql = dict(self.directions())[direction]
        for statement in sql.statements:
            for loss in find_losses(statement.sql):
                if direction == "downgrade" or loss.name not in self.new_tables:
                    yield statement, loss

    def finding(self, rule: str, where: Statement | int, advice: Advice) -> Finding:
        """Return a finding about a statement, or a line."""
        line, sql = (where, "") if isinstance(where, int) else (where.line, shorten(where.sql))
        return Finding(rule, self.revision, self.file.path.name, line, sql, *advice)

    def body(self, direction: Direction) -> list[tuple[range, str]]:
        """Return the statements of a function of the revision: their lines, and their text without indent."""
        function = self.file.function(direction)
        lines = self.file.source.splitlines()
        found = []
        for node in function.body if function else []:
            place = range(node.lineno, (node.end_lineno or node.lineno) + 1)
            margin = " " * node.col_offset
            text = "\n".join(line.removeprefix(margin) for line in lines[place.start - 1 : place.stop - 1])
            found.append((place, text))
        return found


@dataclass(frozen=True)
class Revisions:
    """All revisions, from base to head.

    Attributes:
        subjects: The revisions.
    """

    subjects: Sequence[Subject]

    @cached_property
    def indexes(self) -> dict[str, str]:
        """The table of every index that any revision creates, by its name."""
        return {
            thing.name: thing.table
            for subject in self.subjects
            for thing in subject.created
            if thing.kind == "index" and thing.table
        }

    def is_created_after(self, thing: Thing, statement: Statement, subject: Subject) -> bool:
        """Whether the revision, or one after it, creates again what one of its statements removes."""
        later = self.subjects[list(self.subjects).index(subject) + 1 :]
        rest = [s for s in subject.upgrade.statements if s.offset > statement.offset]
        created = {t for s in rest for t in find_created(s.sql)}.union(*(other.created for other in later))
        return any(_is_same(thing, other) for other in created)


def read_subject(script: Script) -> Subject:
    """Read a revision; see `read_sql` for when that may be done."""
    path = Path(script.path)
    file = RevisionFile(path, path.read_text(encoding="utf-8"))
    return Subject(script.revision, file, read_sql(script, "upgrade"), read_sql(script, "downgrade"))


def find_removals(subject: Subject) -> Iterator[tuple[Statement, Thing]]:
    """Yield what the upgrade removes, with the statement that does."""
    for statement in subject.upgrade.statements:
        for thing in find_removed(statement.sql):
            yield statement, thing


def _is_same(thing: Thing, other: Thing) -> bool:
    same_table = thing.table is None or other.table is None or thing.table == other.table
    return (thing.kind, thing.name) == (other.kind, other.name) and same_table
