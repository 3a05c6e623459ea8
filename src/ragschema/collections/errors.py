"""The error of collections."""

from __future__ import annotations

from ragschema.errors import RagSchemaError


class CollectionError(RagSchemaError, ValueError):
    """What is asked of a collection cannot be done; nothing was written."""
