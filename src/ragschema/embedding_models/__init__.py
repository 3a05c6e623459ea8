"""Embedding models: register, backfill, index, activate, go back, drop; what ``rag models`` calls, and services may.

Model 1 is the column ``rag_chunks.embedding``; every other one has a partition of ``rag_chunk_embeddings``. Of the
models that are active or stand by each answers; the active one is what new text is embedded for first.
"""

from __future__ import annotations

from ragschema.embedding_models.adding import AddedModel, add_model, rename_model
from ragschema.embedding_models.backfill_batches import backfill_batch, backfill_batch_async
from ragschema.embedding_models.backfill_status import JOB_TYPE, Backfill
from ragschema.embedding_models.backfills import EnqueuedBackfill, backfill_status, enqueue_backfill
from ragschema.embedding_models.dropping import DroppedModel, drop_model
from ragschema.embedding_models.indexes import IndexedModel, index_model
from ragschema.embedding_models.recall import Recall, check_recall
from ragschema.embedding_models.statuses import ModelStatus, find_model, list_models
from ragschema.embedding_models.switching import Switch, activate_model, rollback_model

__all__ = [
    "JOB_TYPE",
    "AddedModel",
    "Backfill",
    "DroppedModel",
    "EnqueuedBackfill",
    "IndexedModel",
    "ModelStatus",
    "Recall",
    "Switch",
    "activate_model",
    "add_model",
    "backfill_batch",
    "backfill_batch_async",
    "backfill_status",
    "check_recall",
    "drop_model",
    "enqueue_backfill",
    "find_model",
    "index_model",
    "list_models",
    "rename_model",
    "rollback_model",
]
