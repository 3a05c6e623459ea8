"""Texts, checked before the round trip."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from ragschema.publishing.errors import ContentError
from ragschema.publishing.sources import (
    ChunkText,
    Location,
    Source,
    check_locations,
    check_source,
    write_metadata,
)
from ragschema.publishing.version_plan import VersionPlan
from ragschema.values import check_text, find_problem, remedy_of, several

ARTICLE_ID_BYTES = 2_600
"""The longest article_id, in bytes of UTF-8: an index entry holds 2,700, whatever compression would make of more."""

Refuse: TypeAlias = Callable[[str], str | None]
"""Says why a text is not to be embedded, such as ``is longer than the model reads``; None where it is."""


@dataclass(frozen=True)
class CheckedContents:
    """Texts that can be stored.

    Attributes:
        texts: In order.
        locations: What is said of each beside its text; None where that is nothing.
    """

    texts: Sequence[str] = ()
    locations: Sequence[Location] | None = None


def given_contents(article_id: str, contents: Iterable[str | ChunkText]) -> list[str | ChunkText]:
    """Return the contents of a version, each read once.

    Raises:
        ContentError: They are one text, or have no order.
    """
    return several(
        f"The argument contents of article {article_id!r}", contents, ContentError, is_ordered=True
    )


def check_contents(
    article_id: str, contents: Sequence[str | ChunkText], refuse: Refuse | None = None
) -> CheckedContents:
    """Return texts, refusing those that cannot be stored, and those that the caller's rule refuses.

    Raises:
        ContentError: The message names the chunk by its place, from 0.
    """
    given = given_contents(article_id, contents)
    texts: list[str] = [each.content if isinstance(each, ChunkText) else each for each in given]
    for place, content in enumerate(texts):
        problem = find_problem(content)
        remedy = remedy_of(content)
        if isinstance(content, str):
            remedy = f"Clean the text before chunking; {remedy}"
        if problem is None and refuse is not None:
            problem, remedy = _ask(refuse, content), "Leave the chunk out, or cut the text in another way."
        if problem:
            raise ContentError(f"The text of chunk {place} of article {article_id!r} {problem}.", remedy)
    return CheckedContents(texts, check_locations(article_id, given))


def _ask(refuse: Refuse, content: str) -> str | None:
    """Return why a caller's rule refuses a text; None where it does not: it may say so by any value that is false.

    Raises:
        ContentError: It gives no reason: one that returns True may mean it either way.
    """
    reason: object = refuse(content)
    if not reason:
        return None
    if isinstance(reason, str):
        return reason
    if inspect.iscoroutine(reason):
        reason.close()
    raise ContentError(
        f"The rule refuse returned {type(reason).__name__}, neither a reason nor None.",
        "Let it say why a text is refused, such as 'is blank', and None where it is not.",
    )


def check_names(plan: VersionPlan) -> None:
    """Refuse an article id, title or the like of a version that cannot be stored.

    Raises:
        ContentError: The message says which it is.
    """
    check_article_id(plan.article_id)
    for name in ("source_hash", "chunker_version", "embedder_version", "title", "url", "text_config"):
        value = getattr(plan, name)
        if value is not None or name in ("source_hash", "chunker_version"):
            check_text(f"The {name} of article {plan.article_id!r}", value, ContentError)


def say(plan: VersionPlan, metadata: Mapping[str, Any] | None, source: Source | None) -> VersionPlan:
    """Return a plan with what is said of metadata and source.

    Raises:
        ContentError: It cannot be stored.
    """
    if metadata is None and source is None:
        return plan
    return replace(
        plan,
        metadata=None if metadata is None else write_metadata(plan.article_id, metadata),
        source=None if source is None else check_source(plan.article_id, source),
    )


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
