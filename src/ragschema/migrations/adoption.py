"""Adoption of a database with our tables and no version row: it gets one, once it is known which."""

from __future__ import annotations

import os
from dataclasses import dataclass

from ragschema.database.connections import opened
from ragschema.database.options import Options
from ragschema.errors import DriftFound
from ragschema.revisions.manifest import RevisionId, read_manifest, unknown_revision
from ragschema.state.drift import Drift, find_drift, nearest_revision
from ragschema.state.status import read_current, require_our_tables

BASELINE_SETTING = "MIGRATE_BASELINE_VERSION"


@dataclass(frozen=True)
class Adoption:
    """What `adopt` found.

    Attributes:
        revision: The revision that the database is at.
        was_managed: Whether it already said so; then nothing was stamped.
        drift: The comparison with that revision; None where it was managed.
    """

    revision: RevisionId
    was_managed: bool
    drift: Drift | None


def find_adoption(options: Options, baseline: str | None = None) -> Adoption:
    """Find the revision of a database made by Atlas, by hand or by ``create_all``; reads only.

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
    known = [revision.revision for revision in read_manifest().revisions]
    if baseline is not None and baseline not in known:
        raise unknown_revision(baseline)
    with opened(options) as at, at.connection:
        schema = at.schemas.target
        current = read_current(at.connection, schema)
        if current is not None:
            return Adoption(current, was_managed=True, drift=None)
        require_our_tables(at.connection, schema)
        drift = (
            find_drift(at.connection, schema, baseline)
            if baseline is not None
            else nearest_revision(at.connection, schema)
        )
    if not drift.is_clean:
        stated = "the baseline" if baseline is not None else "the nearest revision"
        raise DriftFound(
            f"The tables are not those of {stated}, {drift.revision}: {drift.summary}.",
            "Nothing was stamped. Mend the differences below in SQL, then run `rag migrate adopt` again.",
            "\n".join(map(str, drift.differences)),
        )
    return Adoption(drift.revision, was_managed=False, drift=drift)
