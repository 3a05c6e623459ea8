"""The error of the graph."""

from __future__ import annotations

from sqlalchemy.exc import DontWrapMixin

from ragschema.errors import RagSchemaError


class GraphError(RagSchemaError, ValueError, DontWrapMixin):
    """What is asked of the graph cannot be done. Raised before anything is sent."""
