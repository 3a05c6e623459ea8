"""The functions and triggers that the models need: the newest version of each file in ``alembic/routines``.

They are made by ``Base.metadata.create_all`` too, and autogenerate compares them. By hand rather than with
sqlalchemy-declarative-extensions: its functions have no settings, and these need ``SET search_path FROM
CURRENT`` to work in every schema; its triggers cannot be deferred; and it would keep a second copy of each body
beside the one that the revisions create.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Connection, MetaData, event, inspect

from ragschema.revisions.files import routine_paths

_NAME = re.compile(r"(\w+)_v(\d+)")
_KIND = re.compile(r"^CREATE (?:OR REPLACE )?(?:CONSTRAINT )?(FUNCTION|TRIGGER)\b", re.M)
_COMMENT = re.compile(r"--.*")
_OURS = re.compile(r"\brag_\w+")
_ON_TABLE = re.compile(r"\bON (rag_\w+)")


@dataclass(frozen=True)
class Routine:
    """A function or trigger.

    Attributes:
        kind: Which of the two.
        name: Its name.
        version: Counts up from 1.
        sql: The statement that creates it.
        names: The names of ours in the statement, and in those of the functions that it calls.
    """

    kind: Literal["function", "trigger"]
    name: str
    version: int
    sql: str
    names: frozenset[str]

    @property
    def is_for_indexes(self) -> bool:
        """Whether indexes may use it, so that it comes before the tables."""
        return self.kind == "function" and "IMMUTABLE" in self.sql

    @property
    def table(self) -> str:
        """The table that a trigger is on."""
        match = _ON_TABLE.search(self.sql)
        assert match is not None, self.name
        return match[1]

    def create(self, connection: Connection) -> None:
        """Create it, or replace it."""
        if self.kind == "trigger":
            connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {self.name} ON {self.table}")
        connection.exec_driver_sql(self.sql.replace("%", "%%"))


@cache
def newest_routines() -> tuple[Routine, ...]:
    """Return the newest version of each function and trigger, functions first."""
    newest: dict[str, Routine] = {}
    for routine in map(_read, routine_paths()):
        if routine.name not in newest or newest[routine.name].version < routine.version:
            newest[routine.name] = routine
    complete = (replace(routine, names=_find_names(routine, newest)) for routine in newest.values())
    return tuple(sorted(complete, key=lambda routine: (routine.kind, routine.name)))


def _find_names(
    routine: Routine, known: dict[str, Routine], above: frozenset[str] = frozenset()
) -> frozenset[str]:
    """Return the names that a routine has, with those of the functions it calls."""
    above |= {routine.name}
    called = routine.names & known.keys() - above
    return routine.names.union(*(_find_names(known[name], known, above) for name in called))


def _read(path: Path) -> Routine:
    sql = path.read_text(encoding="utf-8").strip().removesuffix(";")
    name, kind = _NAME.fullmatch(path.stem), _KIND.search(sql)
    assert name is not None, path
    assert kind is not None, path
    return Routine(
        "function" if kind[1] == "FUNCTION" else "trigger",
        name[1],
        int(name[2]),
        sql,
        frozenset(_OURS.findall(_COMMENT.sub("", sql))),
    )


def create_routines(connection: Connection, metadata: MetaData, *, for_indexes: bool | None = None) -> None:
    """Create the functions and triggers whose tables exist, in the schema that comes first in search_path.

    Args:
        connection: In a transaction.
        metadata: Has the tables that they may need.
        for_indexes: Only those that indexes use, or only the others; all by default.
    """
    missing = metadata.tables.keys() - set(inspect(connection).get_table_names())
    path, *schemas = connection.exec_driver_sql(_SCHEMAS).one()
    # what a migration runs with, see ragschema.operations_v2
    own_path = ", ".join([*dict.fromkeys(filter(None, schemas)), "pg_temp"])
    connection.exec_driver_sql("SELECT set_config('search_path', %s, true)", (own_path,))
    for routine in newest_routines():
        if for_indexes in (None, routine.is_for_indexes) and not routine.names & missing:
            routine.create(connection)
    connection.exec_driver_sql("SELECT set_config('search_path', %s, true)", (path,))


_SCHEMAS = """
SELECT current_setting('search_path'), quote_ident(current_schema()),
       (SELECT extnamespace::regnamespace::text FROM pg_extension WHERE extname = 'vector')
"""


def declare(metadata: MetaData) -> None:
    """Make ``create_all`` create the functions and triggers, before or after the tables."""

    def before(target: MetaData, connection: Connection, **_: Any) -> None:
        create_routines(connection, target, for_indexes=True)

    def after(target: MetaData, connection: Connection, tables: object = (), **_: Any) -> None:
        if tables:
            create_routines(connection, target, for_indexes=False)

    event.listen(metadata, "before_create", before)
    event.listen(metadata, "after_create", after)
