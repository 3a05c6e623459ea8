"""Arguments of conversations, checked before anything is sent."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from ragschema.chat.errors import ChatError
from ragschema.values import check_text

INT4_MAX = 2**31 - 1
KEY_BYTES = 2_000
"""The longest user_id, in bytes of UTF-8: what the index of sessions by their user takes."""


def check_id(name: str, value: object) -> None:
    """Refuse what is no UUID.

    Raises:
        ChatError: It is none.
    """
    if not isinstance(value, UUID):
        raise ChatError(
            f"{name} is {type(value).__name__}, not UUID.", "Pass the id of a result, or UUID(text)."
        )


def check_number(name: str, value: object, lowest: int = 0, highest: int = INT4_MAX) -> None:
    """Refuse what is no whole number of a range; True is none.

    Raises:
        ChatError: It is none.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
        raise ChatError(f"{name} is {value!r:.60}.", f"Pass a whole number from {lowest:,} to {highest:,}.")


def check_texts(**values: object) -> None:
    """Refuse texts that cannot be stored; None is no text, and passes.

    Raises:
        ChatError: The message names the argument.
    """
    for name, value in values.items():
        if value is not None:
            check_text(name, value, ChatError)


def check_user(user_id: str | None) -> None:
    """Refuse the key of a user that no index can hold.

    Raises:
        ChatError: It is no text, or too long.
    """
    check_texts(user_id=user_id)
    if user_id is not None and len(user_id.encode()) > KEY_BYTES:
        raise ChatError(
            f"user_id has {len(user_id.encode()):,} bytes; its index takes {KEY_BYTES:,}.",
            "Pass a shorter key, such as a hash of this one.",
        )


def check_time(name: str, value: object) -> None:
    """Refuse what is no time with a zone.

    Raises:
        ChatError: It is none.
    """
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise ChatError(f"{name} is {value!r:.60}.", "Pass a time with its zone, such as datetime.now(UTC).")
