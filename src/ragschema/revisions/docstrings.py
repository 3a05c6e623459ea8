"""What a revision's docstring says: its title, why, and the fields Locks, Data, Deploy and Downgrade."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ragschema.errors import RagSchemaError

if TYPE_CHECKING:
    from alembic.script import Script

Deploy = Literal["expand", "contract"]

_FIELDS = ("Locks", "Data", "Deploy", "Downgrade")
_FIELD = re.compile(r"(?:^[ \t]*|(?<=\. ))(Why|Locks|Data|Deploy|Downgrade):", re.M)
_DEPLOY = re.compile(r"(expand|contract)\b")


@dataclass(frozen=True)
class RevisionText:
    """What a revision's docstring says, each part on one line.

    Attributes:
        summary: Its title.
        why: What a reader in three years needs.
        locks: The lock levels it takes, and for how long.
        data: Which rows it reads or writes.
        deploy: Expand, before the code that needs it, or contract, after the last code that used it.
        downgrade: What a downgrade loses.
    """

    summary: str
    why: str
    locks: str
    data: str
    deploy: Deploy
    downgrade: str


def read_docstring(script: Script) -> RevisionText:
    """Return what a revision says of itself.

    Raises:
        RagSchemaError: Its docstring lacks a part, or says neither expand nor contract.
    """
    return parse_docstring(script.module.__doc__ or "", revision=script.revision)


def parse_docstring(docstring: str, *, revision: str) -> RevisionText:
    """Return the parts of a revision's docstring; see `read_docstring`."""
    parts = split_docstring(docstring)
    deploy = read_deploy(parts["Deploy"])
    missing = [name for name, text in parts.items() if not text]
    if missing or deploy is None:
        raise RagSchemaError(
            f"The docstring of revision {revision} has no {missing[0] if missing else 'expand or contract'}.",
            "Run `rag migrate validate`, which says what it must have.",
        )
    return RevisionText(
        parts["title"], parts["Why"], parts["Locks"], parts["Data"], deploy, parts["Downgrade"]
    )


def split_docstring(docstring: str) -> dict[str, str]:
    """Return the parts of a docstring, empty where they are missing: title, Why, and the fields."""
    title, _, rest = docstring.strip().partition("\n")
    parts = dict.fromkeys(("title", "Why", *_FIELDS), "")
    parts["title"] = title.strip()
    why, *fields = _FIELD.split(rest)
    for name, text in [("Why", why), *zip(fields[::2], fields[1::2], strict=True)]:
        parts[name] = " ".join(f"{parts[name]} {text}".split())
    return parts


def read_deploy(text: str) -> Deploy | None:
    """Return the label that the text of ``Deploy:`` starts with, None where it has none."""
    match = _DEPLOY.match(text)
    if match is None:
        return None
    return "expand" if match[1] == "expand" else "contract"
