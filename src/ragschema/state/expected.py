"""The expected catalogue of every revision: ``alembic/fingerprints.json``, shipped in the wheel.

The file holds, for each revision, what it changes in the catalogue of the one before: a definition by object,
null where the object goes. ``rag migrate freeze`` writes it anew.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from ragschema.errors import RagSchemaError, UsageError
from ragschema.revisions.locations import script_location
from ragschema.revisions.manifest import describe_ids

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from ragschema.state.catalogue import Catalogue

COMMAND = "uv run rag migrate freeze"


def fingerprints_path() -> Path:
    """Return where the file is: beside versions/."""
    return script_location() / "fingerprints.json"


@cache
def read_changes() -> Mapping[str, Mapping[str, str | None]]:
    """Return what each revision changes in the catalogue, oldest first: None where an object goes.

    Raises:
        RagSchemaError: The file is missing or unreadable.
    """
    path = fingerprints_path()
    try:
        changes: dict[str, dict[str, str | None]] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise RagSchemaError(
            f"The expected catalogues cannot be read from {path}.",
            f"Install ragschema again, or run `{COMMAND}` in a checkout.",
            str(exc),
        ) from exc
    return MappingProxyType(changes)


@cache
def read_fingerprints(owed: frozenset[str] = frozenset()) -> Mapping[str, Mapping[str, str]]:
    """Return the expected catalogue by revision, oldest first.

    Args:
        owed: The revisions that were passed over: without what they change. No later revision changes an object
            that a contract revision changes.

    Raises:
        RagSchemaError: The file is missing or unreadable.
    """
    catalogues: dict[str, Mapping[str, str]] = {}
    last: Catalogue = {}
    for revision, changed in read_changes().items():
        merged = last if revision in owed else {**last, **changed}
        last = {name: text for name, text in merged.items() if text is not None}
        catalogues[revision] = MappingProxyType(last)
    return MappingProxyType(catalogues)


@cache
def read_fingerprints_without_triggers(owed: frozenset[str] = frozenset()) -> Mapping[str, Mapping[str, str]]:
    """Return the expected catalogue by revision where no table has a trigger: on Citus."""
    catalogues = {
        revision: MappingProxyType(
            {name: text for name, text in catalogue.items() if not name.startswith("trigger ")}
        )
        for revision, catalogue in read_fingerprints(owed).items()
    }
    return MappingProxyType(catalogues)


@cache
def our_tables() -> frozenset[str]:
    """Return the names of the tables of all revisions."""
    names = {name for catalogue in read_fingerprints().values() for name in catalogue}
    return frozenset(name.removeprefix("table ") for name in names if name.startswith("table "))


def expected(revision: str, owed: Collection[str] = ()) -> Mapping[str, str]:
    """Return the expected catalogue of a revision, in a database that owes the revisions named.

    Raises:
        UsageError: There is none of that revision.
    """
    catalogues = read_fingerprints(frozenset(owed))
    if revision not in catalogues:
        raise UsageError(
            f"The expected catalogue of revision {revision} is not known; known are {describe_ids([*catalogues])}.",
            f"Run `{COMMAND}` if the revision is new, or use the ragschema that has it.",
        )
    return catalogues[revision]
