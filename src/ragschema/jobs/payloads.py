"""JSON of payloads and progress, as PostgreSQL stores it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from ragschema.errors import RagSchemaError
from ragschema.jobs.records import JobError

Default: TypeAlias = Callable[[Any], Any]
"""What makes JSON of a value that is none, such as ``str`` of a UUID, a datetime or a Decimal."""

_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
_WORD = re.compile(r"\w+")
_LEAVES = frozenset({str, int, float, bool, type(None)})


def write_json(
    value: object, what: str, default: Default | None = None, *, error: type[RagSchemaError] = JobError
) -> str:
    """Return a value as JSON.

    Args:
        value: The value.
        what: Names it in errors.
        default: Called with each value inside that is not JSON, for one that is.
        error: Raised where it cannot be stored.

    Raises:
        JobError: It cannot be JSON, two of its keys are alike in JSON, or PostgreSQL does not store it.
    """
    converted: dict[int, tuple[object, object]] = {}  # by identity, each kept, so that no other gets its id

    def convert(given: object) -> object:
        if default is None:
            raise TypeError(f"Object of type {type(given).__name__} is not JSON serializable")
        made = default(given)
        converted[id(given)] = given, made
        return made

    try:
        written = json.dumps(value, ensure_ascii=False, allow_nan=False, default=convert)
        written.encode()
    except (TypeError, ValueError, RecursionError) as exc:
        raise error(
            f"{what} cannot be JSON: {exc}.",
            "Use plain, finite values, and no deep nesting; or pass default=.",
        ) from exc
    if "\\u0000" in written and _NUL.search(written):
        raise error(
            f"{what} has a NUL character, which PostgreSQL does not store.", "Remove it from the text."
        )
    if collision := _find_collision(value, {key: made for key, (_, made) in converted.items()}):
        path, first, second = collision
        raise error(
            f"{what} has the keys {first!r} and {second!r} at {path}, which are one in JSON.",
            "Name them apart: a key of JSON is a text.",
        )
    return written


def _find_collision(value: object, converted: Mapping[int, object]) -> tuple[str, object, object] | None:
    """Return where two keys of one dict are written alike, and which; of what has been written, so without cycles."""
    stack = [(value, "$")]
    while stack:
        each, path = stack.pop()
        if isinstance(each, dict):
            if pair := _find_pair(each):
                return path, *pair
            stack += [(inner, path + _step(key)) for key, inner in each.items() if type(inner) not in _LEAVES]
        elif isinstance(each, list | tuple):
            stack += [
                (inner, f"{path}[{place}]") for place, inner in enumerate(each) if type(inner) not in _LEAVES
            ]
        elif id(each) in converted:
            stack.append((converted[id(each)], path))
    return None


def _find_pair(given: dict[object, object]) -> tuple[object, object] | None:
    if all(type(key) is str for key in given):
        return None
    seen: dict[str, object] = {}
    for key in given:
        name = _name(key)
        if name in seen:
            return seen[name], key
        seen[name] = key
    return None


def _name(key: object) -> str:
    """Return a key as JSON writes it: ``true``, ``null``, ``1``."""
    return str.__str__(key) if isinstance(key, str) else json.dumps(key)


def _step(key: object) -> str:
    name = _name(key)
    return f".{name}" if _WORD.fullmatch(name) else f"[{json.dumps(name, ensure_ascii=False)}]"
