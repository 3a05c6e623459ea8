"""Checks of what a migration needs: what one says, and those of the revision that the database is at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from ragschema.database.connections import Opened
from ragschema.errors import RagSchemaError
from ragschema.revisions.manifest import ahead, describe_ids, read_manifest
from ragschema.state.drift import find_drift
from ragschema.state.elsewhere import describe
from ragschema.state.owed import AFTER_THE_CODE
from ragschema.state.status import Status, read_status, unmanaged
from ragschema.words import counted

Verdict = Literal["ok", "warning", "refused"]


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: What.
        verdict: ``ok``, ``warning`` (a migration can run), or ``refused`` (it cannot).
        finding: What was found, in a few words.
        remedy: What to do about it; empty where all is well.
    """

    name: str
    verdict: Verdict
    finding: str
    remedy: str = ""


def asked(name: str, found: str, question: Callable[[], object]) -> Check:
    """Return the check whose question raises an error where it is refused."""
    try:
        question()
    except RagSchemaError as exc:
        return refused(name, exc)
    return Check(name, "ok", found)


def refused(name: str, exc: RagSchemaError) -> Check:
    return Check(name, "refused", exc.message, exc.remedy)


def check_standing(at: Opened) -> Iterator[Check]:
    """Look at the revision, the functions, drift and indexes."""
    try:
        status = read_status(at, read_manifest())
    except RagSchemaError as exc:
        yield Check("revision", "refused", exc.message, exc.remedy)
        return
    yield _check_state(status)
    if (soundness := status.soundness) is not None and soundness.is_sound:
        yield Check("functions", "ok", f"all work on schema {soundness.schema}")
    if status.current is not None and (status.pending or status.current == status.head):
        drift = find_drift(at.connection, at.schemas.target, status.current)
        yield Check(
            "drift",
            "ok" if drift.is_clean else "warning",
            "none" if drift.is_clean else drift.summary,
            "" if drift.is_clean else "Run `rag migrate verify` to see them.",
        )
    yield Check(
        "indexes",
        "warning" if status.invalid_indexes else "ok",
        f"invalid: {', '.join(status.invalid_indexes)}" if status.invalid_indexes else "none invalid",
        "Run `rag migrate repair`." if status.invalid_indexes else "",
    )


def _check_state(status: Status) -> Check:
    if status.state == "OK":
        return Check("revision", "ok", f"at head {status.head}")
    if status.state == "BROKEN" and status.soundness is not None:
        return Check("functions", "refused", "; ".join(status.soundness.faults()), status.soundness.remedy())
    if status.state == "AHEAD":
        return refused("revision", ahead(str(status.current)))
    if status.state == "UNMANAGED":
        return refused("revision", unmanaged())
    if status.elsewhere:
        return Check("revision", "refused", "none of our tables here", describe(status.elsewhere))
    if not status.pending:
        owed = describe_ids([each.revision for each in status.owed])
        return Check("revision", "warning", f"at head {status.head}; held back: {owed}", AFTER_THE_CODE)
    pending = counted(len(status.pending), "revision")
    return Check("revision", "warning", f"{pending} pending", "Run `rag migrate`.")
