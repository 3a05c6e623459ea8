"""Publishing versions of documents: plan, embed what is new, publish; in bulk; and what becomes of them later.

`plan_version` reads, the caller embeds without a transaction, `publish` writes. Every function here keeps
``is_current`` and ``updated_at`` itself and is right without the database's triggers. Statements name no schema:
the connection's search_path decides.
"""

from __future__ import annotations

from ragschema.publishing.bulk import BulkLoad, publish_many
from ragschema.publishing.deferral import deferred_index
from ragschema.publishing.documents import BulkDocument, Failure
from ragschema.publishing.errors import ContentError, PublishingError, StalePlan, UnknownDocument
from ragschema.publishing.ingesting import ingest, ingest_async
from ragschema.publishing.ingesting_many import Ingestion, ingest_many
from ragschema.publishing.lifecycle import (
    ActivatedVersion,
    Purge,
    activate_version,
    purge_document,
    retire_document,
)
from ragschema.publishing.pending import StoredEmbeddings, skip_embeddings, store_embeddings
from ragschema.publishing.plans import plan_version
from ragschema.publishing.pruning import Pruning, prune_versions
from ragschema.publishing.version_plan import Gone, Place, VersionPlan
from ragschema.publishing.writing import PublishedVersion, publish

__all__ = [
    "ActivatedVersion",
    "BulkDocument",
    "BulkLoad",
    "ContentError",
    "Failure",
    "Gone",
    "Ingestion",
    "Place",
    "Pruning",
    "PublishedVersion",
    "PublishingError",
    "Purge",
    "StalePlan",
    "StoredEmbeddings",
    "UnknownDocument",
    "VersionPlan",
    "activate_version",
    "deferred_index",
    "ingest",
    "ingest_async",
    "ingest_many",
    "plan_version",
    "prune_versions",
    "publish",
    "publish_many",
    "purge_document",
    "retire_document",
    "skip_embeddings",
    "store_embeddings",
]
