"""Words of messages: a number with its noun."""

from __future__ import annotations


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return ``1 row``, ``1,200 rows``; an irregular plural is given."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
