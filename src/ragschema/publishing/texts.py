"""Texts, checked before the round trip."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from ragschema.publishing.errors import ContentError
from ragschema.values import check_text, find_problem, several

ARTICLE_ID_BYTES = 2_600
"""The longest article_id, in bytes of UTF-8: an index entry holds 2,700, whatever compression would make of more."""

Refuse: TypeAlias = Callable[[str], str | None]
"""Says why a text is not to be embedded, such as ``is longer than the model reads``; None where it is."""


def check_texts(article_id: str, contents: Sequence[str], refuse: Refuse | None = None) -> None:
    """Refuse texts that cannot be stored, and those that the caller's rule refuses.

    Raises:
        ContentError: The message names the chunk by its place, from 0.
    """
    several(f"The argument contents of article {article_id!r}", contents, ContentError, is_ordered=True)
    for place, content in enumerate(contents):
        problem = find_problem(content)
        remedy = "Clean the text before chunking; PostgreSQL stores any Unicode text but U+0000."
        if problem is None and refuse is not None:
            problem, remedy = refuse(content), "Leave the chunk out, or cut the text in another way."
        if problem:
            raise ContentError(f"The text of chunk {place} of article {article_id!r} {problem}.", remedy)


def check_names(
    article_id: str,
    source_hash: str,
    chunker_version: str,
    embedder_version: str | None,
    title: str | None,
    url: str | None,
    text_config: str | None,
) -> None:
    """Refuse an article id, title or the like that cannot be stored.

    Raises:
        ContentError: The message says which it is.
    """
    check_article_id(article_id)
    values = {
        "source_hash": source_hash,
        "chunker_version": chunker_version,
        "embedder_version": embedder_version,
        "title": title,
        "url": url,
        "text_config": text_config,
    }
    for name, value in values.items():
        if value is not None or name not in ("embedder_version", "title", "url", "text_config"):
            check_text(f"The {name} of article {article_id!r}", value, ContentError)


def check_article_id(article_id: str) -> None:
    """Refuse an article id that no index can hold.

    Raises:
        ContentError: It is no text, or too long.
    """
    check_text("article_id", article_id, ContentError)
    if (length := len(article_id.encode())) > ARTICLE_ID_BYTES:
        raise ContentError(
            f"article_id {article_id[:40]!r}... has {length:,} bytes; its index takes {ARTICLE_ID_BYTES:,}.",
            "Use a shorter key, such as a hash of this one.",
        )
