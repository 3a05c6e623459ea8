"""Comparison of a catalogue with that of a revision: what differs, and what of it counts.

What counts. Missing or changed objects of ours are drift, and so are constraints, rules, storage parameters and
required columns that somebody added to our tables: they make a service's statements fail or find less. Notes are
what somebody added that refuses nothing: indexes, triggers, comments, columns that may be left out; autovacuum's
settings, changed or added; pgvector in a schema that the role's search_path lacks, because functions name it
themselves; row security and policies that hide no row from the owner and from the role that looks, as some
platforms turn them on for every table. Forced, or hiding rows from that role, they are drift.
But what a later revision will itself create is drift, because that revision will fail on it; an index is not,
because a concurrent build may have been interrupted. Everything else in the schema is foreign and not mentioned.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from ragschema.revisions.manifest import RevisionId
from ragschema.state.catalogue import Catalogue
from ragschema.state.expected import read_fingerprints
from ragschema.words import counted

UUID_REPAIR = "20261121100500"
"""The revision that gives ids the default ``gen_random_uuid()``, where a hand-written schema has another."""

_UUID_DEFAULT = re.compile(r"""(?<= DEFAULT )(?:(?:\w+|"(?:[^"]|"")+")\.)?uuid_generate_v4\(\)""")
_STANDING_ON_TABLES = {
    *("column", "constraint", "index", "trigger", "rule", "policy", "row-security", "parameter", "comment")
}


@dataclass(frozen=True)
class Difference:
    """An object that is not as expected.

    Attributes:
        object: Its kind and name: ``column rag_chunks.embedding``.
        expected: Its definition at the revision; None where it should not be there.
        found: Its definition in the database; None where it is missing.
    """

    object: str
    expected: str | None
    found: str | None

    def __str__(self) -> str:
        if self.found is None:
            return f"{self.object} is missing; expected: {self.expected}"
        if self.expected is None:
            return f"{self.object} is not expected: {self.found}"
        return f"{self.object} differs\n  expected: {self.expected}\n  found:    {self.found}"


@dataclass(frozen=True)
class Drift:
    """A database compared with a revision.

    Attributes:
        revision: The revision.
        differences: Drift, sorted by object.
        misplaced: Functions that differ in nothing but their search_path: drift that has one cause, a schema that
            was renamed or copied; ``expected`` and ``found`` are the two paths.
        notes: What somebody added to our tables that refuses nothing; not drift.
        repaired_later: What a later revision repairs by itself: ids with the default ``uuid_generate_v4()``,
            and the extension uuid-ossp, which stays but is needed no more; not drift.
    """

    revision: RevisionId
    differences: tuple[Difference, ...] = ()
    misplaced: tuple[Difference, ...] = ()
    notes: tuple[Difference, ...] = ()
    repaired_later: tuple[Difference, ...] = ()

    @property
    def is_clean(self) -> bool:
        """Whether there is no drift; there may be notes."""
        return self.count == 0

    @property
    def count(self) -> int:
        """How many objects differ."""
        return len(self.differences) + len(self.misplaced)

    @property
    def summary(self) -> str:
        """How much drift there is: ``2 objects differ``."""
        verb = "differs" if self.count == 1 else "differ"
        return f"{counted(self.count, 'object')} {verb}" if self.count else "no drift"

    def lines(self) -> list[str]:
        """Return a text for each difference, and one for all functions that have the same wrong search_path."""
        return [*map(_misplaced_line, self._by_path().items()), *map(str, self.differences)]

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def _by_path(self) -> dict[tuple[str | None, str | None], list[str]]:
        paths: dict[tuple[str | None, str | None], list[str]] = {}
        for each in self.misplaced:
            name = each.object.removeprefix("function ").partition("(")[0]
            paths.setdefault((each.found, each.expected), []).append(name)
        return paths


def _misplaced_line(entry: tuple[tuple[str | None, str | None], list[str]]) -> str:
    (found, wanted), names = entry
    made = "was" if len(names) == 1 else "were"
    return (
        f"{counted(len(names), 'function')} {made} made for another schema: the search_path is {found},"
        f" and should be {wanted}. Run `rag migrate repair`. Named {', '.join(names)}."
    )


def nearest(
    found: Catalogue,
    catalogues: Mapping[str, Mapping[str, str]] | None = None,
    *,
    hidden: Collection[str] = (),
) -> Drift:
    """Compare a catalogue with every revision's, and return the nearest; see `nearest_revision` and `compare`."""
    catalogues = read_fingerprints() if catalogues is None else catalogues
    known = {name for catalogue in catalogues.values() for name in catalogue}

    def distance(revision: str) -> int:
        return len(_differing(catalogues[revision], found) & known)

    # any that fits comes first: an index that a later revision makes does not make it that revision
    fitting = find_fitting(found, catalogues, hidden=hidden)
    return compare(found, min(fitting or catalogues, key=distance), catalogues, hidden=hidden)


def find_fitting(
    found: Catalogue,
    catalogues: Mapping[str, Mapping[str, str]] | None = None,
    *,
    hidden: Collection[str] = (),
) -> list[RevisionId]:
    """Return the revisions that `compare` finds no drift from, oldest first."""
    catalogues = read_fingerprints() if catalogues is None else catalogues
    fitting: list[RevisionId] = []
    later: set[str] = set()
    for revision in reversed(list(catalogues)):
        groups = _grouped(found, revision, catalogues[revision], later, hidden)
        if not any(group in _COUNTED for group, _ in groups):
            fitting.insert(0, revision)
        later.update(catalogues[revision])
    return fitting


def compare(
    found: Catalogue,
    revision: str,
    catalogues: Mapping[str, Mapping[str, str]] | None = None,
    *,
    hidden: Collection[str] = (),
    partitions: Mapping[str, str] = MappingProxyType({}),
    strays: Collection[str] = (),
) -> Drift:
    """Compare a catalogue with the expected one of a revision.

    Args:
        found: The catalogue of a database.
        revision: A key of ``catalogues``.
        catalogues: The expected catalogue of every revision, oldest first; the shipped ones by default.
        hidden: The tables of which row security hides rows from the role that looks.
        partitions: The catalogue of the partitions of registered models.
        strays: Partitions that are of no registered model.
    """
    catalogues = read_fingerprints() if catalogues is None else catalogues
    wanted, order = {**catalogues[revision], **partitions}, list(catalogues)
    later = set[str]().union(*(catalogues[after] for after in order[order.index(revision) + 1 :]))
    groups: dict[_Group, list[Difference]] = {
        name: [] for name in ("differences", "misplaced", "notes", "repaired_later")
    }
    for group, difference in _grouped(found, revision, wanted, later, hidden, strays):
        groups[group].append(difference)
    return Drift(revision, **{group: tuple(members) for group, members in groups.items()})


_Group = Literal["differences", "misplaced", "notes", "repaired_later"]
_COUNTED = ("differences", "misplaced")


def _differing(wanted: Mapping[str, str], found: Mapping[str, str]) -> set[str]:
    return {name for name, _ in wanted.items() ^ found.items()}


def _grouped(
    found: Catalogue,
    revision: str,
    wanted: Mapping[str, str],
    later: Collection[str],
    hidden: Collection[str],
    strays: Collection[str] = (),
) -> Iterator[tuple[_Group, Difference]]:
    """Yield what differs, sorted by object, with its group."""
    for name in sorted(_differing(wanted, found)):
        difference = Difference(name, wanted.get(name), found.get(name))
        if (paths := _only_path_differs(difference)) is not None:
            yield "misplaced", paths
        elif name in strays:
            yield "differences", difference
        elif group := _group(
            difference, wanted, found, later, hidden, is_repaired_later=revision < UUID_REPAIR
        ):
            yield group, difference


_PATH = re.compile(r"\n SET search_path TO (.*)(?=\n)")


def _only_path_differs(difference: Difference) -> Difference | None:
    """Return the two search_paths of a function that differs in nothing else."""
    if not difference.object.startswith("function ") or None in (difference.expected, difference.found):
        return None
    expected_, found = difference.expected or "", difference.found or ""
    if _PATH.sub("", expected_, count=1) != _PATH.sub("", found, count=1):
        return None
    paths = [match[1] if (match := _PATH.search(text)) else "the caller's" for text in (expected_, found)]
    return Difference(difference.object, *paths)


def _group(
    difference: Difference,
    wanted: Mapping[str, str],
    found: Mapping[str, str],
    later: Collection[str],
    hidden: Collection[str],
    *,
    is_repaired_later: bool,
) -> _Group | None:
    """Return where a difference belongs; None for what is foreign, or said of its table already."""
    kind, _, name = difference.object.partition(" ")
    table = f"table {name.partition('.')[0]}"
    if kind == "parameter" and "autovacuum_" in name and table in found and table in wanted:
        return "notes"  # an operator knows the load
    if difference.object == "extension vector" and None not in (difference.found, difference.expected):
        return "notes"  # the functions name its schema themselves
    if difference.found is None:
        return None if kind in _STANDING_ON_TABLES and table not in found else "differences"
    if difference.object == "extension uuid-ossp":
        return "repaired_later" if is_repaired_later else None
    if difference.expected is not None:
        repaired = _UUID_DEFAULT.sub("gen_random_uuid()", difference.found)
        return "repaired_later" if is_repaired_later and repaired == difference.expected else "differences"
    if difference.object in later and kind != "index":
        return None if kind in _STANDING_ON_TABLES and table not in wanted else "differences"
    if kind not in _STANDING_ON_TABLES or table not in wanted:
        return None
    if kind in ("row-security", "policy"):
        is_forced = "forced" in found.get(f"row-security {table.removeprefix('table ')}", "")
        return "differences" if is_forced or table.removeprefix("table ") in hidden else "notes"
    return "notes" if _refuses_nothing(kind, difference.found) else "differences"


def _refuses_nothing(kind: str, definition: str) -> bool:
    if kind == "column":
        return " NOT NULL" not in definition or " DEFAULT " in definition or " GENERATED " in definition
    return kind in ("index", "trigger", "comment")
