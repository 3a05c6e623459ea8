"""Values that callers pass, checked where they are given: several where several are meant, texts that can be stored."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Set
from datetime import UTC, datetime
from typing import Any, TypeVar

from ragschema.errors import RagSchemaError

T = TypeVar("T")
_LEAST_REAL = 1.5e-45


def several(
    name: str,
    values: Iterable[T],
    error: type[RagSchemaError],
    *,
    each: type[Any] | None = None,
    is_ordered: bool = False,
) -> list[T]:
    """Return the values of an argument that takes several.

    Args:
        name: The argument.
        values: What was given.
        error: Raised where that is one value, or not values at all.
        each: The type that each must have; a string must be one that PostgreSQL stores.
        is_ordered: Whether their order means something, so that a set is none.
    """
    refuse_one(name, values, error, is_ordered=is_ordered)
    listed = list(values)
    if each is None:
        return listed
    for place, value in enumerate(listed):
        problem = find_problem(value) if each is str else None
        if not isinstance(value, each):
            problem = f"is {type(value).__name__}, not {each.__name__}"
        if problem:
            raise error(f"{name}[{place}] {problem}.", f"Pass a list of {each.__name__} values.")
    return listed


def refuse_one(name: str, values: object, error: type[RagSchemaError], *, is_ordered: bool = False) -> None:
    """Refuse one value where several are meant, without reading them: for what is read as it is needed."""
    if isinstance(values, str | bytes | bytearray) or not isinstance(values, Iterable):
        raise error(f"{name} is one {type(values).__name__}, not several.", f"Pass a list: {name}=[...].")
    if is_ordered and isinstance(values, Set | Mapping):
        raise error(
            f"{name} is a {type(values).__name__}, and the order of its values counts.",
            "Pass a list or a tuple.",
        )


def check_choice(name: str, value: object, choices: tuple[str, ...], error: type[RagSchemaError]) -> None:
    """Refuse a value that is none of the choices."""
    if not isinstance(value, str) or value not in choices:
        raise error(f"{name} is {value!r}.", f"Pass one of {', '.join(map(repr, choices))}.")


def check_text(name: str, value: object, error: type[RagSchemaError]) -> None:
    """Refuse what is no text, or one that PostgreSQL cannot store.

    Raises:
        error: The message says which argument it is, and what is wrong with it.
    """
    if problem := find_problem(value):
        raise error(f"{name} {problem}.", remedy_of(value))


def remedy_of(value: object) -> str:
    """Return what to do about a value that `find_problem` has found one with."""
    if isinstance(value, str):
        return "PostgreSQL stores any Unicode text but U+0000."
    return "Pass a str."


def check_whole(
    name: str, value: object, error: type[RagSchemaError], *, lowest: int = -(2**63), most: int = 2**63 - 1
) -> int:
    """Return a whole number, of whatever library's type.

    Raises:
        error: It is none, such as a float, a bool or a text; or it is out of the range.
    """
    try:
        number = operator.index(value)  # type: ignore[arg-type]  # TypeError
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or not lowest <= number <= most:
        bound = f", {lowest} or more" if lowest > -(2**63) else ""
        raise error(f"{name} is {value!r}.", f"Pass a whole number{bound}.")
    return number


def as_real(number: float) -> float:
    """Return a number that a column of ``real`` takes: one that is too small for it, which the server refuses, as 0."""
    return 0.0 if abs(number) < _LEAST_REAL else number


def find_problem_of_time(value: object) -> str | None:
    """Say why a value is no moment that PostgreSQL stores and every driver reads; None where it is one."""
    if not isinstance(value, datetime):
        return f"is {type(value).__name__}, not datetime"
    if value.utcoffset() is None:
        return "has no time zone"
    try:
        value.astimezone(UTC)
    except OverflowError:
        return "is before the year 1 or after 9999 in UTC"
    return None


def find_problem(value: object) -> str | None:
    """Say why a value cannot be stored as text; None where it can."""
    if not isinstance(value, str):
        return f"is {type(value).__name__}, not str"
    if "\0" in value:
        return f"holds a NUL byte at position {value.index(chr(0))}"
    try:
        value.encode()
    except UnicodeEncodeError as exc:
        return f"holds half a surrogate pair at position {exc.start}"
    return None
