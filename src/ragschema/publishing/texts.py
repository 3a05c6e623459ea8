"""Texts, checked before the round trip."""

from __future__ import annotations

from collections.abc import Sequence

from ragschema.publishing.errors import ContentError
from ragschema.values import find_problem, several


def check_texts(article_id: str, contents: Sequence[str]) -> None:
    """Refuse texts that cannot be stored.

    Raises:
        ContentError: The message names the chunk by its place, from 0.
    """
    several(f"The argument contents of article {article_id!r}", contents, ContentError, is_ordered=True)
    if not contents:
        raise ContentError(
            f"The new version of article {article_id!r} has no chunks.",
            "Use retire_document to take a document out of search.",
        )
    for place, content in enumerate(contents):
        problem = find_problem(content)
        if problem:
            raise ContentError(
                f"The text of chunk {place} of article {article_id!r} {problem}.",
                "Clean the text before chunking; PostgreSQL stores any Unicode text but U+0000.",
            )


def check_names(article_id: str, **values: str | None) -> None:
    """Refuse an article id, title or the like that cannot be stored.

    Raises:
        ContentError: The message says which it is.
    """
    for name, value in {"article_id": article_id, **values}.items():
        problem = None if value is None else find_problem(value)
        if problem:
            raise ContentError(
                f"The {name} of article {article_id!r} {problem}.",
                "PostgreSQL stores any Unicode text but U+0000.",
            )
