"""The error of collections."""

from __future__ import annotations

from uuid import UUID

from ragschema.errors import RagSchemaError


class CollectionError(RagSchemaError, ValueError):
    """What is asked of a collection cannot be done; nothing was written."""


def check_id(collection_id: object) -> None:
    """Refuse what is no id of a collection, such as its name.

    Raises:
        CollectionError: It is no UUID.
    """
    if not isinstance(collection_id, UUID):
        raise CollectionError(
            f"The id of a collection is a {type(collection_id).__name__}, not a UUID.",
            "Pass the id of what find_collection(session, name) returns.",
        )
