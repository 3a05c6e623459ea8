"""JSON of payloads and progress."""

from __future__ import annotations

from ragschema import json_text
from ragschema.errors import RagSchemaError
from ragschema.jobs.records import JobError


def write_json(
    value: object,
    what: str,
    default: json_text.Default | None = None,
    *,
    error: type[RagSchemaError] = JobError,
) -> str:
    """Return a value as JSON, see `json_text.write_json`.

    Raises:
        error: It cannot be stored.
    """
    remedy = "Use plain, finite values, and no deep nesting; or pass default=."
    return json_text.write_json(value, what, error, default, remedy=remedy)
