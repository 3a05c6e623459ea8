"""Drift: how a database differs from what the revision it is at made; `comparison` says what counts."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping
from dataclasses import replace
from typing import Any

from ragschema.database.citus import is_distributed
from ragschema.database.row_security import find_hidden
from ragschema.database.server import Connection
from ragschema.errors import DriftFound, RowsHidden
from ragschema.revisions.manifest import RevisionId
from ragschema.state.catalogue import Catalogue, read_catalogue
from ragschema.state.comparison import Drift, compare, nearest
from ragschema.state.expected import (
    expected,
    read_changes,
    read_fingerprints,
    read_fingerprints_without_triggers,
)
from ragschema.state.imprint import Imprint, take_imprint
from ragschema.state.owed import find_owed
from ragschema.state.partitions import (
    RegisteredModel,
    expected_partitions,
    read_models_if_shown,
    stray_partitions,
)

# An attribute of the driver's connection: what was found, by what was asked.
_REMEMBERED = "_ragschema_remembered"
# Of a model, what makes no table.
_ASIDE: dict[str, Any] = {"key": "", "created_at": None, "activated_at": None}


def drift_found(
    drift: Drift, remedy: str, *, stated: str = "revision", shown: int | None = None
) -> DriftFound:
    """Return the error of tables that are not those of a revision.

    Args:
        drift: The comparison with it.
        remedy: What to do.
        stated: What that revision is: ``the nearest revision,``.
        shown: How many lines of it are shown; all by default.
    """
    lines = drift.lines()[:shown]
    more = ["..."] if len(lines) < len(drift.lines()) else []
    return DriftFound(
        f"The tables are not those of {stated} {drift.revision}: {drift.summary}.",
        remedy,
        "\n".join(lines + more),
    )


def find_drift(
    connection: Connection, schema: str, revision: str, *, owed: Collection[str] | None = None
) -> Drift:
    """Compare a schema with the expected catalogue of a revision; reads only, takes no lock.

    The partitions of embedding models are compared with what the registry says, where this role may read it: one
    that is missing or of no registered model is drift, and so is the index of one that is searched; the index of a
    model that is being built may be missing. Where the schema is on a node of Citus no trigger is expected.

    pgvector may be in our schema, in public, or in a schema of the role's own search_path, that is the one
    this connection started with.

    Args:
        connection: In or outside a transaction.
        schema: The schema of our tables.
        revision: The revision the database is at.
        owed: The revisions before it that were passed over; those that the history says by default.

    Raises:
        UsageError: The expected catalogue of the revision is not known.
    """
    expected(revision)
    if owed is None:
        owed = _find_owed(connection, schema, revision)
    models = read_models_if_shown(connection, schema)
    imprint = take_imprint(connection, schema)
    if imprint is None:
        return _compare(connection, schema, revision, owed, models)
    if (drift := recall(connection, revision, owed, models, imprint)) is None:
        drift = _compare(connection, schema, revision, owed, models)
        if take_imprint(connection, schema) == imprint:  # else somebody has altered it meanwhile
            _remembered(connection)[_key(revision, owed, models, imprint)] = drift
    return drift


def recall(
    connection: Connection,
    revision: str,
    owed: Collection[str],
    models: Collection[RegisteredModel] | None,
    imprint: Imprint,
) -> Drift | None:
    """Return what `find_drift` has found on this connection in a schema with the same imprint; None if it has not.

    Args:
        connection: One that is lent to one schema after the other.
        revision: The revision the schema is at.
        owed: The revisions before it that were passed over.
        models: Its registered models; None where they are not shown.
        imprint: Its imprint.
    """
    return _remembered(connection).get(_key(revision, owed, models, imprint))


def _remembered(connection: Connection) -> dict[Hashable, Drift]:
    found: dict[Hashable, Drift] | None = getattr(connection, _REMEMBERED, None)
    if found is None:
        found = {}
        setattr(connection, _REMEMBERED, found)
    return found


def _key(
    revision: str,
    owed: Collection[str],
    models: Collection[RegisteredModel] | None,
    imprint: Imprint,
) -> Hashable:
    kept = None if models is None else tuple(replace(each, **_ASIDE) for each in models)
    return revision, tuple(owed), kept, imprint.key


def _compare(
    connection: Connection,
    schema: str,
    revision: str,
    owed: Collection[str],
    models: Collection[RegisteredModel] | None,
) -> Drift:
    found = read_catalogue(connection, schema)
    catalogues = _catalogues(connection, schema, owed)
    partitions = expected_partitions(catalogues[revision], found, models or ())
    strays = stray_partitions(found, partitions) if models is not None else ()
    hidden = _find_hidden(connection, schema, found)
    return compare(found, revision, catalogues, hidden=hidden, partitions=partitions, strays=strays)


def find_done(connection: Connection, schema: str, owed: Collection[str]) -> tuple[RevisionId, ...]:
    """Return the owed revisions whose changes somebody has made by hand: every object is as they leave it."""
    found = read_catalogue(connection, schema) if owed else {}
    changes = read_changes()
    return tuple(
        each
        for each in owed
        if changes.get(each) and all(found.get(name) == text for name, text in changes[each].items())
    )


def nearest_revision(connection: Connection, schema: str) -> Drift:
    """Compare a schema with every revision, and return the nearest; it has no differences where one matches.

    What the history says is owed is left out of them; where none matches, they are compared in full.

    Of revisions with the same catalogue it is the oldest: what the later ones do to data may be missing. Reads
    only, takes no lock.
    """
    found = read_catalogue(connection, schema)
    hidden = _find_hidden(connection, schema, found)
    owed = _find_owed(connection, schema, [*read_changes()][-1])
    if owed and (drift := nearest(found, _catalogues(connection, schema, owed), hidden=hidden)).is_clean:
        return drift
    return nearest(found, _catalogues(connection, schema, ()), hidden=hidden)


def _catalogues(
    connection: Connection, schema: str, owed: Collection[str]
) -> Mapping[str, Mapping[str, str]]:
    """Return the expected catalogues: without triggers where the schema is on a node of Citus, which refuses them."""
    read = read_fingerprints_without_triggers if is_distributed(connection, schema) else read_fingerprints
    return read(frozenset(owed))


def _find_owed(connection: Connection, schema: str, revision: str) -> tuple[RevisionId, ...]:
    try:
        return find_owed(connection, schema, revision)
    except RowsHidden:  # a service's role compares as far as it sees
        return ()


def _find_hidden(connection: Connection, schema: str, found: Catalogue) -> frozenset[str]:
    """Return the tables of which row security hides rows from this connection's role."""
    if not any(name.startswith("row-security ") for name in found):
        return frozenset()
    return frozenset(hidden.table for hidden in find_hidden(connection, schema))
