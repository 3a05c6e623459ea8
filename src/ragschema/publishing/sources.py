"""Source of a version and places of its chunks in it, as a caller gives them, and as they are sent."""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ragschema.json_text import write_object
from ragschema.publishing.errors import ContentError
from ragschema.values import check_text

METADATA_BYTES = 262_144
"""The longest metadata of a version, in bytes of JSON; as long may be the details of a chunk."""

_MOST_OFFSET = 2_147_483_647
_MOST_BYTES = 9_223_372_036_854_775_807
_LANGUAGE = re.compile(r"[A-Za-z]{1,8}(-[A-Za-z0-9]{1,8})*")


@dataclass(frozen=True)
class Source:
    """The file that a version's text was read from.

    Attributes:
        file_name: What it was called, a path for one.
        mime_type: Such as ``application/pdf``.
        byte_size: How many bytes it had.
        content_hash: Hash of its bytes.
        language: Tag of the language it is written in, such as ``nl`` or ``pt-BR``.
    """

    file_name: str | None = None
    mime_type: str | None = None
    byte_size: int | None = None
    content_hash: str | None = None
    language: str | None = None


@dataclass(frozen=True)
class ChunkText:
    """A chunk's text, and where it stands.

    Attributes:
        content: The text.
        start: Where it begins in the text that was cut, in characters from 0.
        end: Where it ends: before the character of this offset. With ``start`` or not at all.
        details: What else there is to its place, such as ``{"page": 3, "headings": ["Terms", "Refunds"]}``.
        token_count: How many tokens the model counts in it. It is kept with the text: a row that is reused keeps the
            count that it has, and gets this one where it has none when a version is written.
    """

    content: str
    start: int | None = None
    end: int | None = None
    details: Mapping[str, Any] | None = None
    token_count: int | None = None


class Location(NamedTuple):
    """What is said of a chunk beside its text; ``details`` as JSON."""

    start: int | None = None
    end: int | None = None
    details: str | None = None
    token_count: int | None = None


NOWHERE = Location()


def write_metadata(article_id: str, metadata: object) -> str:
    """Return metadata as JSON.

    Raises:
        ContentError: It cannot be stored.
    """
    return write_object(metadata, f"The metadata of article {article_id!r}", ContentError, METADATA_BYTES)


def check_source(article_id: str, source: object) -> Source:
    """Return a source that can be stored.

    Raises:
        ContentError: It is none, or one of its values cannot be stored.
    """
    if not isinstance(source, Source):
        raise ContentError(
            f"The source of article {article_id!r} is {type(source).__name__}, not Source.",
            "Pass ragschema.Source(file_name=...).",
        )
    for name in ("file_name", "mime_type", "content_hash", "language"):
        if (value := getattr(source, name)) is not None:
            check_text(f"The {name} of article {article_id!r}", value, ContentError)
    if source.language is not None and not _LANGUAGE.fullmatch(source.language):
        raise ContentError(
            f"The language of article {article_id!r} is {source.language!r}, which is no language tag.",
            "Pass a tag such as nl or pt-BR.",
        )
    size = _whole(f"The byte_size of article {article_id!r}", source.byte_size, _MOST_BYTES)
    return Source(source.file_name, source.mime_type, size, source.content_hash, source.language)


def check_locations(article_id: str, contents: Sequence[str | ChunkText]) -> list[Location] | None:
    """Return what is said of each chunk beside its text; None where that is nothing.

    Raises:
        ContentError: It cannot be stored; the message names the chunk by its place.
    """
    if not any(isinstance(content, ChunkText) for content in contents):
        return None
    locations = [
        _location(f"of chunk {place} of article {article_id!r}", content)
        if isinstance(content, ChunkText)
        else NOWHERE
        for place, content in enumerate(contents)
    ]
    return None if all(location == NOWHERE for location in locations) else locations


def _location(chunk: str, given: ChunkText) -> Location:
    start = _whole(f"The start {chunk}", given.start, _MOST_OFFSET)
    end = _whole(f"The end {chunk}", given.end, _MOST_OFFSET)
    if (start is None) != (end is None):
        name = "end" if end is None else "start"
        raise ContentError(f"The {name} {chunk} is missing.", "Pass both start and end, or neither.")
    if start is not None and end is not None and end < start:
        raise ContentError(f"The end {chunk} is {end}, and its start {start}.", "Pass start <= end.")
    details = None
    if given.details is not None:
        details = write_object(given.details, f"The argument details {chunk}", ContentError, METADATA_BYTES)
    return Location(start, end, details, _whole(f"The token_count {chunk}", given.token_count, _MOST_OFFSET))


def _whole(what: str, value: object, most: int) -> int | None:
    """Return a whole number from 0 to the most there may be, of whatever library's type."""
    if value is None:
        return None
    try:
        number = operator.index(value)  # type: ignore[arg-type]  # TypeError
    except TypeError:
        number = -1
    if isinstance(value, bool) or not 0 <= number <= most:
        raise ContentError(f"{what} is {value!r}.", f"Pass a whole number from 0 to {most:,}.")
    return number
