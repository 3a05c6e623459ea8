"""The functions of publishing for async code: each is awaited, with an AsyncSession or an AsyncConnection first.

    async with sessions.begin() as session:
        await aio.publish(session, plan, embeddings)

Arguments, results and errors are those of the functions of the same name in `ragschema.publishing`; those of the
queue are in `ragschema.aio.jobs`, those of conversations in `ragschema.aio.chat`, those of the graph in
`ragschema.aio.graph`, those of collections in `ragschema.aio.collections`. Statement builders need no such form: a
session of either kind executes them.
"""

from __future__ import annotations

from ragschema import publishing, queries
from ragschema.aio import chat, collections, graph, jobs
from ragschema.aio.calls import AsyncExecutor, awaited, awaited_on_connection
from ragschema.database.tenants import use_schema as _use_schema
from ragschema.publishing import ingest_async as ingest

activate_version = awaited(publishing.activate_version)
delete_document = awaited(publishing.delete_document)
delete_documents = awaited(publishing.delete_documents)
plan_version = awaited(publishing.plan_version)
prune_versions = awaited(publishing.prune_versions)
publish = awaited(publishing.publish)
publish_many = awaited_on_connection(publishing.publish_many)
purge_deleted = awaited(publishing.purge_deleted)
purge_document = awaited(publishing.purge_document)
purge_documents = awaited(publishing.purge_documents)
retire_document = awaited(publishing.retire_document)
set_metadata = awaited(publishing.set_metadata)
skip_embeddings = awaited(publishing.skip_embeddings)
store_embeddings = awaited(publishing.store_embeddings)
undelete_document = awaited(publishing.undelete_document)
undelete_documents = awaited(publishing.undelete_documents)
search_settings = awaited(queries.search_settings)
use_schema = awaited(_use_schema)

__all__ = [
    "AsyncExecutor",
    "activate_version",
    "chat",
    "collections",
    "delete_document",
    "delete_documents",
    "graph",
    "ingest",
    "jobs",
    "plan_version",
    "prune_versions",
    "publish",
    "publish_many",
    "purge_deleted",
    "purge_document",
    "purge_documents",
    "retire_document",
    "search_settings",
    "set_metadata",
    "skip_embeddings",
    "store_embeddings",
    "undelete_document",
    "undelete_documents",
    "use_schema",
]
