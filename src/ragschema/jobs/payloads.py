"""JSON of payloads and progress."""

from __future__ import annotations

from collections.abc import Mapping

from ragschema import json_text
from ragschema.jobs.records import JobError


def write_json(value: object, what: str, default: json_text.Default | None = None) -> str:
    """Return a value as JSON, see `json_text.write_json`; a mapping of any kind is an object.

    Raises:
        JobError: It cannot be stored.
    """
    remedy = "Use plain, finite values, and no deep nesting; or pass default=."
    if isinstance(value, Mapping) and not isinstance(value, dict):
        value = dict(value)
    return json_text.write_json(value, what, JobError, default, remedy=remedy)
