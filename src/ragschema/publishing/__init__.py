"""Publishing versions of documents: plan, embed what is new, publish; in bulk; and what becomes of them later.

`plan_version` reads, the caller embeds without a transaction, `publish` writes. Every function here keeps
``is_current`` and ``updated_at`` itself and is right without the database's triggers. Statements name no schema:
the connection's search_path decides.
"""

from __future__ import annotations

from ragschema.publishing.bulk import BulkLoad, publish_many
from ragschema.publishing.deferral import deferred_index
from ragschema.publishing.deleting import (
    Deletion,
    UndeletedDocument,
    Undeletion,
    delete_document,
    delete_documents,
    undelete_document,
    undelete_documents,
)
from ragschema.publishing.documents import BulkDocument, Failure
from ragschema.publishing.erasure import Erase
from ragschema.publishing.errors import (
    ContentError,
    DocumentDeleted,
    PublishingError,
    StalePlan,
    UnknownDocument,
)
from ragschema.publishing.ingesting import ingest, ingest_async
from ragschema.publishing.ingesting_many import Ingestion, ingest_many
from ragschema.publishing.lifecycle import ActivatedVersion, activate_version, retire_document
from ragschema.publishing.metadata import DescribedVersion, set_metadata
from ragschema.publishing.pending import StoredEmbeddings, skip_embeddings, store_embeddings
from ragschema.publishing.plans import plan_version
from ragschema.publishing.pruning import Pruning, prune_versions
from ragschema.publishing.purging import (
    Purge,
    PurgedDocuments,
    purge_deleted,
    purge_document,
    purge_documents,
)
from ragschema.publishing.sources import ChunkText, Location, Source
from ragschema.publishing.version_plan import Gone, Place, VersionPlan
from ragschema.publishing.writing import PublishedVersion, publish

__all__ = [
    "ActivatedVersion",
    "BulkDocument",
    "BulkLoad",
    "ChunkText",
    "ContentError",
    "Deletion",
    "DescribedVersion",
    "DocumentDeleted",
    "Erase",
    "Failure",
    "Gone",
    "Ingestion",
    "Location",
    "Place",
    "Pruning",
    "PublishedVersion",
    "PublishingError",
    "Purge",
    "PurgedDocuments",
    "Source",
    "StalePlan",
    "StoredEmbeddings",
    "UndeletedDocument",
    "Undeletion",
    "UnknownDocument",
    "VersionPlan",
    "activate_version",
    "deferred_index",
    "delete_document",
    "delete_documents",
    "ingest",
    "ingest_async",
    "ingest_many",
    "plan_version",
    "prune_versions",
    "publish",
    "publish_many",
    "purge_deleted",
    "purge_document",
    "purge_documents",
    "retire_document",
    "set_metadata",
    "skip_embeddings",
    "store_embeddings",
    "undelete_document",
    "undelete_documents",
]
