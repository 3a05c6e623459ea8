"""Conditions on the collections of a document: in text that is returned, only what one of them holds."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, SQLColumnExpression, any_, literal_column, select
from sqlalchemy.orm import aliased

from ragschema.models import CollectionDocument, DocumentVersion
from ragschema.queries.arguments import COLLECTION_IDS, QueryError
from ragschema.values import several

_Written = aliased(DocumentVersion, name="written")


def collection_values(collection_ids: Collection[UUID] | None) -> dict[str, Any]:
    """Return the value of the parameter of the conditions, where it is given; an empty one lets nothing through.

    Raises:
        QueryError: It is one value, or holds what is no UUID.
    """
    if collection_ids is None:
        return {}
    return {COLLECTION_IDS.key: several("collection_ids", collection_ids, QueryError, each=UUID)}


def is_collected(document_id: SQLColumnExpression[UUID]) -> ColumnElement[bool]:
    """Return the condition that a document is in one of the collections."""
    return (
        select(literal_column("1"))
        .where(
            CollectionDocument.document_id == document_id,
            CollectionDocument.collection_id == any_(COLLECTION_IDS),
        )
        .exists()
    )


def is_version_collected(version_id: SQLColumnExpression[UUID]) -> ColumnElement[bool]:
    """Return the condition that a version's document is in one of the collections."""
    return (
        select(literal_column("1"))
        .select_from(_Written)
        .join(CollectionDocument, CollectionDocument.document_id == _Written.document_id)
        .where(_Written.id == version_id, CollectionDocument.collection_id == any_(COLLECTION_IDS))
        .exists()
    )
