"""Our own rules about rows: which revisions destroy them, and say so."""

from __future__ import annotations

from collections.abc import Iterator

from ragschema.authoring.lint.findings import Advice, Finding
from ragschema.authoring.lint.subject import Revisions, Subject
from ragschema.revisions.docstrings import read_deletion


def undeclared_deletion(subject: Subject, revisions: Revisions) -> Iterator[Finding]:
    """A revision that deletes rows says which."""
    if read_deletion(subject.file.docstring):
        return
    for statement, loss in subject.losses("upgrade"):
        if loss.kind in ("rows", "all rows"):
            yield subject.finding(
                "undeclared-deletion",
                statement,
                Advice(
                    f"Destroys rows of {loss.name}, so the run is refused without --allow-data-loss, and nobody who"
                    " reads the refusal learns why.",
                    "Say in the docstring which rows go, and why nobody misses them:",
                    f"Data: deletes the rows of {loss.name} that ...",
                ),
            )


def destructive_autocommit(subject: Subject, revisions: Revisions) -> Iterator[Finding]:
    """What destroys rows runs in the transaction of its revision."""
    for direction, _ in subject.directions():
        for statement, loss in subject.losses(direction):
            if statement.is_autocommit and not statement.is_helper and loss.kind != "call":
                what = "may destroy rows" if loss.kind == "unknown" else "destroys rows or values"
                yield subject.finding(
                    "destructive-autocommit",
                    statement,
                    Advice(
                        f"{what.capitalize()} where nothing can be rolled back, so the run is refused without"
                        " --allow-data-loss.",
                        "Take it out of the autocommit block, into a revision of its own.",
                    ),
                )
                break
