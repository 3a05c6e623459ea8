"""Soundness of a schema: our tables and functions are there, and the functions work on this schema.

A function carries the schema it was made for in its ``SET search_path``. In a schema that was renamed, or copied by
editing a dump, it goes on working on the tables of the old one. One statement asks the catalogue; it takes
no lock, and about a millisecond.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from ragschema.database.members import members
from ragschema.database.server import Connection
from ragschema.errors import DriftFound
from ragschema.revisions.manifest import read_manifest
from ragschema.state.catalogue import split_names
from ragschema.state.expected import expected, read_fingerprints
from ragschema.words import counted

_SCHEMA = "{schema}"
_RELATIONS, _FUNCTIONS = members("pg_class", _SCHEMA), members("pg_proc", _SCHEMA)

QUESTION = rf"""
WITH ours AS MATERIALIZED (
    SELECT oid, relname, relkind FROM pg_class WHERE oid IN ({_RELATIONS})
    AND relname::text LIKE 'rag\_%%'
), functions AS MATERIALIZED (
    SELECT proname, proconfig FROM pg_proc WHERE oid IN ({_FUNCTIONS})
    AND proname::text LIKE 'rag\_%%'
)
SELECT n.nspname::text,
    (SELECT e.nspname::text FROM pg_extension x JOIN pg_namespace e ON e.oid = x.extnamespace
        WHERE x.extname = 'vector'),
    ARRAY(SELECT 'table ' || relname FROM ours WHERE relkind IN ('r', 'p'))
    || ARRAY(SELECT 'constraint ' || c.relname || '.' || k.conname FROM ours c CROSS JOIN LATERAL (
        SELECT conname FROM pg_constraint WHERE conrelid = c.oid AND contype = 'p' AND conname::text LIKE 'rag\_%%'
        OFFSET 0) k),
    (SELECT jsonb_agg(jsonb_build_array(path, names)) FROM (
        SELECT (SELECT substr(setting, 13) FROM unnest(proconfig) setting WHERE setting LIKE 'search\_path=%%'),
            array_agg(proname) FROM functions GROUP BY 1) found (path, names)),
    (SELECT jsonb_agg(jsonb_build_array(t.tgname, c.relname, other.nspname))
        FROM ours c CROSS JOIN LATERAL (
            SELECT tgname, tgfoid FROM pg_trigger WHERE tgrelid = c.oid AND NOT tgisinternal OFFSET 0) t
        JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_namespace other ON other.oid = p.pronamespace
        WHERE p.proname::text LIKE 'rag\_%%' AND other.oid <> n.oid),
    (SELECT jsonb_agg(jsonb_build_array(k.conname, c.relname, other.nspname))
        FROM ours c CROSS JOIN LATERAL (
            SELECT conname, confrelid FROM pg_constraint WHERE conrelid = c.oid AND contype = 'f' OFFSET 0) k
        JOIN pg_class referred ON referred.oid = k.confrelid
        JOIN pg_namespace other ON other.oid = referred.relnamespace
        WHERE referred.relname::text LIKE 'rag\_%%' AND other.oid <> n.oid)
FROM pg_namespace n WHERE n.nspname = {_SCHEMA}
"""
"""To be formatted with the schema as SQL; `read_answer` reads its row."""

_SHOWN = 3


@dataclass(frozen=True)
class Astray:
    """An object of ours that works on another schema than the one it stands in.

    Attributes:
        object: Its kind and name: ``function rag_jobs_cancel``, ``trigger rag_chunks.rag_chunks_deleted``.
        place: The schema it works on; for a function without a search_path, the caller's.
    """

    object: str
    place: str


@dataclass(frozen=True)
class Soundness:
    """What is wrong with a schema.

    Attributes:
        schema: The schema.
        missing: The tables, functions and primary keys of its revision that are not there.
        astray: The objects that work on another schema.
    """

    schema: str
    missing: tuple[str, ...] = ()
    astray: tuple[Astray, ...] = ()

    @property
    def is_sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.missing and not self.astray

    def faults(self) -> list[str]:
        """Return a line for each kind of fault: what points where, and what is missing."""
        lines = [
            f"{_few(names)} in schema {self.schema} {'works' if len(names) == 1 else 'work'} on {place}"
            for place, names in _by_place(self.astray).items()
        ]
        if self.missing:
            lines.append(f"missing in schema {self.schema}: {_few(list(self.missing))}")
        return lines

    def remedy(self) -> str:
        """Return what to do."""
        kinds = {each.object.partition(" ")[0] for each in self.astray}
        remedies = []
        if (
            kinds & {"function", "trigger"} and not self.missing
        ):  # a trigger's function may be what is missing
            remedies.append(
                "Run `rag migrate repair`: it makes them work on their own schema, in one transaction."
            )
        if "constraint" in kinds:
            remedies.append(
                "Drop the foreign keys named below, and add them again to the tables of this schema."
            )
        if self.missing:
            remedies.append(
                "A restore that ended early leaves this: restore again, into an empty database. What was moved to"
                " another schema goes back with ALTER ... SET SCHEMA. `rag migrate verify` names everything that"
                " differs."
            )
        return " ".join(remedies)

    def refuse(self) -> None:
        """Raise where something is wrong.

        Raises:
            DriftFound: It names what points where, and what is missing.
        """
        if not self.is_sound:
            names = [f"{each.object}: {each.place}" for each in self.astray]
            names += [f"{name}: missing" for name in self.missing]
            raise DriftFound(
                f"The schema {self.schema} is not whole: {'; '.join(self.faults())}.",
                f"Nothing was changed. {self.remedy()}",
                "\n".join(names),
            )


def find_soundness(connection: Connection, schema: str, revision: str | None) -> Soundness:
    """Ask whether a schema is sound; reads the catalogue only, takes no lock.

    Args:
        connection: In or outside a transaction.
        schema: The schema of our tables.
        revision: The revision it is at; where it is None or not known, nothing is said to be missing.
    """
    row = connection.execute(question(), {"schema": schema}).fetchone()
    return read_answer(row, schema, revision)


def question(schema: str = "%(schema)s") -> bytes:
    """Return the statement, about a parameter by default, or about what an expression says."""
    return QUESTION.replace("{schema}", schema).encode()


def read_answer(row: Sequence[Any] | None, schema: str, revision: str | None) -> Soundness:
    """Read the row that `QUESTION` returns, None where there is no such schema."""
    wanted = _wanted(revision) if revision in read_fingerprints() else frozenset[str]()
    if row is None:
        return Soundness(schema, tuple(sorted(wanted)))
    schema, extension, objects, functions, triggers, keys = row
    astray = [
        Astray(f"function {name}", place)
        for path, names in functions or ()
        if (place := _place(path, schema, extension)) is not None
        for name in names
        if name in _functions_with_path()
    ]
    for kind, found in (("trigger", triggers), ("constraint", keys)):
        astray += [Astray(f"{kind} {table}.{name}", f"schema {other}") for name, table, other in found or ()]
    there = {*objects, *(f"function {name}" for _, names in functions or () for name in names)}
    return Soundness(
        schema, tuple(sorted(wanted - there)), tuple(sorted(astray, key=lambda each: each.object))
    )


@cache
def _wanted(revision: str) -> frozenset[str]:
    """Return the tables, functions and primary keys of a revision; functions by their names alone.

    Without what contract revisions make: a database may owe them.
    """
    contracts = frozenset(each.revision for each in read_manifest().revisions if each.deploy == "contract")
    anyway = expected(revision, contracts)
    return frozenset(
        name.partition("(")[0]
        for name, text in expected(revision).items()
        if name in anyway and (name.startswith(("table ", "function ")) or text.startswith("PRIMARY KEY "))
    )


@cache
def _functions_with_path() -> frozenset[str]:
    """Return the names of the functions that carry a search_path, at any revision."""
    catalogues: Mapping[str, Mapping[str, str]] = read_fingerprints()
    return frozenset(
        name.removeprefix("function ").partition("(")[0]
        for catalogue in catalogues.values()
        for name, text in catalogue.items()
        if name.startswith("function ") and re.search(r"\n SET search_path TO \$schema\b", text)
    )


def _place(path: str | None, schema: str, extension: str | None) -> str | None:
    """Return where a function with a search_path works; None where that is its own schema."""
    names = split_names(path or "")
    if not names:
        return "the caller's search_path"
    if names[0] != schema:
        return f"schema {names[0]}"
    if extension is not None and extension not in names:
        return f"a search_path without pgvector's schema {extension}"
    return None


def _by_place(astray: Sequence[Astray]) -> dict[str, list[str]]:
    places: dict[str, list[str]] = {}
    for each in astray:
        places.setdefault(each.place, []).append(each.object)
    return places


def _few(names: Sequence[str]) -> str:
    """Return how many of each kind, with the first names."""
    kinds: dict[str, int] = {}
    for name in names:
        kinds[name.partition(" ")[0]] = kinds.get(name.partition(" ")[0], 0) + 1
    counts = " and ".join(counted(count, kind) for kind, count in kinds.items())
    shown = ", ".join(name.partition(" ")[2] for name in names[:_SHOWN])
    return f"{counts} ({shown}{', ...' * (len(names) > _SHOWN)})"
