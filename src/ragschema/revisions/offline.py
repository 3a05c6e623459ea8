"""Offline SQL of a revision: each statement with the line of the revision that it comes from."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from io import StringIO
from types import FrameType, ModuleType

from alembic.script import Script

from ragschema.revisions.manifest import Direction
from ragschema.revisions.scripts import offline_sql
from ragschema.sql.splitting import split_sql


@dataclass(frozen=True)
class Statement:
    """A statement of a revision.

    Attributes:
        sql: Its text, without the semicolon and without comments before it.
        line: The line of the revision that runs it.
        offset: Where it begins in the whole text of the revision's SQL.
        transaction: Counts the revision's transactions and autocommit blocks.
        is_autocommit: Whether it stands in an autocommit block.
        is_helper: Whether a function of ragschema.operations_v1 runs it, a safe form by itself.
        call: Counts the strings that the revision runs; more than one statement may stand in one.
    """

    sql: str
    line: int
    offset: int
    transaction: int
    is_autocommit: bool
    is_helper: bool
    call: int


@dataclass(frozen=True)
class RevisionSql:
    """What a revision does in one direction.

    Attributes:
        text: All of it, as a transaction that the runner wraps around the revision.
        statements: Its statements in order, but for those that begin and end transactions.
        blocks: The lines that open an autocommit block, helpers left out.
        error: The exception that ended it early: the revision needs a database.
        error_line: The line of the revision where that happened.
    """

    text: str
    statements: tuple[Statement, ...]
    blocks: tuple[int, ...]
    error: Exception | None = None
    error_line: int = 0

    def statement_at(self, offset: int) -> Statement | None:
        """Return the statement that a place in the text belongs to."""
        return next((s for s in reversed(self.statements) if s.offset <= offset), None)


def read_sql(script: Script, direction: Direction) -> RevisionSql:
    """Run a revision offline and return what it does.

    Takes Alembic's ``op``: call it where no migration runs in this process.
    """
    tape = _Tape(script.module)
    tape.write("BEGIN;\n\n")
    error, line = None, 0
    try:
        offline_sql(script, direction, tape)
    except Exception as exc:  # a revision may raise anything
        error, line = exc, _line_of(exc, script.module)
    tape.write("COMMIT;\n")
    return RevisionSql(tape.getvalue(), tuple(tape.statements), tuple(tape.blocks), error, line)


class _Tape(StringIO):
    """Records which line of the revision writes what."""

    def __init__(self, module: ModuleType) -> None:
        super().__init__()
        self.statements: list[Statement] = []
        self.blocks: list[int] = []
        self._module = module
        self._call = self._transaction = 0
        self._is_autocommit = False

    def write(self, text: str) -> int:
        line, is_helper = self._find_caller()
        self._call += 1
        for offset, sql in split_sql(text):
            if sql in ("BEGIN", "COMMIT"):
                self._transaction += 1
                self._is_autocommit = sql == "COMMIT"
                if self._is_autocommit and line and not is_helper:
                    self.blocks.append(line)
            else:
                self.statements.append(
                    Statement(
                        sql,
                        line,
                        self.tell() + offset,
                        self._transaction,
                        self._is_autocommit,
                        is_helper,
                        self._call,
                    )
                )
        return super().write(text)

    def _find_caller(self) -> tuple[int, bool]:
        """Return the line of the revision that is running, 0 where none is, and whether a helper runs for it."""
        frame: FrameType | None = sys._getframe()
        is_helper = False
        while frame is not None and frame.f_globals is not self._module.__dict__:
            is_helper |= frame.f_globals.get("__name__", "").startswith("ragschema.operations_v")
            frame = frame.f_back
        return (frame.f_lineno, is_helper) if frame is not None else (0, False)


def _line_of(exc: Exception, module: ModuleType) -> int:
    traceback, line = exc.__traceback__, 0
    while traceback is not None:
        if traceback.tb_frame.f_globals is module.__dict__:
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return line
