"""Adoption of a database with our tables and no version row: it gets one, once it is known which."""

from __future__ import annotations

import os
from dataclasses import dataclass

from ragschema.database.connections import opened
from ragschema.database.options import Options
from ragschema.database.server import Connection
from ragschema.errors import DriftFound
from ragschema.revisions.manifest import Manifest, RevisionId, read_manifest, unknown_revision
from ragschema.state.comparison import Drift
from ragschema.state.drift import drift_found, find_done, find_drift, nearest_revision
from ragschema.state.owed import find_owed
from ragschema.state.status import has_our_tables, read_current, require_our_tables

BASELINE_SETTING = "MIGRATE_BASELINE_VERSION"

_MEND = "Nothing was stamped. Mend the differences below in SQL, then run `rag migrate adopt` again."
_SHOWN = 20  # differences of a stamp that is refused


@dataclass(frozen=True)
class Adoption:
    """What `adopt` found.

    Attributes:
        revision: The revision that the database is at.
        was_managed: Whether it already said so, and owed nothing that was done by hand; then nothing was stamped.
        drift: The comparison with that revision; None where it was managed.
        said: The other revision that it said, wrongly; None where it said none, or the right one.
    """

    revision: RevisionId
    was_managed: bool
    drift: Drift | None
    said: str | None = None


def find_adoption(options: Options, baseline: str | None = None) -> Adoption:
    """Find the revision of a database made by Atlas, by hand or by ``create_all``; reads only.

    Where the database says a revision that its tables are not, and they are exactly another one, it is that.

    Args:
        options: The database.
        baseline: The revision it is said to be; verified all the same. MIGRATE_BASELINE_VERSION by default,
            else the revision that fits.

    Raises:
        DriftFound: It is not what the baseline says, or no revision fits; the evidence is the difference to
            the nearest.
        UnmanagedDatabase: There is nothing to adopt.
        UsageError: There is no such revision.
    """
    baseline = baseline or os.environ.get(BASELINE_SETTING) or None
    manifest = read_manifest()
    known = [revision.revision for revision in manifest.revisions]
    if baseline is not None and baseline not in known:
        raise unknown_revision(baseline)
    with opened(options) as at:
        schema = at.schemas.target
        current = read_current(at.connection, schema)
        if current is not None:
            return _look_at_stamp(at.connection, schema, current, manifest)
        require_our_tables(at.connection, schema)
        drift = (
            find_drift(at.connection, schema, baseline)
            if baseline is not None
            else nearest_revision(at.connection, schema)
        )
    if not drift.is_clean:
        stated = "the baseline," if baseline is not None else "the nearest revision,"
        raise drift_found(drift, _MEND, stated=stated)
    return Adoption(drift.revision, was_managed=False, drift=drift)


def _look_at_stamp(connection: Connection, schema: str, said: str, manifest: Manifest) -> Adoption:
    """Compare a database with the revision that it says; another one that fits it takes its place."""
    manifest.pending(said)  # refuses a revision that is not known
    owed = find_owed(connection, schema, said)
    done = find_done(connection, schema, owed)
    drift = find_drift(connection, schema, said, owed={*owed} - {*done})
    if drift.is_clean:
        return Adoption(said, was_managed=not done, drift=drift if done else None)
    if not has_our_tables(connection, schema):
        raise DriftFound(
            f"The database says it is at {said}, and schema {schema} has none of our tables.",
            "Nothing was stamped. If it is to be empty, run `rag migrate stamp base`, then `rag migrate`.",
        )
    nearest = nearest_revision(connection, schema)
    if nearest.is_clean:
        return Adoption(nearest.revision, was_managed=False, drift=nearest, said=said)
    if nearest.count < drift.count:
        raise DriftFound(
            f"The database says it is at {said}, and its tables are nearer to {nearest.revision}:"
            f" {nearest.summary}.",
            _MEND,
            str(nearest),
        )
    return Adoption(said, was_managed=True, drift=None)


def refuse_wrong_stamp(connection: Connection, schema: str, revision: str | None) -> None:
    """Refuse to stamp a revision that the tables are not; reads only.

    Args:
        connection: In or outside a transaction.
        schema: The schema of our tables.
        revision: The revision to stamp, or None for base.

    Raises:
        DriftFound: The tables are another revision's, or there are none, or at base there are some.
    """
    remedy = (
        "Nothing was stamped. `rag migrate adopt` finds the revision that fits and stamps it; --force, or"
        " `alembic -x force=yes stamp`, stamps this one all the same."
    )
    if revision is None:
        if has_our_tables(connection, schema):
            raise DriftFound(f"Schema {schema} has our tables, and at base there are none.", remedy)
        return
    owed = find_owed(connection, schema, revision)
    drift = find_drift(connection, schema, revision, owed={*owed} - {*find_done(connection, schema, owed)})
    if not drift.is_clean:
        raise drift_found(drift, remedy, shown=_SHOWN)
