"""Values of Neo4j's properties: as text of JSON, and as they stand in the CSV of neo4j-admin."""

from __future__ import annotations

import json
import math
import re
from decimal import Decimal
from typing import Any

from ragschema.errors import ImportRefused

INTEGERS = ("long", "int", "short", "byte")
FLOATS = ("double", "float")
TEXTS = ("string", "char", "point", "date", "localtime", "time", "localdatetime", "datetime", "duration")
_ENCODE = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False
).encode  # made once: it takes as long as its work
_POWER = re.compile(r"\de[-+]?\d")
TYPES = (*INTEGERS, *FLOATS, "boolean", *TEXTS)


def write_properties(properties: dict[str, Any]) -> str:
    """Return properties as JSON that PostgreSQL gives back with the types of its numbers: 1e22 as a decimal number.

    Raises:
        ValueError: A value is no JSON, or PostgreSQL does not store it.
    """
    written = _ENCODE(properties)
    if "\\u0000" in written and _has_nul(properties):
        raise ValueError("a text has a NUL character, which PostgreSQL does not store")
    if _POWER.search(written) and _has_power(properties):
        return _write(properties)
    return written


def _has_nul(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_has_nul(each) for pair in value.items() for each in pair)
    if isinstance(value, list):
        return any(map(_has_nul, value))
    return isinstance(value, str) and "\0" in value


def _has_power(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_has_power, value.values()))
    if isinstance(value, list):
        return any(map(_has_power, value))
    return isinstance(value, float) and "e" in repr(value)


def _write(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)}: {_write(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_write, value)) + "]"
    if isinstance(value, float):
        whole = format(Decimal(repr(value)), "f")
        return whole if "." in whole else f"{whole}.0"
    return json.dumps(value, ensure_ascii=False)


def parse(text: str, type_: str) -> Any:
    """Return a value of a column of CSV.

    Raises:
        ValueError: It is none of that type.
    """
    if type_ in INTEGERS:
        return int(text)
    if type_ in FLOATS:
        number = float(text)
        if not math.isfinite(number):
            raise ValueError(f"{text} is no number that JSON has")
        return number
    if type_ == "boolean":
        return text.strip().lower() == "true"
    return text


def type_of(value: Any) -> str:
    """Return the type of a value in CSV, with ``[]`` behind that of an array.

    Raises:
        ImportRefused: CSV has no such values.
    """
    if isinstance(value, list):
        types = {type_of(each) for each in value} or {"string"}
        if types <= {"long", "double"} and len(types) == 2:
            types = {"double"}
        if len(types) == 1 and not (type_ := types.pop()).endswith("[]"):
            return f"{type_}[]"
    elif isinstance(value, bool):
        return "boolean"
    elif isinstance(value, int):
        return "long"
    elif isinstance(value, float):
        return "double"
    elif isinstance(value, str):
        return "string"
    raise ImportRefused(
        f"CSV has no type for the value {json.dumps(value)[:80]}.",
        "Write JSON lines: `rag graph export FILE.jsonl`.",
    )


def cell(value: Any, delimiter: str) -> str:
    """Return a value as it stands in a column of CSV.

    Raises:
        ImportRefused: A text of an array has the delimiter of arrays.
    """
    if isinstance(value, list):
        parts = [cell(each, delimiter) for each in value]
        if any(delimiter in part for part in parts):
            raise ImportRefused(
                f"A text in an array has {delimiter!r}, by which CSV divides arrays: {', '.join(parts)[:80]}.",
                "Write JSON lines: `rag graph export FILE.jsonl`.",
            )
        return delimiter.join(parts)
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else json.dumps(value)
