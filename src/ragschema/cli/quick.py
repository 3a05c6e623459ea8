"""Answers at head to the two questions that deploy jobs ask most; without Typer, a third of the time."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

from ragschema.database.connections import opened
from ragschema.database.options import find_options
from ragschema.errors import RagSchemaError
from ragschema.revisions.manifest import Revision, describe_ids, read_manifest
from ragschema.state.status import Status, read_status

_LISTED = 10  # revisions; more are told by ranges


def answer_at_head(arguments: Sequence[str]) -> bool:
    """Answer ``migrate`` or ``migrate status`` if the database is at head and all is well.

    Returns:
        Whether it did. If not, nothing was printed or changed, and the command itself is to answer: it starts
        an embedded server, draws a table on a terminal, explains an error.
    """
    if sys.stdout.isatty() and "status" in arguments:
        return False
    try:
        options = replace(find_options(), is_announced=True)
        if options.database.embedded is not None:
            return False
        with opened(options) as at:
            found = read_status(at, read_manifest())
            database = str(at.database)
    except RagSchemaError:
        return False
    if found.state != "OK":
        return False
    print(f"Database: {database}", file=sys.stderr)
    if "status" in arguments:
        print("\n".join("\t".join(row).rstrip("\t") for row in status_rows(found)))
    else:
        print(f"Nothing to do: the database is at {found.current}.")
    return True


def _revision_rows(label: str, revisions: Sequence[Revision]) -> list[tuple[str, str, str]]:
    """Return a row for each revision; of many, one for those that follow each other with the same deploy label."""
    if len(revisions) <= _LISTED:
        return [(label, each.revision, f"{each.deploy}: {each.summary}") for each in revisions]
    runs = [
        (deploy, [each.revision for each in run])
        for deploy, run in groupby(revisions, lambda each: each.deploy)
    ]
    return [(label, describe_ids(ids), deploy) for deploy, ids in runs]


def status_rows(found: Status) -> list[tuple[str, str, str]]:
    """Return what ``rag migrate status`` shows, a row each."""
    rows: list[tuple[str, str, str]] = [("state", found.state, "")]
    rows += [("current", found.current or "none", ""), ("head", found.head, "")]
    rows += _revision_rows("pending", found.pending) + _revision_rows("held back", found.owed)
    rows += [
        ("elsewhere", each.schema, f"is at {each.revision}: name it with --schema")
        for each in found.elsewhere
    ]
    rows += [
        ("importable", str(each), f"run `rag migrate`, then `{each.command}`") for each in found.importable
    ]
    rows += [("written by", f"ragschema {found.written_by}", "")] if found.written_by else []
    if found.soundness is not None and not found.soundness.is_sound:
        rows += [("broken", fault, "") for fault in found.soundness.faults()]
        rows.append(("broken", "to mend it", found.soundness.remedy()))
    rows += [("invalid index", name, "run `rag migrate repair`") for name in found.invalid_indexes]
    rows += [("edited", revision, "its file is not what was applied") for revision in found.edited]
    if found.last_failure is not None:
        failure = found.last_failure
        rows.append(("last failure", failure.revision, (failure.error or "").partition("\n")[0]))
    rows += [("backup", found.backup, "")] if found.backup else []
    return rows
