"""Texts, checked before the round trip."""

from __future__ import annotations

from collections.abc import Sequence

from ragschema.publishing.errors import ContentError


def check_texts(article_id: str, contents: Sequence[str]) -> None:
    """Refuse texts that cannot be stored.

    Raises:
        ContentError: The message names the chunk by its place, from 0.
    """
    if isinstance(contents, str):
        raise ContentError(
            f"The contents of article {article_id!r} are one string, not a sequence of chunks.",
            "Pass a list: one string for each chunk.",
        )
    if not contents:
        raise ContentError(
            f"The new version of article {article_id!r} has no chunks.",
            "Use retire_document to take a document out of search.",
        )
    for place, content in enumerate(contents):
        problem = _find_problem(content)
        if problem:
            raise ContentError(
                f"The text of chunk {place} of article {article_id!r} {problem}.",
                "Clean the text before chunking; PostgreSQL stores any Unicode text but U+0000.",
            )


def _find_problem(content: object) -> str | None:
    if not isinstance(content, str):
        return f"is {type(content).__name__}, not str"
    if "\0" in content:
        return f"holds a NUL byte at position {content.index(chr(0))}"
    try:
        content.encode()
    except UnicodeEncodeError as exc:
        return f"holds half a surrogate pair at position {exc.start}"
    return None
