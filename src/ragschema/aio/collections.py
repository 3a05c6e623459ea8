"""The functions of collections for async code; see `ragschema.collections`."""

from __future__ import annotations

from ragschema import collections
from ragschema.aio.calls import awaited

add_documents = awaited(collections.add_documents)
create_collection = awaited(collections.create_collection)
delete_collection = awaited(collections.delete_collection)
find_collection = awaited(collections.find_collection)
list_collections = awaited(collections.list_collections)
remove_documents = awaited(collections.remove_documents)
update_collection = awaited(collections.update_collection)

__all__ = [
    "add_documents",
    "create_collection",
    "delete_collection",
    "find_collection",
    "list_collections",
    "remove_documents",
    "update_collection",
]
