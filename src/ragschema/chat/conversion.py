"""Conversion of other libraries' messages: what their converters share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ragschema.chat.errors import ChatError


def dumped(message: object, dump: Callable[[Any], Any], library: str) -> dict[str, Any]:
    """Return a message of a library as a dict: itself, or what the library's own object makes of itself.

    Raises:
        ChatError: It is none, or cannot be JSON.
    """
    if isinstance(message, Mapping):
        return dict(message)
    if not hasattr(message, "model_dump"):
        raise ChatError(
            f"A {type(message).__name__} is no message of {library}.", "Pass its message, or the dict of one."
        )
    try:
        return dict(dump(message))
    except (TypeError, ValueError) as exc:
        raise ChatError(
            f"The message of {library} holds what is no JSON: {exc}.", "Take it out of the message first."
        ) from exc


def text_of(parts: Iterable[object], separator: str) -> str:
    """Return the text of a message's parts."""
    texts = (
        part if isinstance(part, str) else part.get("text") if isinstance(part, Mapping) else None
        for part in parts
    )
    return separator.join(text for text in texts if isinstance(text, str))


def first_text(said: Mapping[str, Any], *names: str) -> str | None:
    """Return the first text that a mapping has by one of some names."""
    return next((said[name] for name in names if isinstance(said.get(name), str)), None)


def count_in(said: Mapping[str, Any], name: str) -> int | None:
    """Return a number of tokens, where a mapping has one by the name."""
    value = said.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def kept(metadata: Mapping[str, Any], library: str) -> dict[str, Any] | None:
    """Return what was kept of a library's message; None where it was not that library's."""
    found = metadata.get(library)
    return dict(found) if isinstance(found, Mapping) else None
