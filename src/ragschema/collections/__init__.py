"""Collections: parts of one corpus that searches may be limited to, as ``rag collections`` and services keep them.

A document is in any number of collections, or in none. Deleting a collection deletes no document. Functions take part
in the caller's transaction; `ragschema.aio.collections` has them for async code.
"""

from __future__ import annotations

from ragschema.collections.errors import CollectionError
from ragschema.collections.membership import (
    AddedDocuments,
    RemovedDocuments,
    add_documents,
    remove_documents,
)
from ragschema.collections.registry import (
    CollectionRecord,
    DeletedCollection,
    create_collection,
    delete_collection,
    find_collection,
    list_collections,
    update_collection,
)
from ragschema.errors import UnknownCollection

__all__ = [
    "AddedDocuments",
    "CollectionError",
    "CollectionRecord",
    "DeletedCollection",
    "RemovedDocuments",
    "UnknownCollection",
    "add_documents",
    "create_collection",
    "delete_collection",
    "find_collection",
    "list_collections",
    "remove_documents",
    "update_collection",
]
