"""Documents of a collection, added and removed by their articles: a set at a time, in one statement."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from uuid import UUID

import sqlalchemy as sa

from ragschema.collections.errors import CollectionError, check_id
from ragschema.publishing.memberships import join_collections, read_text_configs, refuse_unknown
from ragschema.publishing.transactions import connection_of
from ragschema.schema.base import Executor
from ragschema.values import several


@dataclass(frozen=True)
class AddedDocuments:
    """What `add_documents` did.

    Attributes:
        added: Documents that are in the collection now and were not.
        present: Documents that were in it already.
        unknown: The articles of which there is no document, in order.
    """

    added: int
    present: int
    unknown: tuple[str, ...]


@dataclass(frozen=True)
class RemovedDocuments:
    """What `remove_documents` did.

    Attributes:
        removed: Documents that are in the collection no more.
        absent: The articles of which no document was in it, in order.
    """

    removed: int
    absent: tuple[str, ...]


def add_documents(session: Executor, collection_id: UUID, article_ids: Collection[str]) -> AddedDocuments:
    """Add documents to a collection, in one statement; those that are in it stay as they are.

    Args:
        session: In whose transaction; the documents are locked against deletion until it ends.
        collection_id: The collection.
        article_ids: The documents. Those that are not there are left out, and the result names them.

    Raises:
        UnknownCollection: There is no such collection. Nothing was written.
        CollectionError: The collection is no id, or the articles are no strings, or one string.
    """
    check_id(collection_id)
    asked = {*several("article_ids", article_ids, CollectionError, each=str)}
    if not asked:
        read_text_configs(session, [collection_id])
    joined = join_collections(session, [(collection_id, article_id) for article_id in asked])
    return AddedDocuments(
        joined.added, len(asked) - len(joined.unknown) - joined.added, tuple(sorted(joined.unknown))
    )


def remove_documents(
    session: Executor, collection_id: UUID, article_ids: Collection[str]
) -> RemovedDocuments:
    """Take documents out of a collection, in one statement; the documents stay.

    Args:
        session: In whose transaction.
        collection_id: The collection.
        article_ids: The documents.

    Raises:
        UnknownCollection: There is no such collection.
        CollectionError: The collection is no id, or the articles are no strings, or one string.
    """
    check_id(collection_id)
    asked = {*several("article_ids", article_ids, CollectionError, each=str)}
    parameters = {"collection_id": collection_id, "article_ids": list(asked)}
    row = connection_of(session).execute(_REMOVE, parameters).one()
    refuse_unknown([collection_id], row.known)
    return RemovedDocuments(len(row.removed), tuple(sorted(asked.difference(row.removed))))


_REMOVE = sa.text("""
WITH removed AS (
    DELETE FROM rag_collection_documents m USING rag_documents d
    WHERE m.collection_id = :collection_id AND d.id = m.document_id
    AND d.article_id = ANY(CAST(:article_ids AS text[]))
    RETURNING d.article_id
)
SELECT ARRAY(SELECT id FROM rag_collections WHERE id = :collection_id) AS known,
    ARRAY(SELECT article_id FROM removed) AS removed
""")
