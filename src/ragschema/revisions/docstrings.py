"""Docstrings of revisions: title, why, and the fields Locks, Data, Deploy and Downgrade."""

from __future__ import annotations

import re
from typing import Literal

Deploy = Literal["expand", "contract"]

_FIELDS = ("Locks", "Data", "Deploy", "Downgrade")
_FIELD = re.compile(r"(?:^[ \t]*|(?<=\. ))(Why|Locks|Data|Deploy|Downgrade):", re.M)
_DEPLOY = re.compile(r"(expand|contract)\b")


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


def read_deletion(docstring: str) -> str | None:
    """Return what a revision declares to destroy: its ``Data:``, where that starts with "deletes"."""
    data = split_docstring(docstring)["Data"]
    return data if data.lower().startswith("deletes ") else None
