"""JSON texts, as PostgreSQL stores them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from ragschema.errors import RagSchemaError
from ragschema.words import counted

Default: TypeAlias = Callable[[Any], Any]
"""What makes JSON of a value that is none, such as ``str`` of a UUID, a datetime or a Decimal."""

_DEPTH = 100
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
_WORD = re.compile(r"\w+")
_LEAVES = frozenset({str, int, float, bool, type(None)})


def write_object(value: object, what: str, error: type[RagSchemaError], most_bytes: int) -> str:
    """Return a dict as a JSON object: what no key, number or text of changes on its way to the database and back.

    Args:
        value: The dict.
        what: Names it in errors.
        error: Raised where it cannot be stored.
        most_bytes: How long it may be, in bytes of UTF-8.

    Raises:
        error: It is no dict, or too long or deep; or a key is no text, or a value not JSON.
    """
    if not isinstance(value, Mapping):
        raise error(f"{what} is {type(value).__name__}, not a dict.", "Pass a dict of JSON values.")
    value = dict(value)
    _check_keys(value, what, error)
    written = write_json(value, what, error, remedy="Use plain, finite values.")
    if (length := len(written.encode())) > most_bytes:
        raise error(
            f"{what} has {length:,} bytes as JSON; {most_bytes:,} are allowed.",
            "Keep what searches filter by and citations show, and the rest elsewhere.",
        )
    return written


def _check_keys(value: object, what: str, error: type[RagSchemaError]) -> None:
    stack = [(value, "$", 1)]
    while stack:
        each, path, depth = stack.pop()
        if isinstance(each, dict):
            for key, inner in each.items():
                if not isinstance(key, str):
                    raise error(
                        f"{what} has the key {key!r} at {path}, which is {type(key).__name__}.",
                        "Name it by a text, as JSON does.",
                    )
                if type(inner) not in _LEAVES:
                    stack.append((inner, path + _step(key), depth + 1))
        elif isinstance(each, list | tuple):
            stack += [
                (inner, f"{path}[{place}]", depth + 1)
                for place, inner in enumerate(each)
                if type(inner) not in _LEAVES
            ]
        if depth > _DEPTH:
            raise error(
                f"{what} is nested more than {counted(_DEPTH, 'level')} deep.",
                "Flatten it, or end its cycle.",
            )


def write_json(
    value: object, what: str, error: type[RagSchemaError], default: Default | None = None, *, remedy: str
) -> str:
    """Return a value as JSON.

    Args:
        value: The value.
        what: Names it in errors.
        error: Raised where it cannot be stored.
        default: Called with each value inside that is not JSON, for one that is.
        remedy: What to do about a value that is not JSON.

    Raises:
        error: It cannot be JSON, two of its keys are alike in JSON, or PostgreSQL does not store it.
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
        raise error(f"{what} cannot be JSON: {exc}.", remedy) from exc
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
